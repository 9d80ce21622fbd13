"""Tables of image-caption pairs as people keep them: what is read, what is left out and listed, and what stops the run."""

import json
import pickle
from pathlib import Path

import pytest

from biomedclip_jax.data.tables import TablePairs, read_table
from biomedclip_jax.errors import UserError

CAPTION = 'Chest X-ray, "PA" view;\n\tarrow: opacity \u2265 3 cm'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def images(pairs: TablePairs) -> list[Path | bytes]:
    return [pairs[i].image for i in range(len(pairs))]


def captions(pairs: TablePairs) -> list[tuple[str, ...]]:
    return [pairs.texts(i).captions for i in range(len(pairs))]


def labels(pairs: TablePairs) -> list[str | None]:
    return [pairs.texts(i).label for i in range(len(pairs))]


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
    pairs = read_table(path, "image", "caption", "kind")
    assert images(pairs) == [folder / "a.png", folder / "sub" / "c.png"] and len(pairs) == 2
    assert [c.replace("\r\n", "\n") for (c,) in captions(pairs)] == [CAPTION, "plain"]
    assert labels(pairs) == ["chest", "other"] and pairs.rejects == []
    assert labels(read_table(path, "image", "kind")) == [None, None]


def test_bad_rows_are_left_out_and_listed(folder: Path) -> None:
    long = "x" * 5_000  # no file name can be so long: the system complains of it, which must not stop the run
    content = (
        f"image,caption,label\na.png,one,A\nb.png,  ,B\nnone.png,two,C\n,three,D\nsub,four,E\n{long},five,F\nb.png,six,G\n"
    )
    content += "b.png\nb.png,seven\nb.png,eight,0\n"  # rows that are too short; 0 is a label
    pairs = read_table(table(folder / "t.csv", content), "image", "caption", "label")
    assert captions(pairs) == [("one",), ("six",), ("eight",)] and labels(pairs) == ["A", "G", "0"]
    assert [(r.row, r.reason.split()[0]) for r in pairs.rejects] == [
        ("2", "caption"),
        ("3", "image"),
        ("4", "image"),
        ("5", "image"),
        ("6", "image"),
        ("8", "line"),
        ("9", "line"),
    ]
    assert pairs.rejects[1].image == str(folder / "none.png")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("t.csv", "img,caption\na.png,one\n", "no column 'image'; there are 'img', 'caption'"),
        ("t.tsv", "image,caption\na.png,one\n", "separated by commas, not tabs; name it .csv"),
        ("t.jsonl", '{"image": "a.png"}\n', "no column 'caption'"),
        ("t.jsonl", '{"image": "a.png", "caption": "x"}\n{"image"\n', "line 2: not JSON"),
        ("t.jsonl", '["a.png", "one"]\n', "line 1: "),
        ("t.jsonl", "3\n", "line 1: "),
        ("t.csv", "image,caption\nnone.png,one\n", "no usable pair in 1 rows; the first: "),
        ("t.csv", "image,caption\n", "no usable pair in 0 rows"),
        ("t.csv", "", "no usable pair in 0 rows"),
        ("t.xlsx", "", ".csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_a_table_that_cannot_be_used(folder: Path, name: str, content: str, named: str) -> None:
    path = table(folder / name, content)
    with pytest.raises(UserError) as caught:
        read_table(path, "image", "caption")
    assert named in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_tables(folder: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_table(folder / "none.csv", "image", "caption")
    (folder / "dir.csv").mkdir()
    with pytest.raises(UserError, match=r"dir\.csv"):
        read_table(folder / "dir.csv", "image", "caption")
    path = table(folder / "t.csv", f'image,caption\na.png,"{"never closed, " * 20_000}')
    with pytest.raises(UserError, match=r"t\.csv, line 2: a quote that opens here is never closed"):
        read_table(path, "image", "caption")
    path = table(folder / "t.csv", "image,caption\na.png,caf\xe9\n", "latin-1")
    with pytest.raises(UserError, match="not UTF-8"):
        read_table(path, "image", "caption")


# --- lists of captions, references, Parquet -------------------------------------------------------------------------

ROWS = [
    {"image": "a.png", "caption": ["one", " ", "two"], "references": ["see Figure 1", "as in 1"]},
    {"image": "sub/c.png", "caption": ["three"], "references": []},
    {"image": "b.png", "caption": [], "references": []},
    {"image": "none.png", "caption": ["four"], "references": []},
]


def write_rows(folder: Path, kind: str) -> Path:
    path = folder / f"t.{kind}"
    if kind == "jsonl":
        return table(path, "\n".join(map(json.dumps, ROWS)))
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_lists_of_texts(folder: Path, kind: str) -> None:
    pairs = read_table(write_rows(folder, kind), "image", "caption")
    assert captions(pairs) == [("one", "two"), ("three",)]
    assert [pairs[i].references for i in range(2)] == [("see Figure 1", "as in 1"), ()]
    assert images(pairs) == [folder / "a.png", folder / "sub" / "c.png"] and pairs[1].name == str(folder / "sub" / "c.png")
    assert [(r.row, r.reason) for r in pairs.rejects] == [("3", "caption is empty"), ("4", "image file is not there")]


def test_parquet_is_read_by_column(folder: Path) -> None:
    path = write_rows(folder, "parquet")
    with pytest.raises(
        UserError, match=r"no column 'captions'; there are 'image', 'caption', 'references'; did you mean 'caption'"
    ):
        read_table(path, "image", "captions")
    with pytest.raises(UserError, match=r"column 'caption' holds no paths of image files but list"):
        read_table(path, "caption", "caption")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"t\.parquet: not readable as Parquet"):
        read_table(path, "image", "caption")


def test_pairs_travel_to_worker_processes(folder: Path) -> None:
    """Whole, and odd characters with them: JSON can hold half a surrogate pair."""
    path = table(folder / "t.jsonl", '{"image": "a.png", "caption": "caf\\u00e9 \\ud83d"}\n')
    pairs = read_table(path, "image", "caption")
    copy = pickle.loads(pickle.dumps(pairs))
    assert captions(copy) == captions(pairs) == [("café \ud83d",)] and images(copy) == images(pairs)
