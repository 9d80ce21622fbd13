"""Lists of a split, `split_NAME.json`: read in their order, their folder found, and everything odd in them said."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biomedclip_jax.data.sources import open_labelled
from biomedclip_jax.errors import UserError

ROWS = {
    "train": [["glioma/a.png", 1, "glioma tumor"], ["normal\\b.png", 0, "normal brain"]],
    "val": [["normal/c.png", 0, "normal brain"]],
    "test": [["normal/d.png", 0, "normal brain"], ["glioma/e.png", 1, "glioma tumor"], ["glioma/f.png", 1, "glioma tumor"]],
}


def write(folder: Path, rows: Any, images: str = "BTMRI") -> str:
    folder.mkdir(exist_ok=True)
    for split in rows.values() if isinstance(rows, dict) else ():
        for image, *_ in split if isinstance(split, list) else ():
            if isinstance(image, str) and "gone" not in image:
                path = folder / images / image.replace("\\", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8)).save(path)
    (folder / "split_BTMRI.json").write_text(json.dumps(rows))
    return str(folder / "split_BTMRI.json")


@pytest.mark.parametrize("images", ["BTMRI", ".", "pictures"])
def test_each_split_in_its_order(tmp_path: Path, images: str) -> None:
    path = write(tmp_path, ROWS, images)
    test = open_labelled(path, "test")
    assert test.classes == ("normal brain", "glioma tumor") and test.labels.tolist() == [0, 1, 1]
    assert [Path(name).relative_to(tmp_path / images).as_posix() for name in test.names] == [row[0] for row in ROWS["test"]]
    assert open_labelled(path, "train").labels.tolist() == [1, 0]
    assert len(open_labelled(path, "validation")) == len(open_labelled(f"{path}:val")) == 1


def test_what_is_missing_or_twice_is_left_out_and_named(tmp_path: Path) -> None:
    rows = {
        "test": [*ROWS["test"], ["glioma/gone.png", 1, "glioma tumor"], ROWS["test"][1], ["normal/d.png", 1, "glioma tumor"]]
    }
    found = open_labelled(write(tmp_path, rows), "test")
    assert [Path(name).name for name in found.names] == ["e.png", "f.png"]
    assert sorted((Path(each.image).name, each.reason) for each in found.rejects) == [
        ("d.png", "the image has another class in another row"),
        ("gone.png", "image file is not there"),
        ("split_BTMRI.json", "2 rows list an image once more"),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "expected {"),
        ({"test": "x"}, "expected {"),
        ({"test": [["a.png", 1]]}, r"test, row 1: .*; expected \[path, label, class\]"),
        ({"test": [["a.png", "1", "x"]]}, r"expected \[path, label, class\]"),
        ({"test": [["a.png", True, "x"]]}, r"expected \[path, label, class\]"),
        ({"test": [["a.png", 0, "x"], ["b.png", 0, "y"]]}, "test, row 2: label 0 is 'y', and 'x' in another row"),
        ({"test": [["a.png", 0, "x"], ["b.png", 1, "x"]]}, "class 'x' has two labels"),
        ({"test": [["a.png", 0, "x"], ["b.png", 2, "y"]]}, r"labels \[0, 2\]; expected 0, 1, 2"),
        ({"test": [["a.png", 0, "x"]]}, "of at least two classes"),
        ({"train": [["a.png", 0, "x"], ["b.png", 1, "y"]]}, "no split 'test'"),
        (
            {"test": [["gone.png", 0, "x"], ["gone2.png", 1, "y"]]},
            "none of its first 2 images is there; expected .*gone.png or",
        ),
    ],
)
def test_lists_of_another_shape(tmp_path: Path, rows: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        open_labelled(write(tmp_path, rows), "test")
    assert "\n" not in str(told.value) and "split_BTMRI.json" in str(told.value)


def test_two_folders_with_such_images_are_no_guess(tmp_path: Path) -> None:
    write(tmp_path, ROWS, "one")
    with pytest.raises(UserError, match="one, two have images of these names"):
        open_labelled(write(tmp_path, ROWS, "two"), "test")


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "split_x.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        open_labelled(str(tmp_path / "split_x.json"), "test")


def test_other_classes_than_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its classes are normal brain, glioma tumor; expected a, b"):
        open_labelled(write(tmp_path, ROWS), "test", classes=("a", "b"))
