"""Folders of class folders, with and without splits: which images, of which class, in which order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.labelled.readers import open_class_folders
from biomedclip_jax.errors import UserError


def write(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), number).save(folder / name)
    return folder


def test_a_folder_without_splits(tmp_path: Path) -> None:
    write(tmp_path, "b/2.png", "b/deep/1.png", "a/3.JPG", "c/4.png", "loose.png", ".hidden/5.png", "a/._3.png")
    (tmp_path / "a" / "notes.txt").touch()
    found = open_class_folders(tmp_path)
    assert found.classes == ("a", "b", "c") and found.labels.tolist() == [0, 1, 1, 2] and found.labels.dtype == np.int64
    assert [Path(name).relative_to(tmp_path).as_posix() for name in found.names] == [
        "a/3.JPG",
        "b/2.png",
        "b/deep/1.png",
        "c/4.png",
    ]
    assert np.asarray(load_image(found.images[3]))[0, 0] == 3
    assert [(r.image, r.reason) for r in found.rejects] == [
        (str(tmp_path / "a"), "1 file left out: 1 .txt"),
        (str(tmp_path / "loose.png"), "lies outside the class folders"),
    ]
    with pytest.raises(UserError, match=r"no 'train'; put the class folders into .*train and .*test"):
        open_class_folders(tmp_path, "train")


def test_splits_share_their_classes(tmp_path: Path) -> None:
    """A class that is only in train has its number in test too; numbers are in their own order; val is validation."""
    write(tmp_path, "train/10/1.png", "train/2/1.png", "Test/10/2.png", "val/2/3.png")
    assert open_class_folders(tmp_path, "train").classes == ("2", "10")
    test = open_class_folders(tmp_path)
    assert test.classes == ("2", "10") and test.labels.tolist() == [1]
    assert open_class_folders(tmp_path, "validation").labels.tolist() == [0]
    assert open_class_folders(tmp_path, "train").fingerprint != test.fingerprint
    (tmp_path / "val").rename(tmp_path / "more")
    with pytest.raises(UserError, match="no split 'validation'; there are: Test, train"):
        open_class_folders(tmp_path, "validation")


def test_the_order_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/2.png")
    found = open_class_folders(tmp_path, classes=["b", "x", "a"])
    assert found.classes == ("b", "x", "a") and found.labels.tolist() == [0, 2]
    with pytest.raises(UserError, match=r"unknown class 'a' \(and 1 more\); expected cat, dog"):
        open_class_folders(tmp_path, classes=["cat", "dog"])


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "one", "a/1.png")
    with pytest.raises(UserError, match="one: 1 class: a; expected at least two"):
        open_class_folders(tmp_path / "one")
    for name in ("a", "b"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="no image in its class folders"):
        open_class_folders(tmp_path / "empty")
    write(tmp_path / "empty", "loose.png")
    with pytest.raises(UserError, match=r"no usable image, 1 left out; the first: .*loose\.png, lies outside"):
        open_class_folders(tmp_path / "empty")


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/2.png")
    first = open_class_folders(tmp_path).fingerprint
    assert open_class_folders(tmp_path).fingerprint == first
    Image.new("L", (40, 30)).save(tmp_path / "a" / "1.png")
    assert open_class_folders(tmp_path).fingerprint != first
