"""Rows of strangers' tables: each is read as its owner meant it, stands in a reject with its reason, or stops the run."""

import json
import math
from pathlib import Path

import pytest

from biomedclip_jax.data._table_rows import table_rows, text_of
from biomedclip_jax.data.labelled.readers import open_labelled_table
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError

COLUMNS = ["image", "caption"]
HEADER = "image,caption\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, columns: list[str] = COLUMNS) -> tuple[list[tuple[str, ...]], list[Reject]]:
    rejects: list[Reject] = []
    rows = [tuple(row[name] for name in columns) for _, row in table_rows(path, columns, (), rejects)]
    return rows, rejects


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    found = str(caught.value)
    assert str(path) in found and "\n" not in found
    return found


# --- quotes ---------------------------------------------------------------------------------------------------------

GOOD = "".join(f"{n}.png,caption {n}\n" for n in range(40))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f'{HEADER}a.png,"never closed\n{GOOD}', "line 2: a quote that opens here is never closed"),
        (f'{HEADER}{GOOD}a.png,"never closed\n', "line 42: a quote that opens here is never closed"),
        (f'{HEADER}{GOOD}a.png,"never closed\n{GOOD}b.png,"nor this\n', "line 83; a quote inside a text is written twice"),
        (f'{HEADER}a.png,"a ""quoted"" word" and more\n{GOOD}', "text after a closing quote on line 2"),
        (f'{HEADER}a.png,"never closed {"x" * 200_000}\n', "line 2: a quote that opens here is never closed"),
        (f"{HEADER}a.png,a\0b\n", "line 2: a NUL byte"),
    ],
)
def test_quotes_that_do_not_close_stop_the_run(tmp_path: Path, content: str, named: str) -> None:
    assert named in message(write(tmp_path / "t.csv", content))


def test_rows_that_a_quote_holds_together_are_no_caption(tmp_path: Path) -> None:
    """A quote that closes by accident, at the end of a line: the forty rows inside stand in a reject."""
    rows, rejects = read(write(tmp_path / "t.csv", f'{HEADER}a.png,"open\n{GOOD}b.png,"\nc.png,last\n'))
    assert rows == [("c.png", "last")]
    assert [(r.row, r.reason) for r in rejects] == [
        ("1", "line 2: one cell holds 41 lines that look like rows; a quote in it seems to be never closed")
    ]


def test_texts_may_have_lines_quotes_and_commas(tmp_path: Path) -> None:
    text = 'Chest, "PA" view:\n- heart, normal\n- lungs\n\n- no fracture, no fluid, 5" tube'
    quoted = text.replace('"', '""')
    rows, rejects = read(write(tmp_path / "t.csv", f'{HEADER}a.png,"{quoted}"\nb.png,5" tube\n'))
    assert rows == [("a.png", text), ("b.png", '5" tube')] and not rejects


# --- cells ----------------------------------------------------------------------------------------------------------


def test_rows_of_other_widths_are_rejects(tmp_path: Path) -> None:
    content = f"{HEADER}a.png\nb.png,one, two\nc.png,three,,\n\n   \nd.png,four\n"
    rows, rejects = read(write(tmp_path / "t.csv", content))
    assert rows == [("c.png", "three"), ("d.png", "four")], "empty lines and commas at the end of a line are nothing"
    assert [(r.row, r.reason) for r in rejects] == [
        ("1", "line 2: 1 cells where the header has 2 columns"),
        ("2", "line 3: 3 cells where the header has 2 columns; a text with commas in it must stand in quotes"),
    ]
    with pytest.raises(UserError, match=r"t\.csv, line 2: 1 cells where the header has 2 columns"):
        list(table_rows(tmp_path / "t.csv", COLUMNS))


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("t.csv", "image,caption,caption\na.png,b,c\n", "column 'caption' is there 2 times (columns 2, 3)"),
        ("t.csv", "image, caption ,caption\na.png,b,c\n", "column 'caption' is there 2 times"),
        ("t.jsonl", '{"image": "a.png", "caption": "b", "caption": "c"}\n', "line 1: not JSON (key 'caption' is there twice)"),
        ("t.csv", "image;caption\na.png;b\n", "its cells are separated by semicolons, not commas; save it with commas"),
        ("t.csv", "image\tcaption\na.png\tb\n", "its cells are separated by tabs, not commas; name it .tsv"),
        ("t.tsv", "image,caption\na.png,b\n", "its cells are separated by commas, not tabs; name it .csv"),
        ("t.csv", "a.png,a caption\nb.png,another\n", "no header: its first line has 'a.png', which is an image"),
        ("t.csv", "scans/a.DCM,a caption\n", "no header: its first line has 'scans/a.DCM'"),
        ("t.csv", "imge,caption\na.png,b\n", "no column 'image'; there are 'imge', 'caption'; did you mean 'imge'?"),
        ("t.csv", "image,caption\n".encode("utf-16"), "not UTF-8 (it begins as UTF-16 does)"),
    ],
)
def test_headers_that_cannot_be_meant(tmp_path: Path, name: str, content: str | bytes, named: str) -> None:
    assert named in message(write(tmp_path / name, content))


