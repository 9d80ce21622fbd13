"""The pictures of a classifier: PNG files that open, in which what they should show can be found by its colour."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation._metrics import Calibration
from biomedclip_jax.evaluation.zero_shot._pictures import (
    Answers,
    confident_mistakes,
    confusion_matrix,
    draw,
    reliability_diagram,
)

LONG = "lung squamous cell carcinomas of the upper lobe, poorly differentiated, with necrosis"
DARKEST_BLUE = (8, 48, 107)  # of the colour map: a share of 1


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels - np.array(colour)).max(axis=2) <= 3).mean())


def ends_in_white(pixels: np.ndarray) -> bool:
    """Nothing is cut off: the edge of the picture is blank."""
    return all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.mark.parametrize("size", [2, 9, 25])
def test_confusion_matrix(tmp_path: Path, size: int) -> None:
    """One dark cell a class if all is right, none if the answers are anything; long names are not cut off at the edge."""
    names = [f"{i} {LONG}" for i in range(size)]
    confusion_matrix(tmp_path / "right.png", 1000 * np.eye(size, dtype=int), names, "a data set: a model")
    confusion_matrix(tmp_path / "even.png", np.full((size, size), 10), names, "a data set: a model")
    right, even = opened(tmp_path / "right.png"), opened(tmp_path / "even.png")
    assert ends_in_white(right) and ends_in_white(even)
    # the colour bar has this colour too, a little of it
    assert share(right, DARKEST_BLUE) > 3 * share(even, DARKEST_BLUE)
    assert max(right.shape) < 3_200


def test_a_class_without_images(tmp_path: Path) -> None:
    confusion_matrix(tmp_path / "a.png", np.array([[3, 0], [0, 0]]), ["a", "b"], "x")
    assert share(opened(tmp_path / "a.png"), DARKEST_BLUE) > 0.01


def test_reliability_diagram(tmp_path: Path) -> None:
    """Red is the gap between accuracy and confidence: much of it where a model is always sure and never right."""
    sure = np.tile([0.99, 0.01], (50, 1))
    for name, labels in (("right", np.zeros(50, int)), ("wrong", np.ones(50, int))):
        reliability_diagram(tmp_path / f"{name}.png", Calibration.of(labels, sure), "a data set: a model")
    right, wrong = opened(tmp_path / "right.png"), opened(tmp_path / "wrong.png")
    assert ends_in_white(right)
    red, blue = (0xD6, 0x27, 0x28), (0xB0, 0xC4, 0xDE)
    assert share(wrong, red) > 3 * share(right, red) and share(right, blue) > 3 * share(wrong, blue)


COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "magenta": (255, 0, 255)}


def mistakes(path: Path, labels: list[int], sure: list[float], count: int = 4) -> np.ndarray | None:
    """Images of four colours, all answered as class 0 with the given probability."""
    images = [Image.new("RGB", (40, 30 + i), name) for i, name in enumerate(COLOURS)]
    with np.errstate(divide="ignore"):
        logits = np.log([[p, 1 - p, 0] for p in sure])
    names = [f"folder/{'x' * 60}{i}.png" for i in range(count)]
    classes = ("normal", LONG, r"formula $\frac{1}{$")
    data = Labelled("a set", classes, [images[i % 4] for i in range(count)], names, np.array(labels), "")
    drawn = confident_mistakes(path, Answers(data, logits), "a set: a model")
    return opened(path) if drawn else None


def test_mistakes_are_shown_and_right_answers_are_not(tmp_path: Path) -> None:
    pixels = mistakes(tmp_path / "a.png", [1, 0, 2, 1], [0.7, 0.99, 0.6, 0.9])
    assert pixels is not None and ends_in_white(pixels)
    assert [share(pixels, colour) > 0.01 for colour in COLOURS.values()] == [True, False, True, True]
    # the most confident stands first
    left = [
        np.flatnonzero((pixels == np.array(COLOURS[name])).all(axis=2).any(axis=0))[0] for name in ("magenta", "red", "blue")
    ]
    assert left == sorted(left) and len(set(left)) == 3


def test_only_the_most_confident_of_many(tmp_path: Path) -> None:
    """Of 40 mistakes the twelve of the highest probability, all of one colour."""
    sure = [0.9 if i % 4 == 2 else 0.6 for i in range(48)]
    pixels = mistakes(tmp_path / "a.png", [1] * 48, sure, 48)
    assert pixels is not None
    assert [share(pixels, colour) > 0 for colour in COLOURS.values()] == [False, False, True, False]


def test_no_mistakes_no_picture(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "a.png", [0] * 4, [0.9] * 4) is None
    assert list(tmp_path.iterdir()) == []


def test_all_pictures_of_a_model(tmp_path: Path) -> None:
    """Whatever the model and the data are called, the files are in the folder, under the names that are given back."""
    logits = np.log([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    palette = Image.new("P", (20, 20))
    palette.info["transparency"] = bytes(range(16))  # Pillow warns where such an image is converted carelessly
    images = [palette, Image.new("L", (20, 20)), Image.new("RGBA", (700, 500))]
    names = ["影像.png", "b\udcff.png", "c.png"]
    for labels, kinds in (([0, 1, 0], 3), ([0, 0, 1], 2)):
        folder = tmp_path / str(kinds)
        data = Labelled("x", ("正常", "lung $x_"), images, names, np.array(labels), "")
        titles = draw(folder, "C:\\data | x", "../org/Modell Ü:1", Answers(data, logits), "0123456789ab")
        assert len(titles) == kinds and titles.keys() == {path.name for path in folder.iterdir()}
        assert all("Modell Ü:1" in title for title in titles.values())
        counts = np.array([[1, 1], [1, 0]] if kinds == 3 else [[2, 0], [0, 1]])
        confusion_matrix(tmp_path / "same.png", counts, ["正常", "lung $x_"], "C:\\data | x: ../org/Modell Ü:1")
        (drawn,) = folder.glob("*.confusion.*")
        assert (opened(drawn) == opened(tmp_path / "same.png")).all()
    assert palette.mode == "P" and "transparency" in palette.info, "the caller's images stay as they are"
