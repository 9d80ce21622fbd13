"""Labelled tables, tars and builds: `open_labelled` reads what users have, and says in a line what it cannot read."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.clip_benchmark_peer import png
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.sources import open_labelled
from biomedclip_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(number: int) -> bytes:
    return png(Image.new("L", (8, 6), number))


def shades(found: Labelled) -> list[int]:
    return [int(np.asarray(load_image(image))[0, 0]) for image in found.images]


# --- tables ---------------------------------------------------------------------------------------------------------

ROWS = [
    {"image": "1.png", "label": "b", "split": "train"},
    {"image": "2.png", "label": "a", "split": "train"},
    {"image": "3.png", "label": "c", "split": "val"},
    {"image": "4.png", "label": "a", "split": "test"},
    {"image": "none.png", "label": "a", "split": "test"},
    {"image": "1.png", "label": "", "split": "test"},
]


def write_table(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    for number in range(1, 5):
        (folder / f"{number}.png").write_bytes(picture(number))
    path = folder / f"t.{kind}"
    if kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        comma = "\t" if kind == "tsv" else ","
        path.write_text("\n".join([comma.join(rows[0]), *(comma.join(map(str, row.values())) for row in rows)]))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_with_splits(tmp_path: Path, kind: str) -> None:
    """The classes are those of all splits; no caption is asked for."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    path = str(write_table(tmp_path, kind))
    train, test = open_labelled(path, "train"), open_labelled(path)
    assert train.classes == test.classes == ("a", "b", "c")
    assert train.labels.tolist() == [1, 0] and shades(train) == [1, 2]
    assert test.labels.tolist() == [0] and shades(test) == [4]
    assert open_labelled(path, "validation").labels.tolist() == [2]
    assert {r.row: r.reason for r in test.rejects} == {"5": "image file is not there", "6": "label is empty"}


def test_tables_without_splits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"file": f"{n}.png", "grade": n % 2} for n in range(1, 5)]
    path = str(write_table(tmp_path, "csv", rows))
    found = open_labelled(path, "test", "file", "grade", ["1", "0"])
    assert found.classes == ("1", "0") and found.labels.tolist() == [0, 1, 0, 1]
    for arguments, message in (
        (("train", "file", "grade"), "no 'train'; add a column 'split'"),
        (("test", "file", "grad"), "no column 'grad'; there are 'file', 'grade'; did you mean 'grade'"),
        (("test", "file", "grade", ["0", "2"]), "unknown class '1'; expected 0, 2"),
        (("test", "grade", "grade"), "no usable image, 4 left out; the first: .*, image file is not there"),
    ):
        with pytest.raises(UserError, match=rf"t\.csv: .*{message}") as caught:
            open_labelled(path, *arguments)
        assert "\n" not in str(caught.value)


