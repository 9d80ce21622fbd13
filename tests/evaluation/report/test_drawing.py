"""What all pictures share (names of files, words in lines, photographs made small), and the picture of a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import loss_curve, picture_file, small, words


def test_names_of_files() -> None:
    """Whatever a model or a data set is called, the file can be written, and none replaces another."""
    assert (
        picture_file("zero-shot", "lc25000-lung", "BiomedCLIP", "confusion")
        == "zero-shot.lc25000-lung.BiomedCLIP.confusion.png"
    )
    strange = ["a/b", "a:b", "a b", "..", "", "ü", "a" * 300, "CON\n"]
    files = [picture_file("zero-shot", name, "confusion") for name in strange]
    assert len(set(files)) == len(files)
    for file in files:
        assert Path(file).name == file and file.isascii() and len(file) < 120 and "\n" not in file and not file.startswith(".")


def test_words_in_lines() -> None:
    assert words("lung squamous cell carcinomas", 13, 3) == "lung squamous\ncell\ncarcinomas"
    assert words("lung squamous cell carcinomas", 13, 1).endswith("...")
    assert words("a\x00b\udcff", 20, 1).isprintable()


def test_small_photographs() -> None:
    """The caller's image stays as it is; Pillow warns where one like this is converted carelessly."""
    palette = Image.new("P", (1_000, 500))
    palette.info["transparency"] = bytes(range(16))
    assert small(palette).shape == (160, 320, 3) and small(palette).dtype == np.uint8
    assert palette.mode == "P" and palette.size == (1_000, 500) and "transparency" in palette.info


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


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        loss_curve(tmp_path / "file" / "loss.png", [{"step": 1, "stage": 0, "loss": 1.0}])
