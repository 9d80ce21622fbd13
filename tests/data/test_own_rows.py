"""The user's rows: columns that are there or named, groups and splits, what is left out and why."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import own_data
from PIL import Image

from biomedclip_jax.data.labelled.multi_label_table import Declared
from biomedclip_jax.data.own_rows import Columns, OwnData, read_own
from biomedclip_jax.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcd":
        Image.fromarray(np.full((4, 4), 50, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def table(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def read(source: str, folder: Path, **columns: str) -> OwnData:
    return read_own(source, Columns(**columns), folder / "unpacked")  # type: ignore[arg-type]


def test_captions_labels_and_groups_are_found_by_their_usual_names(folder: Path) -> None:
    rows = [{"image": f"{name}.png", "caption": f"text {name}", "label": "x", "patient_id": name} for name in "ab"]
    found = read(table(folder, rows), folder)
    assert found.captioned and found.labelled and found.group_column == "patient_id" and not found.rejects
    assert [(row.captions, row.label, row.group) for row in found.rows] == [(("text a",), "x", "a"), (("text b",), "x", "b")]
    assert [row.image for row in found.rows] == [str(folder / "a.png"), str(folder / "b.png")]


def test_labels_alone_will_do_and_other_names_can_be_said(folder: Path) -> None:
    rows = [{"file": f"{name}.png", "finding": "x", "owner": 1} for name in "ab"]
    found = read(table(folder, rows), folder, image="file", label="finding", group="owner")
    assert found.labelled and not found.captioned
    assert [row.group for row in found.rows] == ["1", "1"]


def test_a_table_without_captions_and_labels_is_refused_with_its_columns(folder: Path) -> None:
    with pytest.raises(UserError, match=r"neither a column 'caption' nor .* only 'image', 'text'.*--caption-column"):
        read(table(folder, [{"image": "a.png", "text": "x"}]), folder)


def test_what_cannot_be_used_is_left_out_with_its_reason(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "a.png", "caption": "one", "patient": "p"},
        {"image": "gone.png", "caption": "two", "patient": "p"},
        {"image": "b.png", "caption": "", "patient": "p"},
        {"image": "c.png", "caption": "three", "patient": None},
        {"image": "a.png", "caption": "one", "patient": "p"},
    ]
    found = read(table(folder, rows), folder)
    assert [row.captions for row in found.rows] == [("one",)]
    assert [reject.reason for reject in found.rejects] == [
        "image file is not there",
        "caption is empty",
        "patient is empty; write one into each row, or name another column with --group-column",
        "the same row once more",
    ]


def test_an_image_of_two_labels_is_left_out_both_times(folder: Path) -> None:
    rows = [{"image": "a.png", "label": "x"}, {"image": "a.png", "label": "y"}, {"image": "b.png", "label": "y"}]
    found = read(table(folder, rows), folder)
    assert [row.image for row in found.rows] == [str(folder / "b.png")]
    assert [reject.reason for reject in found.rejects] == ["the image has another label in another row"] * 2


def test_splits_are_told_by_any_of_their_names_and_can_be_asked_for(folder: Path) -> None:
    splits = dict(zip("abcd", ("Train", "dev", "test", "?"), strict=True))
    rows = [{"image": f"{name}.png", "label": "x", "split": split} for name, split in splits.items()]
    source = table(folder, rows)
    found = read(source, folder)
    assert [row.split for row in found.rows] == ["train", "validation", "test"]
    assert [reject.reason for reject in found.rejects] == ["split '?' is none of train, validation and test"]
    one = read(f"{source}:valid", folder)
    assert [(row.image, row.split) for row in one.rows] == [(str(folder / "b.png"), None)]
    with pytest.raises(UserError, match="no split 'fold1'; there are: train, validation, test"):
        read(f"{source}:fold1", folder)


def test_class_folders_with_and_without_splits(folder: Path) -> None:
    for split in ("train", "test"):
        for label in ("lung", "heart"):
            (folder / "set" / split / label).mkdir(parents=True)
            shutil.copy(folder / "a.png", folder / "set" / split / label / "1.png")
    found = read(str(folder / "set"), folder)
    assert sorted((row.split, row.label) for row in found.rows) == [
        ("test", "heart"),
        ("test", "lung"),
        ("train", "heart"),
        ("train", "lung"),
    ]
    plain = read(str(folder / "set" / "train"), folder)
    assert [row.split for row in plain.rows] == [None, None]


def test_images_of_tars_become_files(folder: Path, own_cache: Path) -> None:
    with tarfile.open(folder / "pairs.tar", "w") as tar:
        for name in "ab":
            tar.add(folder / f"{name}.png", f"{name}.png")
            text = f"text {name}".encode()
            entry = tarfile.TarInfo(f"{name}.txt")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    found = read(str(folder / "pairs.tar"), folder)
    assert [(Path(row.image).name, row.captions) for row in found.rows] == [
        ("000000.png", ("text a",)),
        ("000001.png", ("text b",)),
    ]
    assert Path(found.rows[0].image).read_bytes() == (folder / "a.png").read_bytes()


def test_nothing_left_is_an_error_with_the_first_reason(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no usable row, 1 left out; the first: .*gone.png, image file is not there"):
        read(table(folder, [{"image": "gone.png", "label": "x"}]), folder)


def test_findings_become_captions(tmp_path: Path) -> None:
    """Those that are present, in one order; rows that say too little are left out, and patients are known."""
    lines = ["image,Finding Labels,Patient ID,split"]
    told = ["Mass|Edema", "Edema|Mass", "No Finding", "", "Pleural_Thickening", "No Finding|Mass", "Mass|Edema|Nodule"]
    for i, labels in enumerate(told):
        own_data.picture(tmp_path, f"{i}.png", i)
        lines.append(f"{i}.png,{labels},0{i // 2},{'test' if i == 6 else 'train'}")
    (tmp_path / "nih.csv").write_text("\n".join(lines) + "\n")
    columns = Columns(findings=Declared("Finding Labels"))
    found = read_own(str(tmp_path / "nih.csv"), columns, tmp_path / "unpacked")
    assert [row.captions[0] for row in found.rows] == [
        *("a photo of edema and mass", "a photo of edema and mass", "a photo of no finding"),
        *("a photo of pleural thickening", "a photo of edema, mass and nodule"),
    ]
    assert [(row.group, row.split, row.number) for row in found.rows][-1] == ("3", "test", "7")
    assert found.group_column == "Patient ID" and not found.labelled and found.captioned
    assert [(each.row, each.reason) for each in found.rejects] == [
        ("4", "label is empty"),
        ("6", "says both 'No Finding' and 'Mass'"),
    ]
    assert len(read_own(f"{tmp_path / 'nih.csv'}:test", columns, tmp_path / "unpacked").rows) == 1


def test_columns_of_findings_become_captions(tmp_path: Path) -> None:
    lines = ["image,Edema,Lung_Mass,No Finding"]
    for i, cells in enumerate(["1,0,", "1,1,0", "0,0,", ",,1", "-1,0,0", ",,", "0,1,1"]):
        own_data.picture(tmp_path, f"{i}.png", i)
        lines.append(f"{i}.png,{cells}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    declared = Declared(columns=("Edema", "Lung_Mass", "No Finding"))
    found = read_own(str(tmp_path / "t.csv"), Columns(findings=declared), tmp_path)
    assert [(row.number, row.captions[0].removeprefix("a photo of ")) for row in found.rows] == [
        *(("1", "edema"), ("2", "edema and lung mass"), ("3", "no finding"), ("4", "no finding")),
    ]
    reasons = {each.row: each.reason for each in found.rejects}
    assert reasons.keys() == {"5", "6", "7"} and reasons["7"] == "says both 'No Finding' and 'Lung_Mass'"
    assert "some are uncertain, or nothing is said" in reasons["5"]
    with pytest.raises(UserError, match="are read from one table with a column of image paths"):
        read_own(str(tmp_path), Columns(findings=declared), tmp_path)