# --- tars -----------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def write_clip_benchmark(folder: Path, count: int = 24, each: int = 2) -> Path:
    """The layout of CLIP_benchmark's webdataset_builder: test/0.tar ..., keys s0000000, the class's number in .cls."""
    for shard in range(count // each):
        members: dict[str, bytes] = {}
        for number in range(each * shard, each * (shard + 1)):
            members |= {f"s{number:07d}.cls": str(number % 3).encode(), f"s{number:07d}.webp": picture(number)}
        write_tar(folder / "test" / f"{shard}.tar", members)
    (folder / "test" / "nshards.txt").write_text(f"{count // each}\n")
    (folder / "classnames.txt").write_text("zebra\nant\nmouse\n")
    return folder


def test_the_layout_of_clip_benchmark(tmp_path: Path) -> None:
    """Classes in the order of classnames.txt; tars by number (10.tar after 9.tar), so that images are in their order."""
    found = open_labelled(str(write_clip_benchmark(tmp_path)))
    assert found.classes == ("zebra", "ant", "mouse") and found.labels.tolist() == [n % 3 for n in range(24)]
    assert shades(found) == list(range(24)) and found.rejects == ()
    assert found.names[3].endswith("1.tar: s0000003.webp")
    some = open_labelled(f"{tmp_path}/test/{{0..1}}.tar")
    assert len(some) == 4 and some.classes == found.classes and some.fingerprint != found.fingerprint
    with pytest.raises(UserError, match="no split 'train'; there are: test"):
        open_labelled(str(tmp_path), "train")
    with pytest.raises(UserError, match=r"classnames\.txt says zebra, ant, mouse; expected ant, zebra"):
        open_labelled(str(tmp_path), classes=["ant", "zebra"])
    (tmp_path / "classnames.txt").write_text("zebra\nant\n")
    with pytest.raises(UserError, match="unknown class '2'; expected 0, 1"):
        open_labelled(str(tmp_path))


def test_labels_in_json_and_samples_without_one(tmp_path: Path) -> None:
    members = {"a.png": picture(1), "a.json": b'{"label": "x"}', "b.png": picture(2), "b.json": b'{"kind": 3}'}
    members |= {"c.png": picture(3), "c.json": b'{"label": "w"}', "d.json": b'{"label": "x"}', "e.png": picture(4)}
    found = open_labelled(str(write_tar(tmp_path / "t.tar", members)))
    assert found.classes == ("w", "x") and found.labels.tolist() == [1, 0] and shades(found) == [1, 3]
    assert len(found.rejects) == 3 and "no image" in found.rejects[0].reason
    assert all("no 'label' in its .json" in r.reason for r in found.rejects[1:])
    with pytest.raises(UserError, match="no sample with a label, 5 left out"):
        open_labelled(str(tmp_path / "t.tar"), label_column="grade")
    with pytest.raises(UserError, match="give the folder above train/ and test/"):
        open_labelled(str(tmp_path / "t.tar"), "train")


def test_a_class_without_names(tmp_path: Path) -> None:
    members = {f"{n}.png": picture(n) for n in range(3)} | {"0.cls": b"10", "1.cls": b"9\n"}
    found = open_labelled(str(write_tar(tmp_path / "t.tar", members)))
    assert found.classes == ("9", "10") and found.labels.tolist() == [1, 0]
    assert "no class (.cls)" in found.rejects[0].reason


# --- builds, and what is nothing of all this ----------------------------------------------------------------------------


def test_builds(tmp_path: Path) -> None:
    """The order of the classes is the `ClassLabel`'s, not the alphabet's; no text is needed."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            label = tfds.features.ClassLabel(names=["normal", "edema"])
            features = tfds.features.FeaturesDict({"scan": tfds.features.Image(), "kind": label, "site": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> Any:
            return {"train": self._generate_examples(4), "validation": self._generate_examples(2)}

        def _generate_examples(self, count: int) -> Any:
            for number in range(count):
                yield number, {"scan": picture(number), "kind": number % 2, "site": "ba"[number % 2]}

    Builder.name = "scans"
    builder = Builder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    folder = str(builder.data_dir)
    found = open_labelled(folder, "train")
    assert found.classes == ("normal", "edema") and len(found) == 4
    assert [shade % 2 for shade in shades(found)] == found.labels.tolist()
    assert len(open_labelled(f"{folder}:train[:50%]")) == 2
    assert len(open_labelled(f"{folder}:val")) == len(open_labelled(folder, "validation")) == 2
    assert open_labelled(folder, "train", label_column="site").classes == ("a", "b")
    assert (
        open_labelled(folder, "validation").fingerprint
        != found.fingerprint
        != open_labelled(f"{folder}:train[:50%]").fingerprint
    )
    with pytest.raises(UserError, match=r"no split 'test'; there are: .*:train, .*:validation"):
        open_labelled(folder)
    with pytest.raises(UserError, match="no feature 'grade'; there are "):
        open_labelled(folder, "train", label_column="grade")


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "t.png").touch()
    for source, message in (
        (
            str(tmp_path / "none"),
            "no such file or folder, or no source of labels; expected a table .*a folder of class folders",
        ),
        (str(tmp_path), "neither class folders, tars nor a build in it"),
        ("gs://bucket/folder", "only tars are read over the network"),
        (str(tmp_path / "none.csv"), "no such file; expected a table with 'image', 'label'"),
    ):
        with pytest.raises(UserError, match=message):
            open_labelled(source)
