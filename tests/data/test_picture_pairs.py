"""Parquet and Arrow files that hold the pictures themselves, and the folders in which the Hugging Face hub has them."""

import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import ipc, parquet

from biomedclip_jax.data import _picture_pairs as module
from biomedclip_jax.data._picture_files import PictureFile
from biomedclip_jax.data.identity import difference
from biomedclip_jax.data.own_rows import Columns, read_own
from biomedclip_jax.data.pairs import pairs_fingerprint
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ("zebra", "ant")  # not in the order of letters


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (4, 3), shade).save(out, "PNG")
    return out.getvalue()


def table(first: int, count: int, more: dict[str, pa.Array] | None = None) -> pa.Table:
    """Rows from `first` on: picture, caption, label as `datasets` writes them."""
    numbers = range(first, first + count)
    columns = {
        "image": pa.array([{"bytes": png(n), "path": f"{n}.png"} for n in numbers], PICTURE),
        "caption": pa.array([f"caption {n}" for n in numbers]),
        "label": pa.array([n % 2 for n in numbers]),
    }
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns | (more or {})).replace_schema_metadata(about)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository: three files of train with four rows each, in groups of two, and one of test."""
    (tmp_path / "data").mkdir()
    for shard in range(3):
        file = tmp_path / "data" / f"train-{shard:05d}-of-00003.parquet"
        parquet.write_table(table(4 * shard, 4), file, row_group_size=2)
    parquet.write_table(table(100, 3), tmp_path / "data" / "test-00000-of-00001.parquet")
    return tmp_path


def shades(pairs: Any) -> list[int]:
    return [int(np.asarray(Image.open(io.BytesIO(pairs[i].image)))[0, 0]) for i in range(len(pairs))]


def refused(*words: Any, **named: Any) -> str:
    with pytest.raises(UserError) as error:
        (named.pop("open", open_pairs))(*words, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_of_the_hub(folder: Path) -> None:
    pairs = open_pairs(f"{folder}:train", label_column="label")
    assert shades(pairs) == list(range(12)) and [pairs.texts(i).label for i in range(4)] == ["zebra", "ant"] * 2
    assert pairs[5].captions == ("caption 5",) and pairs.rejects == []
    assert pairs[5].name == f"{folder}/data/train-00001-of-00003.parquet, row 2 (5.png)" == pairs.name(5)
    again = pickle.loads(pickle.dumps(pairs))
    assert shades(again) == list(range(12)) and len(pickle.dumps(pairs)) < 20_000, "no picture travels to a worker"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: pairs[i].image, [11, 0, 5, 6, 1, 10] * 20))
    assert found[:6] == [png(n) for n in (11, 0, 5, 6, 1, 10)]
    assert shades(open_pairs(f"{folder}/data/train-*.parquet")) == list(range(12))
    assert shades(open_pairs(f"{folder}/data/train-{{00001..00002}}-of-00003.parquet")) == list(range(4, 12))
    assert shades(open_pairs(f"{folder}/data/test-00000-of-00001.parquet")) == [100, 101, 102]
    assert "has the splits test, train; say which" in refused(str(folder))
    assert "no split 'dev'; there are" in refused(f"{folder}:dev")


def test_labelled(folder: Path) -> None:
    found = open_labelled(str(folder))
    assert found.classes == NAMES and found.labels.tolist() == [0, 1, 0] and len(found.images) == 3
    assert found.images[1].load().getpixel((0, 0)) == 101  # type: ignore[union-attr]
    assert len(open_labelled(f"{folder}:train")) == len(open_labelled(str(folder), "train")) == 12
    assert "expected ant, zebra" in refused(str(folder), classes=["ant", "zebra"], open=open_labelled)
    file = folder / "data" / "test-00000-of-00001.parquet"
    assert open_labelled(str(file)).labels.tolist() == [0, 1, 0]
    assert "has no splits, so there is no 'train'" in refused(str(file), "train", open=open_labelled)


def test_a_column_of_splits(tmp_path: Path) -> None:
    splits = pa.array(["train", "Test", "val", "", "test", "fold"])
    parquet.write_table(table(0, 6, {"Split": splits}), tmp_path / "t.parquet")
    assert shades(open_pairs(f"{tmp_path}/t.parquet:test")) == [1, 4]
    found = open_labelled(f"{tmp_path}/t.parquet")
    assert found.labels.tolist() == [1, 0]
    assert [(each.row, each.reason) for each in found.rejects] == [
        ("4", "split is empty"),
        ("6", "split 'fold' is none of train, validation and test"),
    ]
    assert "no split 'nine'; there are: train, Test, val, test, fold" in refused(f"{tmp_path}/t.parquet:nine")


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    """Each is a reject with its row; a picture without bytes is the file beside the table, if it is there."""
    (tmp_path / "beside.png").write_bytes(png(50))
    pictures = [
        {"bytes": png(0), "path": None},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": png(5), "path": "5.png"},
        {"bytes": png(6), "path": "6.png"},
        {"bytes": png(7), "path": "7.png"},
        {"bytes": b"", "path": "8.png"},
    ]
    captions = ["a", "b", "c", "d", "e", "  ", "g", "h", "i"]
    labels = pa.array([0, 1, 0, 1, 0, 1, -1, 2, 0])
    more = {"image": pa.array(pictures, PICTURE), "caption": pa.array(captions), "label": labels}
    parquet.write_table(table(0, 9, more), tmp_path / "t.parquet", row_group_size=4)
    pairs = open_pairs(f"{tmp_path}/t.parquet", label_column="label")
    assert [pairs.texts(i).captions for i in range(len(pairs))] == [("a",), ("b",), ("i",)]
    assert pairs[1].image == tmp_path / "beside.png" and pairs[2].image == b""
    assert {each.row: each.reason for each in pairs.rejects} == {
        "3": "no bytes, and its image file is not there",
        "4": "no picture: neither bytes nor a path",
        "5": "no picture: neither bytes nor a path",
        "6": "caption is empty",
        "7": "label is empty",
        "8": "label 2 is none of the 2 classes that the schema names",
    }
    assert pairs.rejects[0].image == f"{tmp_path}/t.parquet, row 3 (gone.png)"
    found = open_labelled(f"{tmp_path}/t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, row 9 \(8\.png\): the file is empty"):
        found.images[-1].load()  # type: ignore[union-attr]


def test_columns_of_another_kind_are_one_line(tmp_path: Path) -> None:
    more = {
        "several": pa.array([[0, 1]] * 3),
        "deep": pa.array([{"a": 1}] * 3),
        "images": pa.array([[{"bytes": png(1), "path": "a"}]] * 3, pa.list_(PICTURE)),
    }
    parquet.write_table(table(0, 3, more), tmp_path / "t.parquet")
    source = f"{tmp_path}/t.parquet"
    assert "column 'several' holds list<element: int64>, several classes a picture" in refused(source, label_column="several")
    assert "column 'deep' holds struct<a: int64>, no class" in refused(source, label_column="deep")
    assert "column 'image' holds struct" in refused(source, label_column="image")
    assert "no usable pair in 3 rows" in refused(source, caption_column="deep")
    assert "no column 'none'; there are 'image', 'caption'" in refused(source, caption_column="none")
    assert "column 'caption' holds string; expected pictures" in refused(f"{tmp_path}/t*.parquet", "caption")
    assert "holds list" in refused(f"{tmp_path}/t*.parquet", "images")
    (tmp_path / "u.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-30])
    assert "u.parquet: not readable as Parquet" in refused(f"{tmp_path}/u*.parquet")


def test_bytes_alone_and_numbers_without_names(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([png(n) for n in range(4)]),
        "caption": pa.array(list("abcd")),
        "label": pa.array([1, 0, 1, 3]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert shades(open_pairs(f"{tmp_path}/t.parquet")) == [0, 1, 2, 3]
    assert open_labelled(f"{tmp_path}/t.parquet").classes == ("0", "1", "3")


def test_class_names_of_tables_with_paths(tmp_path: Path) -> None:
    """A Parquet file of paths, whose schema names the classes: the names count, not the numbers."""
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    paths = pa.array([f"{n}.png" for n in range(4)])
    parquet.write_table(table(0, 4, {"image": paths}), tmp_path / "t.parquet")
    assert open_pairs(f"{tmp_path}/t.parquet", label_column="label").texts(1).label == "ant"
    assert set(open_labelled(f"{tmp_path}/t.parquet").classes) == set(NAMES)


def test_a_missing_shard_is_named_at_the_start(folder: Path) -> None:
    (folder / "data" / "train-00001-of-00003.parquet").unlink()
    assert "train-00001-of-00003.* on host" in refused(f"{folder}:train")
    assert "not there; copy it there" in refused(f"{folder}/data/train-*.parquet")
    assert "no such file; check the pattern" in refused(f"{folder}/data/none-*.parquet")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.parquet", "test.parquet"], {"train", "test"}),
        (["train/0000.parquet", "validation/0000.parquet"], {"train", "validation"}),
        (["default/train/0000.parquet", "default/test/0000.parquet"], {"train", "test"}),
        (["my-train-set.parquet", "my_val.parquet"], {"train", "val"}),
        (["data/train-00000-of-00001-0123abcd.parquet", "data/fold1-00000-of-00001.parquet"], {"train", "fold1"}),
    ],
)
def test_names_of_splits(names: list[str], splits: set[str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(10 * number, 2), tmp_path / name)
    for split in splits:
        first = next(number for number, name in enumerate(names) if split in name)
        assert shades(open_pairs(f"{tmp_path}:{split}")) == [10 * first, 10 * first + 1]


def test_one_whole_and_two_sets_in_one_folder(tmp_path: Path) -> None:
    parquet.write_table(table(0, 2), tmp_path / "0000.parquet")
    parquet.write_table(table(2, 2), tmp_path / "0001.parquet")
    assert shades(open_pairs(str(tmp_path))) == [0, 1, 2, 3] and len(open_labelled(str(tmp_path))) == 4
    (tmp_path / "data").mkdir()
    parquet.write_table(table(2, 2), tmp_path / "data" / "0000.parquet")
    assert "files of one split are in several folders" in refused(str(tmp_path))


def save_arrow(file: Path, part: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with ipc.new_stream(str(file), part.schema) as stream:
        stream.write_table(part, 2)


def test_what_datasets_has_saved(tmp_path: Path) -> None:
    """`save_to_disk` with and without splits, and the cache of `load_dataset`."""
    for split, first, name in (("train", 0, "data-00000-of-00002.arrow"), ("train", 4, "data-00001-of-00002.arrow")):
        save_arrow(tmp_path / "saved" / split / name, table(first, 4))
    state = {"_data_files": [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]}
    (tmp_path / "saved" / "train" / "state.json").write_text(json.dumps(state))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    pairs = open_pairs(f"{tmp_path}/saved:train", label_column="label")
    assert shades(pairs) == list(range(8)) == shades(pickle.loads(pickle.dumps(pairs)))
    assert pairs.texts(1).label == "ant" and shades(open_pairs(f"{tmp_path}/saved/train")) == list(range(8))
    (tmp_path / "saved" / "train" / "data-00001-of-00002.arrow").unlink()
    assert "data-00001-of-00002.arrow on host" in refused(f"{tmp_path}/saved:train")
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "saved" / "train" / "state.json").write_text(json.dumps(state))
    assert "flatten_indices()" in refused(f"{tmp_path}/saved:train")

    save_arrow(tmp_path / "cache" / "roco-train.arrow", table(0, 3))
    save_arrow(tmp_path / "cache" / "roco-test-00000-of-00001.arrow", table(3, 2))
    save_arrow(tmp_path / "cache" / "cache-0123.arrow", table(9, 2))
    (tmp_path / "cache" / "dataset_info.json").write_text("{}")
    assert shades(open_pairs(f"{tmp_path}/cache:train")) == [0, 1, 2]
    assert open_labelled(f"{tmp_path}/cache").labels.tolist() == [1, 0]


def test_addresses_of_the_hub_are_read_from_this_machine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--org--roco"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    assert "nothing is fetched; run: hf download --repo-type dataset org/other" in refused("hf://datasets/org/other:train")
    (repository / "snapshots" / ("0" * 40)).symlink_to(folder)
    assert shades(open_pairs("hf://datasets/org/roco:test")) == [100, 101, 102]
    assert shades(open_pairs("hf://datasets/org/roco@main:test")) == [100, 101, 102]
    assert "expected hf://datasets/ORG/NAME" in refused("hf://org/roco")


def test_identity_and_fingerprint(folder: Path, tmp_path: Path) -> None:
    """Data that were moved or divided otherwise are the same; another caption or picture is not, wherever it is."""
    pairs = open_pairs(f"{folder}:train")
    parquet.write_table(table(0, 12), tmp_path / "one.parquet")
    (own,) = open_pairs(f"{tmp_path}/one.parquet").identities()
    assert pairs.identities() == (own,)
    assert pairs_fingerprint(pairs) == pairs_fingerprint(open_pairs(f"{folder}:train"))
    changed = table(0, 12, {"caption": pa.array([f"caption {n + (n == 7)}" for n in range(12)])})
    parquet.write_table(changed, tmp_path / "other.parquet")
    other = open_pairs(f"{tmp_path}/other.parquet")
    assert "pair 8" in difference(other.identities()[0], own, "this run began with", other.name)
    assert pairs_fingerprint(other) != pairs_fingerprint(pairs)


def test_groups_are_read_once_in_order_and_memory_is_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = open_pairs(f"{folder}:train")
    read: list[tuple[str, int]] = []
    original = PictureFile.pictures

    def counted(self: PictureFile, group: int, column: str) -> pa.ChunkedArray:
        read.append((self.path.name, group))
        return original(self, group, column)

    monkeypatch.setattr(PictureFile, "pictures", counted)
    monkeypatch.setattr(module, "_KEPT_BYTES", 1)
    assert shades(pairs) == list(range(12)) and len(read) == 6
    assert len(pairs._kept._groups) == 2  # type: ignore[attr-defined]
    open_pairs(f"{folder}:train")
    assert "are read for each picture out of order" in capsys.readouterr().err


def test_own_data_in_this_form(folder: Path, tmp_path: Path) -> None:
    """What `finetune` looks at: the pictures become files, the splits are those of the files."""
    found = read_own(str(folder), Columns(), tmp_path / "unpacked")
    assert len(found.rows) == 15 and found.captioned and found.labelled
    assert [row.split for row in found.rows].count("train") == 12 and found.rows[0].label in NAMES
    assert {Path(row.image).parent for row in found.rows} == {tmp_path / "unpacked"}
    assert np.asarray(Image.open(found.rows[-1].image)).min() in (11, 102)
    file = folder / "data" / "test-00000-of-00001.parquet"
    assert [row.label for row in read_own(str(file), Columns(), tmp_path / "more").rows] == ["zebra", "ant", "zebra"]
