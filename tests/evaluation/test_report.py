"""The pictures: PNG files that open, with something in them that depends on the results."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report import loss_curve, retrieval_gallery

COLOURS = ["red", "green", "blue", "grey", "white", "black"]


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((pixels == np.array(colour)).all(axis=2).mean())


def gallery(path: Path, right: list[set[int]], n: int = 6) -> np.ndarray:
    images = [Image.new("RGB", (30, 20 + i), colour) for i, colour in enumerate(COLOURS[:n])]
    scores = np.linspace(0.9, -0.2, n)[None].repeat(2, axis=0)
    formula = r"broken $\frac{1}{$"  # captions are words, whatever is in them
    retrieval_gallery(path, ["a caption " * 30, formula], images.__getitem__, scores, right)
    return opened(path)


def test_gallery(tmp_path: Path) -> None:
    """The four best of six are shown; a frame in gold only round a right one that is among them."""
    framed, unframed = gallery(tmp_path / "a.png", [{0}, {3}]), gallery(tmp_path / "b.png", [{4}, {5}])
    assert min(framed.shape[:2]) > 300
    gold = (255, 215, 0)
    assert share(framed, gold) > 0.002 and share(unframed, gold) == 0
    assert share(framed, (255, 0, 0)) > 0.005 and share(framed, (0, 0, 255)) > 0.005
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"], "nothing is left beside them"


def test_gallery_of_fewer_than_four_images(tmp_path: Path) -> None:
    assert gallery(tmp_path / "a.png", [{0}, {1}], n=2).size > 0


def test_loss_curve(tmp_path: Path) -> None:
    lines = [{"step": s, "stage": s // 10, "loss": 3 / (1 + s), "lr": 1e-3} for s in range(20)]
    loss_curve(tmp_path / "two.png", lines)
    loss_curve(tmp_path / "one.png", lines[:10])
    two, one = opened(tmp_path / "two.png"), opened(tmp_path / "one.png")
    first, second = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)  # each stage has a colour
    assert share(two, first) > 0 and share(two, second) > 0
    assert share(one, first) > 0 and share(one, second) == 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        loss_curve(tmp_path / "file" / "loss.png", [{"step": 1, "stage": 0, "loss": 1.0}])
