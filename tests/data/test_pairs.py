"""Tables of image-caption pairs as people keep them: what is read, what is left out and listed, and what stops the run."""

import json
from pathlib import Path

import pytest

from biomedclip_jax.data.pairs import read_pairs
from biomedclip_jax.errors import UserError

CAPTION = 'Chest X-ray, "PA" view;\n\tarrow: opacity \u2265 3 cm'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def table(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_every_kind_of_table(kind: str, encoding: str, newline: str, folder: Path) -> None:
    """With and without the mark that Excel puts first; a caption with quotes, a tab and a line break in it."""
    rows = [("a.png", CAPTION, "chest"), ("sub/c.png", "plain", "other")]
    if kind == "jsonl":
        lines = [json.dumps({"caption": c, "image": i, "kind": k, "more": None}, ensure_ascii=False) for i, c, k in rows]
        lines.insert(1, "")
    else:
        comma = "\t" if kind == "tsv" else ","
        quoted = [('"' + c.replace('"', '""') + '"', i, k, "") for i, c, k in rows]
        lines = [comma.join(row) for row in [("caption", "image", "kind", "more"), *quoted]]
    path = table(folder / f"t.{kind}", newline.join(lines) + newline, encoding)
    pairs = read_pairs(path, "image", "caption", "kind")
    assert pairs.images == [folder / "a.png", folder / "sub" / "c.png"] and len(pairs) == 2
    assert [c.replace("\r\n", "\n") for c in pairs.captions] == [CAPTION, "plain"]
    assert pairs.labels == ["chest", "other"] and pairs.rejects == []
    assert read_pairs(path, "image", "kind").labels is None


def test_bad_rows_are_left_out_and_listed(folder: Path) -> None:
    long = "x" * 5_000  # no file name can be so long: the system complains of it, which must not stop the run
    content = (
        f"image,caption,label\na.png,one,A\nb.png,  ,B\nnone.png,two,C\n,three,D\nsub,four,E\n{long},five,F\nb.png,six,G\n"
    )
    content += "b.png\nb.png,seven\nb.png,eight,0\n"  # rows that are too short; 0 is a label
    pairs = read_pairs(table(folder / "t.csv", content), "image", "caption", "label")
    assert pairs.captions == ["one", "six", "eight"] and pairs.labels == ["A", "G", "0"]
    assert [(r["row"], r["reason"].split()[0]) for r in pairs.rejects] == [
        ("2", "caption"),
        ("3", "image"),
        ("4", "image"),
        ("5", "image"),
        ("6", "image"),
        ("8", "caption"),
        ("9", "label"),
    ]
    assert pairs.rejects[1]["image"] == str(folder / "none.png")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("t.csv", "img,caption\na.png,one\n", "no column 'image'; there are 'img', 'caption'"),
        ("t.tsv", "image,caption\na.png,one\n", "no column 'image'"),  # commas in a .tsv
        ("t.jsonl", '{"image": "a.png"}\n', "no column 'caption'"),
        ("t.jsonl", '{"image": "a.png", "caption": "x"}\n{"image"\n', "line 2: not JSON"),
        ("t.jsonl", '["a.png", "one"]\n', "line 1: "),
        ("t.jsonl", "3\n", "line 1: "),
        ("t.csv", "image,caption\nnone.png,one\n", "no usable pair in 1 rows; the first: "),
        ("t.csv", "image,caption\n", "no usable pair in 0 rows"),
        ("t.csv", "", "no usable pair in 0 rows"),
        ("t.xlsx", "", ".csv, .tsv or .jsonl"),
    ],
)
def test_a_table_that_cannot_be_used(folder: Path, name: str, content: str, named: str) -> None:
    path = table(folder / name, content)
    with pytest.raises(UserError) as caught:
        read_pairs(path, "image", "caption")
    assert named in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_tables(folder: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_pairs(folder / "none.csv", "image", "caption")
    (folder / "dir.csv").mkdir()
    with pytest.raises(UserError, match=r"dir\.csv"):
        read_pairs(folder / "dir.csv", "image", "caption")
    path = table(folder / "t.csv", f'image,caption\na.png,"{"never closed, " * 20_000}')
    with pytest.raises(UserError, match=r"t\.csv: not readable as a table"):
        read_pairs(path, "image", "caption")
    path = table(folder / "t.csv", "image,caption\na.png,caf\xe9\n", "latin-1")
    with pytest.raises(UserError, match="not UTF-8"):
        read_pairs(path, "image", "caption")