def test_a_parquet_column_that_is_there_twice(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 3, names=["image", "caption", "caption"])
    parquet.write_table(table, tmp_path / "t.parquet")
    assert "column 'caption' is there 2 times" in message(tmp_path / "t.parquet")


def test_tabs_without_quoting(tmp_path: Path) -> None:
    """Most programs write tabs without any quoting: a quote is then a letter like any other."""
    rows, rejects = read(write(tmp_path / "t.tsv", 'image\tcaption\na.png\t"PA" view\nb.png\t5" tube\nc.png\t"open\n'))
    assert rows == [("a.png", '"PA" view'), ("b.png", '5" tube'), ("c.png", '"open')] and not rejects
    rows, _ = read(write(tmp_path / "quoted.tsv", 'image\tcaption\na.png\t"two\nlines, ""PA"""\n'))
    assert rows == [("a.png", 'two\nlines, "PA"')]


def test_lines_end_where_a_line_ends(tmp_path: Path) -> None:
    """U+2028, form feed and U+0085 are letters of a text; a line ends with CR, LF or both."""
    text = "one\u2028two\x0cthree\x85four"
    rows, rejects = read(write(tmp_path / "t.csv", f"{HEADER}a.png,{text}\r\nb.png,five\n"))
    assert rows == [("a.png", text), ("b.png", "five")] and not rejects
    lines = [json.dumps({"image": "a.png", "caption": text}, ensure_ascii=False), '{"image": "b.png", "caption": "five"}']
    assert read(write(tmp_path / "t.jsonl", "\n".join(lines)))[0] == rows


def test_an_object_without_the_key_is_a_reject(tmp_path: Path) -> None:
    content = '{"image": "a.png", "caption": "one"}\n{"image": "b.png"}\n'
    rows, rejects = read(write(tmp_path / "t.jsonl", content))
    assert rows == [("a.png", "one")] and [(r.row, r.reason) for r in rejects] == [("2", "line 2: no 'caption' in it")]


def test_endings_in_any_case(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    path = write(tmp_path / "T.CSV", "image,caption,label\na.png,one,x\nb.png,two,y\n")
    assert len(open_pairs(str(path))) == 2 and open_labelled(str(path)).classes == ("x", "y")


# --- values that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "  ", "nan", "NaN", "NAN", "N/A", "n/a", "<NA>", "None", "NA", "null", None, math.nan])
def test_what_is_no_value(value: object) -> None:
    assert text_of(value) == ""


@pytest.mark.parametrize(("value", "text"), [("none", "none"), ("Nan G.", "Nan G."), (0, "0"), (1.0, "1"), (0.5, "0.5")])
def test_what_is_one(value: object, text: str) -> None:
    assert text_of(value) == text


def test_missing_captions_and_labels_are_rejects(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    content = "image,caption,label\na.png,one,x\nb.png,nan,y\nc.png,three,<NA>\nd.png,four,y\n"
    path = write(tmp_path / "t.csv", content)
    pairs = open_pairs(str(path))
    assert len(pairs) == 3 and [r.reason for r in pairs.rejects] == ["caption is missing ('nan')"]
    labelled = open_labelled(str(path))
    assert labelled.classes == ("x", "y") and [r.reason for r in labelled.rejects] == ["label is missing ('<NA>')"]
    lines = ['{"image": "a.png", "label": 0.0}', '{"image": "b.png", "label": NaN}', '{"image": "c.png", "label": 1.0}']
    labelled = open_labelled(str(write(tmp_path / "t.jsonl", "\n".join(lines))))
    assert labelled.classes == ("0", "1") and [r.reason for r in labelled.rejects] == ["label is missing ('nan')"]


@pytest.mark.parametrize("labels", [["1", "01"], ["0", "1", "1.0"], ["2", "2."]])
def test_two_names_of_one_number(tmp_path: Path, labels: list[str]) -> None:
    (tmp_path / "a.png").touch()
    path = write(tmp_path / "t.csv", "image,label\n" + "".join(f"a.png,{label}\n" for label in labels))
    with pytest.raises(UserError, match="are the same number; write it in one way"):
        open_labelled(str(path))


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (["Mass", "Effusion|Cardiomegaly|Mass"], "Effusion|Cardiomegaly|Mass"),
        (["edema", "mass", "edema; mass"], "edema; mass"),
        (["a", "b", "a+b"], "a+b"),
        (["COVID-19, severe", "normal"], None),
        (["and/or", "normal"], None),
    ],
)
def test_labels_that_name_several_classes(tmp_path: Path, labels: list[str], wrong: str | None) -> None:
    for number in range(len(labels)):
        (tmp_path / f"{number}.png").touch()
    path = write(tmp_path / "t.csv", "image,label\n" + "".join(f'{n}.png,"{label}"\n' for n, label in enumerate(labels)))
    if wrong is None:
        assert len(open_labelled(str(path)).classes) == len(labels)
        return
    with pytest.raises(UserError) as caught:
        open_labelled(str(path))
    assert f"label {wrong!r} names several classes" in str(caught.value)


