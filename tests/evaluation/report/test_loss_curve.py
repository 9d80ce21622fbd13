"""The picture of a run: a PNG file that opens, with something in it that depends on the numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import loss_curve


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((pixels == np.array(colour)).all(axis=2).mean())


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
