"""Tables from spreadsheets, from pandas and by hand: meant as it is clear, or said, row by row."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from biomedclip_jax.data._table_rows import absent, text_of, texts_of
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError

Pairs = list[tuple[str, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def read(folder: Path, content: str, kind: str = "csv", split: str = "") -> tuple[Pairs, list[str]]:
    """(image, captions) of each pair, and the reasons of the rejects."""
    (folder / f"t.{kind}").write_text(content, newline="")
    pairs = open_pairs(f"{folder / f't.{kind}'}{split}")
    return [(Path(pairs.name(i)).name, *pairs.texts(i).captions) for i in range(len(pairs))], [r.reason for r in pairs.rejects]


def labelled(folder: Path, content: str, kind: str = "csv") -> Labelled:
    (folder / f"t.{kind}").write_text(content)
    return open_labelled(str(folder / f"t.{kind}"))


def test_the_line_of_a_spreadsheet_above_the_header(folder: Path) -> None:
    assert read(folder, "sep=,\r\nimage,caption\r\na.png,x\r\n") == ([("a.png", "x")], [])
    assert read(folder, "sep=\t\nimage\tcaption\na.png\tx\n", "tsv") == ([("a.png", "x")], [])
    with pytest.raises(UserError, match="its cells are separated by semicolons, not commas; save it with commas"):
        read(folder, "sep=;\r\nimage;caption\r\na.png;x\r\n")


def test_blanks_after_commas_and_round_paths(folder: Path) -> None:
    assert read(folder, 'image, caption\na.png, "x, y"\n b.png , "z"\n') == ([("a.png", "x, y"), ("b.png", "z")], [])


def test_paths_as_other_systems_write_them(folder: Path) -> None:
    accented = unicodedata.normalize("NFD", "é.png")
    (folder / accented).touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "e.png").touch()
    rows = (
        f"{unicodedata.normalize('NFC', accented)},1\nsub\\e.png,2\nC:\\scans\\a.png,3\nhttps://example.org/a.png,4\na.png,5\n"
    )
    pairs, reasons = read(folder, f"image,caption\n{rows}")
    assert pairs == [(accented, "1"), ("e.png", "2"), ("a.png", "5")]
    assert reasons == [
        "image file is not there: a path of Windows; write it relative to the table",
        "image file is not there: it is an address; download it, and write where it is on this machine",
    ]


def test_a_header_in_the_middle_is_no_row_and_no_class(folder: Path) -> None:
    """Tables that were put together with cat, each with its byte order mark."""
    found = labelled(folder, "image,label\na.png,x\nb.png,y\n\ufeffimage,Label\nc.png,y\n")
    assert found.classes == ("x", "y") and found.labels.tolist() == [0, 1, 1]
    assert [(r.row, r.reason) for r in found.rejects] == [("3", "line 4: the header once more")]


ROWS = [("a.png", "x", "train"), ("b.png", "y", "train"), ("c.png", "x", "test"), ("d.png", "y", "Test")]


@pytest.mark.parametrize("column", ["Split", " SPLIT "])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_split_column_in_any_case(folder: Path, kind: str, column: str) -> None:
    rows: list[dict[str, Any]] = [{"image": image, "label": label, column: split} for image, label, split in ROWS]
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), folder / "t.parquet")
    elif kind == "jsonl":
        (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        (folder / "t.csv").write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    path = f"{folder}/t.{kind}"
    assert [Path(name).name for name in open_labelled(path).names] == ["c.png", "d.png"]
    assert [Path(name).name for name in open_labelled(path, "train").names] == ["a.png", "b.png"]
    assert len(open_pairs(f"{path}:train", caption_column="label")) == 2


def test_names_in_capitals_get_a_hint(folder: Path) -> None:
    with pytest.raises(UserError, match="no column 'image'; there are 'IMAGE', 'CAPTION'; did you mean 'IMAGE'"):
        read(folder, "IMAGE,CAPTION\na.png,x\n")


def test_one_row_that_a_quote_takes_in(folder: Path) -> None:
    """Three rows are needed to be sure of a text with line ends; a file name of an image says it at once."""
    pairs, reasons = read(folder, 'image,caption\na.png,"big\nb.png,small"\nc.png,"two\nlines"\n')
    assert pairs == [("c.png", "two\nlines")]
    assert reasons == ["line 2: one cell holds a line that looks like a row; a quote in it seems to be never closed"]


def test_tabs_with_and_without_quoting(folder: Path) -> None:
    """One line that does not fit does not put quotes into the captions of all others; quotes that close by chance do not
    take rows in.
    """
    pairs, reasons = read(folder, 'image\tcaption\na.png\t"x ""q"" y"\nb.png\t"z\tz"\nc.png\n', "tsv")
    assert pairs == [("a.png", 'x "q" y'), ("b.png", "z\tz")] and reasons == ["line 4: 1 cells where the header has 2 columns"]
    pairs, reasons = read(folder, 'image\tcaption\na.png\t"big\nb.png\tsmall"\nc.png\tx\n', "tsv")
    assert pairs == [("a.png", '"big'), ("b.png", 'small"'), ("c.png", "x")] and reasons == []


# --- cells that are no text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        (b"caf\xc3\xa9", "café", ""),
        (["one"], "one", ""),
        (b"\xff\xfe", "", "label holds bytes that are not UTF-8, not text"),
        ({"text": "x"}, "", "label holds dict, not text"),
        (["a", "b"], "", "label holds 2 values where one is expected"),
        ([["a"], "b"], "", "label holds list, not text"),
        ([], "", "label is empty"),
        ([None, " "], "", "label is empty"),
    ],
)
def test_values_that_are_no_text(value: object, text: str, reason: str) -> None:
    assert text_of(value) == text
    assert text or absent("label", value) == reason


def test_captions_that_are_no_texts(folder: Path) -> None:
    assert texts_of(["a", {"b": 1}]) == texts_of([["a"]]) == () and texts_of(["a", None, b"b"]) == ("a", "b")
    lines = [{"image": "a.png", "caption": {"en": "x"}}, {"image": "b.png", "caption": ["p", "q"]}]
    pairs, reasons = read(folder, "\n".join(map(json.dumps, lines)), "jsonl")
    assert pairs == [("b.png", "p", "q")] and reasons == ["caption holds dict, not text"]


def test_json_that_is_too_deep(folder: Path) -> None:
    with pytest.raises(UserError, match=r"t\.jsonl, line 1: not JSON"):
        read(folder, f'{{"image": "a.png", "caption": {"[" * 100_000}{"]" * 100_000}}}', "jsonl")


# --- labels ---------------------------------------------------------------------------------------------------------


def test_an_image_with_two_labels_has_neither(folder: Path) -> None:
    """One row for each finding, as multi-label data sets are written: an image would be right and wrong at once."""
    found = labelled(folder, "image,label\na.png,x\na.png,y\nb.png,x\nc.png,y\nc.png,y\n")
    assert [Path(name).name for name in found.names] == ["b.png", "c.png", "c.png"]
    assert [(r.row, r.reason) for r in found.rejects] == [
        ("1", "the image has another label in another row"),
        ("2", "the image has another label in another row"),
    ]


@pytest.mark.parametrize(
    "other", ["cafe\u0301 au lait", "caf\u00e9 au lait\u200b", "caf\u00e9  au lait", "caf\u00e9\u00a0au lait"]
)
def test_labels_that_look_the_same(folder: Path, other: str) -> None:
    with pytest.raises(UserError, match=r"look the same: .*; write it in one way") as caught:
        labelled(folder, f"image,label\na.png,caf\u00e9 au lait\nb.png,{other}\nc.png,tea\n")
    assert str(caught.value).isascii()  # or nobody would see the difference