# --- splits ---------------------------------------------------------------------------------------------------------


def test_splits_in_any_case_and_rows_of_none(tmp_path: Path) -> None:
    names = ["test", "Test", "TEST", "train", "", "holdout", "Testing"]
    for number in range(len(names)):
        (tmp_path / f"{number}.png").touch()
    rows = "".join(f"{n}.png,caption {n},{'xy'[n % 2]},{name}\n" for n, name in enumerate(names))
    path = write(tmp_path / "t.csv", "image,caption,label,split\n" + rows)
    reasons = ["split is empty", "split 'holdout' is none of train, validation and test"]
    labelled = open_labelled_table(path, "test", "image", "label")
    assert [Path(name).stem for name in labelled.names] == ["0", "1", "2", "6"]
    assert [(r.row, r.reason) for r in labelled.rejects] == list(zip(["5", "6"], reasons, strict=True))
    pairs = open_pairs(f"{path}:test")
    assert [Path(pairs.name(i)).stem for i in range(len(pairs))] == ["0", "1", "2", "6"]
    assert [(r.row, r.reason) for r in pairs.rejects] == list(zip(["5", "6"], reasons, strict=True))
    own = write(tmp_path / "own.csv", "image,caption,split\n0.png,a,fold1\n1.png,b,fold2\n")
    assert len(open_pairs(f"{own}:fold1")) == 1 and not open_pairs(f"{own}:fold1").rejects, "one's own names of splits"


def test_a_path_put_together(tmp_path: Path) -> None:
    """ROCOv2's tables have an ID and no path; the folder and the ending stand in the name of the image column."""
    (tmp_path / "train").mkdir()
    for name in ("R_1.jpg", "07.jpg"):
        (tmp_path / "train" / name).write_bytes(b"x")
    (tmp_path / "captions.csv").write_text("ID,Caption\nR_1,a lung\nR_2,gone\n,no id\n07,a brain\n")
    pairs = open_pairs(f"{tmp_path}/captions.csv", "train/{ID}.jpg", "Caption")
    assert [pairs[i].image for i in range(len(pairs))] == [tmp_path / "train" / "R_1.jpg", tmp_path / "train" / "07.jpg"]
    assert [(each.row, Path(each.image).name) for each in pairs.rejects] == [("2", "R_2.jpg"), ("3", tmp_path.name)]
    lines = [{"U_id": "M1", "n": 1, "image": "scan", "text": "a lung"}, {"U_id": "M1", "n": 2, "image": "none", "text": "b"}]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "M1_scan_1.png").write_bytes(b"x")
    pairs = open_pairs(f"{tmp_path}/cases.jsonl", "{U_id}_{image}_{n}.png", "{text} of case {U_id}")
    assert pairs[0].image == tmp_path / "M1_scan_1.png" and pairs[0].captions == ("a lung of case M1",)

    lines = [
        {"image": "scan", "Description": {"Caption": "a lung", "A": {"B": "deep"}}},
        {"image": "scan", "Description": "x"},
    ]
    (tmp_path / "inside.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs = open_pairs(f"{tmp_path}/inside.jsonl", "M1_{image}_1.png", "Description.Caption")
    assert pairs[0].captions == ("a lung",) and len(pairs) == 1
    assert [each.reason for each in pairs.rejects] == ["line 2: no 'Description.Caption' in it"]
    pairs = open_pairs(f"{tmp_path}/inside.jsonl", "M1_{image}_1.png", "{Description.Caption}, {Description.A.B}")
    assert pairs[0].captions == ("a lung, deep",)

    def refused(image: str, caption: str = "Caption") -> str:
        with pytest.raises(UserError) as error:
            open_pairs(f"{tmp_path}/captions.csv", image, caption)
        return str(error.value)

    assert "no column 'Id'; there are 'ID', 'Caption'; did you mean 'ID'?" in refused("train/{Id}.jpg")
    assert "expected a name, or a text with names in braces" in refused("train/{ID.jpg")
    assert "has no ending; name a folder and an ending in the image column: 'images/{COLUMN}.jpg'" in refused("ID")
