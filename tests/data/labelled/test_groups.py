"""What images belong to: by a column, by DICOM's PatientID, or not at all; one spelling, and no patient's number kept."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import dicom_files
from PIL import Image

from biomedclip_jax.data.labelled.groups import grouped, groups_of, intervals_over, one_spelling, shared_groups, with_groups
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError


def table(folder: Path, patients: list[str]) -> str:
    lines = ["image,label,Patient ID"]
    for i, patient in enumerate(patients):
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{patient}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "t.csv")


def test_a_column_says_it_in_one_spelling(tmp_path: Path) -> None:
    path = table(tmp_path, ["7", "007", "P7", "p7", "", " 8 "])
    data = with_groups(open_labelled(path), path, "Patient ID", "image")
    assert data.groups is not None and data.groups[:4] == ("7", "7", "p7", "p7") and data.groups[5] == "8"
    assert intervals_over(data) == [
        "intervals over 4 groups (Patient ID) of 6 images; 1 images without one stand for themselves"
    ]
    assert data.subset(np.array([5, 0])).groups == ("8", "7")


def test_an_image_of_two_groups(tmp_path: Path) -> None:
    path = Path(table(tmp_path, ["1", "2"]))
    path.write_text(f"{path.read_text()}0.png,a,01\n")
    assert with_groups(open_labelled(str(path)), str(path), "Patient ID", "image").groups == ("1", "2", "1")
    path.write_text(f"{path.read_text()}1.png,b,3\n")
    with pytest.raises(UserError, match=r"t\.csv, row 4: .*1\.png has Patient ID '3', and '2' in another row"):
        with_groups(open_labelled(str(path)), str(path), "Patient ID", "image")


def test_a_split_of_a_table(tmp_path: Path) -> None:
    path = table(tmp_path, ["1", "1", "2", "2"])
    Path(path).write_text(Path(path).read_text().replace("\n", ",test\n").replace("Patient ID,test", "Patient ID,split"))
    data = with_groups(open_labelled(f"{path}:test"), f"{path}:test", "Patient ID", "image")
    assert data.groups == ("1", "1", "2", "2")


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = table(tmp_path, ["1", "2"])
    with pytest.raises(UserError, match=r"t\.csv: no column 'subject'.*'Patient ID'"):
        with_groups(open_labelled(path), path, "subject", "image")
    with pytest.raises(UserError, match=r"no column 'patient'.*nor is an image a DICOM file with a PatientID"):
        with_groups(open_labelled(path), path, "patient", "image")
    for label in "ab":
        (tmp_path / "folders" / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "folders" / label / "x.png")
    with pytest.raises(UserError, match="no table, so that it has no column 'subject'"):
        with_groups(open_labelled(str(tmp_path / "folders")), str(tmp_path / "folders"), "subject", "image")


def test_dicom_files_say_whose_they_are_and_no_number_is_kept(tmp_path: Path) -> None:
    for number, (label, patient) in enumerate([("a", "MR-77"), ("b", "MR-77"), ("a", "MR-78"), ("b", "")]):
        (tmp_path / "cd" / label).mkdir(parents=True, exist_ok=True)
        dicom_files.write(tmp_path / "cd" / label / f"{number}.dcm", np.zeros((8, 8), np.uint16), PatientID=patient)
    data = with_groups(open_labelled(str(tmp_path / "cd")), str(tmp_path / "cd"), "patient", "image")
    assert data.groups is not None
    of = dict(zip((Path(name).stem for name in data.names), data.groups, strict=True))
    assert of["0"] == of["1"] != of["2"] and len(set(of.values())) == 3
    assert not any("77" in group for group in data.groups if group != of["2"]) and len(of["0"]) == 16


def test_groups_in_both(tmp_path: Path) -> None:
    data = open_labelled(table(tmp_path, ["1", "2", "3", "4"]))
    train, test = grouped(data, ["1", "2", None, None], "p"), grouped(data, ["2", "3", None, None], "p")
    assert shared_groups(train, test) == ["2"], "those that stand for themselves are nobody else"
    assert shared_groups(data, test) == []


@pytest.mark.parametrize(("told", "one"), [("07", "7"), ("7.0", "7"), ("0", "0"), ("", None), ("A-1", "a-1"), ("7.5", "7.5")])
def test_one_spelling(told: str, one: str | None) -> None:
    assert one_spelling(told) == one


def test_another_table_says_it_of_a_list_or_of_class_folders(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "folders" / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "folders" / label / "x.png")
    path, folders = tmp_path / "who.csv", str(tmp_path / "folders")
    path.write_text("image,who\nfolders/a/x.png,7\nfolders/b/x.png,07\n")
    assert with_groups(open_labelled(folders), folders, f"{path}:who", "image").groups == ("7", "7")
    (tmp_path / "split_x.json").write_text('{"test": [["folders/a/x.png", 0, "a"], ["folders/b/x.png", 1, "b"]]}')
    listed = str(tmp_path / "split_x.json")
    assert with_groups(open_labelled(listed), listed, f"{path}:who", "image").groups == ("7", "7")
    path.write_text("image,who\nelsewhere.png,7\n")
    with pytest.raises(UserError, match=r"no image of .*folders has a who there; expected paths from its folder on"):
        with_groups(open_labelled(folders), folders, f"{path}:who", "image")


def test_rows_that_hold_their_pictures(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    encoded = io.BytesIO()
    Image.new("L", (4, 4)).save(encoded, "PNG")
    picture = {"bytes": encoded.getvalue(), "path": None}
    columns = {"image": [picture] * 3, "label": ["a", None, "b"], "caption": ["x", "y", "z"], "who": [7.0, 8.0, 7.0]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    where = str(tmp_path / "t.parquet")
    assert with_groups(open_labelled(where), where, "who", "image").groups == ("7", "7"), "without the row that has no label"
    pairs = open_pairs(where)
    assert groups_of([ImageOf(pairs, i) for i in range(3)], where, "who", "image") == ["7", "8", "7"]
    with pytest.raises(UserError, match=r"no column 'whose'.*did you mean 'who'"):
        with_groups(open_labelled(where), where, "whose", "image")


def test_pairs_of_a_table(tmp_path: Path) -> None:
    path = table(tmp_path, ["1", "01", "2"])
    pairs = open_pairs(path, caption_column="label")
    assert groups_of([ImageOf(pairs, i) for i in range(3)], path, "Patient ID", "image") == ["1", "1", "2"]
