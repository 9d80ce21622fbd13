"""Galleries as pictures: the images of the best answers are there, and yellow where, and only where, a right one is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval.gallery import Found, captions_of_images, choose, images_of_captions

COLOURS = ["red", "green", "blue", "grey", "white", "black"]
GOLD, RED, BLUE, BLACK = (255, 215, 0), (255, 0, 0), (0, 0, 255), (0, 0, 0)
STRANGE = [r"broken $\frac{1}{$ formula", "胸部X线 \ud83d \x00\x07 μm", "word " * 300, "x" * 999, "", "two\nlines"]


def share(path: Path, colour: tuple[int, int, int]) -> float:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return float((np.asarray(image.convert("RGB")) == np.array(colour)).all(axis=2).mean())


def picture(place: int) -> Image.Image:
    return Image.new("RGB", (30, 20 + 3 * place), COLOURS[place])


def found(order: list[int], queries: int = 2, name: str = "a model") -> Found:
    scores = np.linspace(0.9, -0.2, len(order), dtype=np.float32)
    return Found(name, np.array([order[:4]] * queries), np.stack([scores[:4]] * queries))


def gold_of_images(path: Path, models: list[Found], right: list[set[int]]) -> float:
    images_of_captions(path, STRANGE[: len(right)], models, picture, right, "a title")
    return share(path, GOLD)


def test_images_of_captions(tmp_path: Path) -> None:
    """The four best of six are shown; a frame in gold round a right one that is among them, and only then."""
    shown = found([0, 1, 2, 3, 4, 5])
    one = gold_of_images(tmp_path / "one.png", [shown], [{0}, {5}])
    assert one > 0.002 and gold_of_images(tmp_path / "none.png", [shown], [{4}, {5}]) == 0
    assert gold_of_images(tmp_path / "two.png", [shown], [{0}, {3, 5}]) == pytest.approx(2 * one, rel=0.2)
    assert share(tmp_path / "one.png", RED) > 0.01 and share(tmp_path / "one.png", BLUE) > 0.01
    without = found([1, 2, 3, 4, 5, 0])
    assert gold_of_images(tmp_path / "other.png", [without], [{0}, {5}]) == 0 and share(tmp_path / "other.png", RED) == 0
    assert len(list(tmp_path.iterdir())) == 4, "nothing is left beside them"


def test_models_side_by_side(tmp_path: Path) -> None:
    """Only the models that find the right one get a frame; the picture grows with their number."""
    good, bad = found([0, 1, 2, 3]), found([3, 2, 1, 4], name=STRANGE[0])
    widths, golden = [], []
    for number, models in enumerate(([good], [good, bad], [good, bad, good, bad])):
        path = tmp_path / f"{number}.png"
        golden.append(gold_of_images(path, models, [{0}, {0}]))
        with Image.open(path) as image:
            widths.append(image.width)
            golden[-1] *= image.width * image.height
    assert widths[0] < widths[1] < widths[2] < 3_500
    assert golden[0] == pytest.approx(golden[1], rel=0.1) and golden[2] == pytest.approx(2 * golden[0], rel=0.1)


def test_captions_of_images(tmp_path: Path) -> None:
    """A caption that belongs to the image lies on yellow."""

    def gold(name: str, right: list[set[int]]) -> float:
        captions_of_images(tmp_path / name, [0, 2], [found([5, 4, 3, 2, 1, 0])], picture, STRANGE.__getitem__, right)
        assert share(tmp_path / name, RED) > 0.01 and share(tmp_path / name, BLUE) > 0.01
        return share(tmp_path / name, GOLD)

    one = gold("one.png", [{5}, {1}])
    assert one > 0.01 and gold("none.png", [{0}, {1}]) == 0
    assert gold("three.png", [{5, 4}, {2}]) == pytest.approx(3 * one, rel=0.2)


def test_words_are_drawn_whatever_is_in_them(tmp_path: Path) -> None:
    """Formulas, other scripts, half characters: warnings are errors here."""
    images_of_captions(tmp_path / "a.png", STRANGE, [found([0, 1, 2, 3], 6)], picture, [set()] * 6, r"$\title{")
    assert share(tmp_path / "a.png", BLACK) > 0.0005


def test_fewer_than_four(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    best = Found.by("", rng.normal(size=(2, 8)), rng.normal(size=(3, 8)))
    assert best.positions.shape == (2, 3) and sorted(best.positions[0].tolist()) == [0, 1, 2]
    assert gold_of_images(tmp_path / "a.png", [best], [{0}, {1}]) > 0
    captions_of_images(tmp_path / "b.png", [0, 1], [best], picture, STRANGE.__getitem__, [{0}, {1}])
    assert share(tmp_path / "b.png", GOLD) > 0


def test_best_are_those_of_the_highest_scores() -> None:
    keys = np.eye(6, dtype=np.float32)
    best = Found.by("", np.array([[0.1, 0.5, 0.2, 0.4, 0.3, 0.0]], np.float32), keys)
    assert best.positions.tolist() == [[1, 3, 4, 2]] and best.scores.tolist() == [pytest.approx([0.5, 0.4, 0.3, 0.2])]


def test_an_image_that_has_gone(tmp_path: Path) -> None:
    """It could be read when it was embedded; now its place says what is wrong."""

    def gone(place: int) -> Image.Image:
        raise UserError(f"/data/{place}.png: no such file")

    images_of_captions(tmp_path / "a.png", ["a"], [found([0, 1, 2, 3], 1)], gone, [{0}])
    assert share(tmp_path / "a.png", RED) > 0 and share(tmp_path / "a.png", GOLD) > 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        images_of_captions(tmp_path / "file" / "a.png", ["a"], [found([0, 1], 1)], picture, [{0}])


def test_queries_of_both_outcomes_and_of_many_kinds_are_chosen() -> None:
    """Half succeeded, half did not; no kind twice before each was there once; the same for the same seed."""
    succeeded = [i % 5 == 0 for i in range(60)]
    kinds = [f"kind {i % 6}" for i in range(60)]
    rows = choose(succeeded, kinds, 6, seed=3)
    assert [succeeded[i] for i in rows] == [True] * 3 + [False] * 3
    assert len({kinds[i] for i in rows}) == 6
    assert rows == choose(succeeded, kinds, 6, seed=3) != choose(succeeded, kinds, 6, seed=4)


@pytest.mark.parametrize(("good", "bad"), [(6, 0), (0, 6), (1, 5), (5, 1), (1, 1), (0, 0), (2, 1)])
def test_the_other_outcome_fills_the_rows(good: int, bad: int) -> None:
    rows = choose([True] * good + [False] * bad, [""] * (good + bad), 4, seed=0)
    assert len(set(rows)) == len(rows) == min(4, good + bad)
    assert sum(i < good for i in rows) == max(min(2, good), min(4 - bad, good))
