"""The name of a source says who reads it; what cannot be a source is one line that says what can."""

from pathlib import Path

import pytest

from biomedclip_jax.data import sources as module
from biomedclip_jax.data.pairs import Mixture, Reject, Subset, with_readable_texts
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError


def table(folder: Path, name: str, captions: list[str]) -> str:
    (folder / "a.png").touch()
    path = folder / name
    path.write_text("image,caption\n" + "".join(f"a.png,{caption}\n" for caption in captions))
    return str(path)


@pytest.mark.parametrize(
    ("source", "reader", "first"),
    [
        ("s/{0..1}.tar", "open_shards", ["s/0.tar", "s/1.tar"]),
        ("gs://b/s/0.tar", "open_shards", ["gs://b/s/0.tar"]),
        ("a/t.tsv", "read_table", Path("a/t.tsv")),
        ("t.parquet", "read_table", Path("t.parquet")),
        ("a/t.csv:train", "read_table", Path("a/t.csv")),
        (".:train", "open_build", Path(".")),
        (".:train[:10%]", "open_build", Path(".")),
        (".", "open_build", Path(".")),
        ("tfds:pcam/x:1.2.3:train", "open_tfds", "pcam/x:1.2.3"),
        ("tfds:pcam:test", "open_tfds", "pcam"),
        ("tfds:pcam", "open_tfds", "pcam"),
    ],
)
def test_who_reads_it(source: str, reader: str, first: object, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple] = []
    for name in ("open_shards", "read_table", "open_build", "open_tfds"):
        monkeypatch.setattr(module, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    open_pairs(source)
    assert calls[0][:2] == (reader, first)
    split = {".:train": "train", ".:train[:10%]": "train[:10%]", ".": None, "tfds:pcam": None, "tfds:pcam:test": "test"}
    if source in split:
        assert calls[0][2] == split[source]


@pytest.mark.parametrize("source", ["pairs", "none/there:train", "data.xlsx"])
def test_what_is_no_source(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(UserError, match=r"not a source of pairs; expected a table.*tfds:NAME:train"):
        open_pairs(source)


def test_tables_over_the_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"s3://b/t\.csv: only tars are read over the network"):
        open_pairs("s3://b/t.csv")


def test_several_sources(tmp_path: Path) -> None:
    a, b = table(tmp_path, "a.csv", ["one", "", "two"]), table(tmp_path, "b.csv", ["three"])
    pairs = open_pairs(((a, 3.0), (b, 1.0)))
    assert isinstance(pairs, Mixture) and pairs.weights == (3.0, 1.0) and len(pairs) == 3
    assert [pairs.texts(i).captions for i in range(3)] == [("one",), ("two",), ("three",)]
    assert [pairs[i].name for i in range(3)] == [pairs.name(i) for i in range(3)] == [str(tmp_path / "a.png")] * 3
    assert [reject.reason for reject in pairs.rejects] == ["caption is empty"]
    assert not isinstance(open_pairs(((a, 3.0),)), Mixture)


def test_pairs_whose_texts_cannot_be_read_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = open_pairs(table(tmp_path, "a.csv", ["one", "two", "three"]))
    assert with_readable_texts(pairs) is pairs
    texts = type(pairs).texts

    def broken(self: object, index: int) -> object:
        if index == 1:
            raise UserError("two: not UTF-8")
        return texts(self, index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(pairs), "texts", broken)
    rest = with_readable_texts(pairs)
    assert isinstance(rest, Subset) and len(rest) == 2 and rest[1].captions == rest.texts(1).captions == ("three",)
    assert rest.rejects == [Reject("2", str(tmp_path / "a.png"), "two: not UTF-8")]
