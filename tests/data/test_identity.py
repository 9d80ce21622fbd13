"""Which pairs are the same pairs, wherever they lie, and in which words two that are not differ."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.convert import Kind, convert
from biomedclip_jax.data.identity import Identity, difference, identity_from, spread, table_step
from biomedclip_jax.data.pairs import Mixture, Pairs, Subset, Texts
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.tables import TablePairs

Rows = list[tuple[str, str]]
ROWS: Rows = [(f"images/{i}.png", f"caption {i}") for i in range(5)]


def write(folder: Path, rows: Rows = ROWS) -> Pairs:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(5):
        if not (folder / f"images/{i}.png").exists():
            Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(folder / f"images/{i}.png")
    (folder / "pairs.csv").write_text("image,caption\n" + "".join(f"{image},{text}\n" for image, text in rows))
    return open_pairs(str(folder / "pairs.csv"))


def compared(ours: Pairs, theirs: Pairs) -> str:
    (mine,), (other,) = ours.identities(), theirs.identities()
    return difference(mine, other, "this run began with", lambda index: Path(ours.name(index)).name)


def test_moved_data_are_the_same_data(tmp_path: Path) -> None:
    here = write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    assert compared(open_pairs(str(tmp_path / "b" / "c" / "pairs.csv")), here) == ""
    absolute = write(tmp_path / "d", [(str(tmp_path / "a" / image), text) for image, text in ROWS])
    moved = write(tmp_path / "e", [(str(tmp_path / "b" / "c" / image), text) for image, text in ROWS])
    assert compared(moved, absolute) == "", "also where the table has the paths of a machine"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS[:3], "3 usable pairs, but this run began with 5, of which the first 3 are the same"),
        (ROWS[1:], "4 usable pairs, but this run began with 5; the first that differs is pair 1 (1.png)"),
        (ROWS[::-1], "pair 1 (4.png) has another text or image than the one that this run began with"),
        ([*ROWS[:3], ROWS[4], ROWS[3]], "pair 4 (4.png) has another text or image"),
        ([*ROWS[:4], (ROWS[4][0], "Caption 4")], "pair 5 (4.png) has another text or image"),
        ([*ROWS[:4], (ROWS[4][0], "caption  4")], "pair 5 (4.png) has another text or image"),
    ],
)
def test_other_rows_are_named(tmp_path: Path, rows: Rows, expected: str) -> None:
    assert compared(write(tmp_path / "a", rows), write(tmp_path / "b")).startswith(expected)


def test_a_text_that_moves_to_its_neighbour_is_another() -> None:
    def pairs(*captions: tuple[str, ...]) -> Identity:
        texts = [Texts(captions=each) for each in captions]
        return TablePairs(Path(), [str(i) for i in range(len(texts))], texts, []).identities()[0]

    found = {pairs(("a", "b"), ("c",)), pairs(("a",), ("b", "c")), pairs(("ab",), ("c",)), pairs(("a",), ("bc",))}
    assert len(found) == 4


def test_another_image_of_the_same_name(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a"), write(tmp_path / "b")
    Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(tmp_path / "b" / "images" / "2.png")
    assert compared(after, before) == "the image of pair 3 (2.png) has another content than the one that this run began with"
    (tmp_path / "b" / "images" / "2.png").unlink()
    assert "the image of pair 3 (2.png)" in compared(after, before), "also where it went after the table was read"


@pytest.mark.parametrize("kind", ["tfds", "webdataset"])
def test_shards(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their names, their sizes, and a sample of the records; not by where they lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def opened(name: str) -> Pairs:
        return open_pairs(str(tmp_path / name) + ("/*.tar" if kind == "webdataset" else ":train"))

    convert(write(tmp_path / "a"), tmp_path / "one", kind)
    convert(write(tmp_path / "b", ROWS[::-1]), tmp_path / "two", kind)
    convert(write(tmp_path / "c", ROWS[:4]), tmp_path / "three", kind)
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    one, two = opened("one"), opened("two")
    assert compared(opened("moved"), one) == ""
    assert "than the one that this run began with" in compared(two, one) or "its shards" in compared(two, one)
    assert compared(opened("three"), one).startswith("4 usable pairs, but this run began with 5")
    assert compared(Subset(one, [0, 1, 2, 3], []), one).startswith("its shards")


def test_of_several_sources_each_is_known(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "b", ROWS[:2])
    assert Mixture([one, two], [1, 2]).identities() == one.identities() + two.identities()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1_024, 1_025, 100_000])
def test_it_stays_small(count: int) -> None:
    texts = [Texts(captions=(f"caption {i}",)) for i in range(count)]
    pairs = TablePairs(Path(), [f"{i}.png" for i in range(count)], texts, [])
    (identity,) = pairs.identities()
    assert len(identity.marks) == -(-count // table_step(count)) <= 1_024 and len(identity.images) == min(count, 64)
    assert len(json.dumps(identity.record())) < 20_000
    assert identity_from(json.loads(json.dumps(identity.record()))) == identity
    assert spread(count)[0] == 0 and spread(count)[-1] == count - 1 and len(set(spread(count))) == len(spread(count))
    texts[-1] = Texts(captions=("another",))
    (other,) = TablePairs(Path(), [f"{i}.png" for i in range(count)], texts, []).identities()
    said = difference(other, identity, "this run began with", pairs.name)
    assert f"{count:,}" in said and ("among the pairs" in said) == (count > 1_024)
