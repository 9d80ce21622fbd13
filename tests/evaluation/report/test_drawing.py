"""What all pictures share: names of files, words in lines, photographs made small."""

from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.evaluation.report.drawing import picture_file, small, words


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
