"""TFDS builds without TensorFlow: features found by name or kind, images as stored, shards checked before a run begins."""

import io
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")
HOST = socket.gethostname()


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


def write_build(folder: Path, features: Any, examples: dict[str, list[dict[str, Any]]], name: str = "x_rays") -> Path:
    """As TFDS itself writes it, one shard a split."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> Any:
            return {split: self._generate_examples(rows) for split, rows in examples.items()}

        def _generate_examples(self, rows: list[dict[str, Any]]) -> Any:
            yield from enumerate(rows)

    Builder.name = name
    builder = Builder(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "scan": tfds.features.Image(),
            "report": tfds.features.Text(),
            "references": tfds.features.Sequence(tfds.features.Text()),
            "kind": tfds.features.ClassLabel(names=["chest", "brain"]),
            "age": np.int64,
        }
    )

    def row(i: int) -> dict[str, Any]:
        return {
            "scan": picture(i),
            "report": f" report {i} ≥ " if i != 3 else " ",
            "references": ["see Figure 1", ""][: i % 3],
            "kind": i % 2,
            "age": 60,
        }

    examples = {"train": [row(i) for i in range(20)], "test": [row(i) for i in range(20, 24)]}
    return write_build(tmp_path_factory.mktemp("tfds"), features, examples)


def test_features_by_name_and_images_as_stored(build: Path) -> None:
    pairs = open_pairs(f"{build}:train", "scan", "report", "kind")
    assert len(pairs) == 20 and pairs.rejects == []
    seen = set()
    for index in range(20):
        if pairs.name(index) == f"{build}:train, record {index}" and index != _empty(pairs):
            pair = pairs[index]
            number = load_image(pair.image).getpixel((0, 0))[0]  # type: ignore[index]
            seen.add(number)
            assert pair.image == picture(number) and pair.captions == (f"report {number} ≥",)
            assert pair.label == ("chest", "brain")[number % 2]
            assert pair.references == (() if number % 3 == 0 else ("see Figure 1",))
    assert seen == set(range(20)) - {3}
    with pytest.raises(UserError, match=r"train, record \d+: caption is empty"):
        pairs[_empty(pairs)]


def _empty(pairs: Any) -> int:
    for index in range(len(pairs)):
        try:
            pairs.texts(index)
        except UserError:
            return index
    raise AssertionError


def test_a_part_of_a_split(build: Path) -> None:
    whole, part = (open_pairs(f"{build}:{split}", "scan", "report") for split in ("train", "train[50%:]"))
    assert len(part) == 10 and part.texts(9) == whole.texts(19)
    assert whole.texts(19).label is None
    assert len(open_pairs(f"{build}:test", "scan", "report")) == 4


def test_threads_and_processes(build: Path) -> None:
    pairs = open_pairs(f"{build}:test", "scan", "report")
    copy = pickle.loads(pickle.dumps(pairs))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: copy[i % 4], range(40)))
    assert all(found[i] == pairs[i % 4] for i in range(40))


def test_the_only_feature_of_its_kind_needs_no_name(build: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    assert (
        open_pairs(f"{build}:test", "image", "report")[0].captions == open_pairs(f"{build}:test", "scan", "report")[0].captions
    )
    features = tfds.features.FeaturesDict({"picture": tfds.features.Image(), "words": tfds.features.Text()})
    single = write_build(tmp_path, features, {"train": [{"picture": picture(1), "words": "one"}]})
    assert open_pairs(f"{single}:train")[0].captions == ("one",)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        ("", {}, r"which split is missing; there are: .*x_rays/1\.0\.0:t.*:t"),
        (":validation", {}, r"no split 'validation'; there are: "),
        (
            ":train",
            {"image_column": "scam"},
            r"'scam' is not a feature that holds an image; those that do: 'scan'; did you mean",
        ),
        (":train", {"image_column": "scan"}, r"'caption' is not a feature that holds a text; those that do: .*'report'"),
        (":train", {"image_column": "age"}, r"'age' is not a feature that holds an image"),
        (
            ":train",
            {"image_column": "scan", "caption_column": "report", "label_column": "sex"},
            r"no feature 'sex'; there are ",
        ),
    ],
)
def test_what_is_not_there(build: Path, source: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_pairs(f"{build}{source}", **columns)


def test_shards_are_checked_at_once(build: Path, tmp_path: Path) -> None:
    """Missing, cut short, and of another build: host and path are named."""
    import shutil

    copy = tmp_path / "x_rays" / "1.0.0"
    shutil.copytree(build, copy)
    (shard,) = copy.glob("*train.array_record*")
    content = shard.read_bytes()
    shutil.copyfile(next(copy.glob("*test.array_record*")), shard)
    with pytest.raises(UserError, match=rf"{shard} on host {HOST}: this shard holds 4 records, expected 20"):
        open_pairs(f"{copy}:train", "scan", "report")
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{shard} on host {HOST}: this shard (cannot be read|holds)"):
        open_pairs(f"{copy}:train", "scan", "report")
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard} on host {HOST}: this shard is missing"):
        open_pairs(f"{copy}:train", "scan", "report")
    assert len(open_pairs(f"{copy}:test", "scan", "report")) == 4, "the other split is whole"


def test_folders_that_are_no_builds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no build in this folder, there is no features\.json$"):
        open_pairs(f"{tmp_path}:train")
    (tmp_path / "0.tar").touch()
    with pytest.raises(UserError, match=r"to read its tars, write FOLDER/\*\.tar"):
        open_pairs(str(tmp_path))


def test_prepared_by_tfds(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tfds:NAME finds what TFDS finds: a builder by its name in the folder where data sets are kept."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", lambda name: tfds.builder_from_directory(build) if name == "x_rays" else 1 / 0)
    assert len(open_pairs("tfds:x_rays:test", "scan", "report")) == 4
    with pytest.raises(UserError, match=r"tfds:x_rays: which split is missing; there are: tfds:x_rays:t"):
        open_pairs("tfds:x_rays", "scan", "report")
    with pytest.raises(UserError, match=r"tfds:xrays: TFDS does not know it"):
        open_pairs("tfds:xrays:train")
