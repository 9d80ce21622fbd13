"""Which images are learned from and which are measured: never the same, and never those of other data in the cache."""

import csv
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.sources import open_labelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.overlap import images_in_both
from biomedclip_jax.evaluation.run import Options, _to_choose_on
from biomedclip_jax.evaluation.sources import parse_source

pytestmark = pytest.mark.usefixtures("own_cache")
CLASSES = ("brain", "chest")


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 10, 20)).save(out, "PNG")
    return out.getvalue()


def table(path: Path, splits: Sequence[str | None], first: int = 0) -> Path:
    """Rows of two classes with pictures of their own, each of the split that is given."""
    has_splits = any(split is not None for split in splits)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", *(["split"] if has_splits else [])])
        for number, split in enumerate(splits, first):
            (path.parent / f"{path.stem}{number}.png").write_bytes(picture(number))
            writer.writerow([f"{path.stem}{number}.png", CLASSES[number % 2], *([split] if has_splits else [])])
    return path


def learned_from(data: Path, train: str | None) -> list[int]:
    source = parse_source(str(data), train=train)
    found = source.labelled("train", source.labelled("test").classes)
    return [int(Path(name).stem.removeprefix("pairs").removeprefix("other")) for name in found.names]


def test_the_train_split_is_learned_from(tmp_path: Path) -> None:
    splits = ["train"] * 6 + ["validation"] * 2 + ["test"] * 4
    pairs = table(tmp_path / "pairs.csv", splits)
    for train in (str(pairs), None, f"{pairs}:train"):
        assert learned_from(pairs, train) == [*range(6)], train
    assert learned_from(table(tmp_path / "outside.csv", [None] * 4), str(pairs)) == [*range(6)]
    other = table(tmp_path / "other.csv", [None] * 4, first=20)
    assert learned_from(pairs, str(other)) == [20, 21, 22, 23], "a table without splits is learned from as a whole"
    only_tests = table(tmp_path / "tests.csv", ["test"] * 4)
    with pytest.raises(UserError, match=r"tests\.csv: no split 'train'; there are: test"):
        learned_from(pairs, str(only_tests))


def test_images_in_both_are_found(tmp_path: Path) -> None:
    train, test = (
        open_labelled(str(table(tmp_path / f"{name}.csv", [None] * 6, first))) for name, first in (("a", 0), ("b", 4))
    )
    both = images_in_both(train, test)
    assert [(Path(a).name, Path(b).name) for a, b in both] == [("b4.png", "a4.png"), ("b5.png", "a5.png")], "by their bytes"
    assert len(images_in_both(train, train)) == 6
    apart = open_labelled(str(table(tmp_path / "c.csv", [None] * 4, first=90)))
    assert images_in_both(train, apart) == []


def tar_of_fields(path: Path, fields: Sequence[dict[str, str]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, each in enumerate(fields):
            for ending, content in (("png", picture(20 * number)), ("json", json.dumps(each).encode())):
                about = tarfile.TarInfo(f"s{number}.{ending}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return path


def test_images_in_both_of_a_tar(tmp_path: Path) -> None:
    one = open_labelled(str(tar_of_fields(tmp_path / "one.tar", [{"label": c} for c in CLASSES])))
    assert [name.rpartition(": ")[2] for name, _ in images_in_both(one, one)] == ["s0.png", "s1.png"]


class Red:
    """Stands for a model: the embedding of an image is how red it is."""

    fingerprint = "red"
    name = "red"
    processor = SimpleNamespace(config=PreprocessConfig())

    def __init__(self) -> None:
        self.clip = self

    def encode_images(self, images: Any, *_: Any, **__: Any) -> np.ndarray:
        reds = [np.asarray(load_image(image).convert("RGB"))[0, 0, 0] for image in images]
        return np.array([[1.0, red] for red in reds], np.float32)


def reds(embeddings: Embeddings, data: Any) -> list[int]:
    features = embeddings.images(cast(Candidate, Red()), data.images, data.fingerprint).features
    return [round(float(x)) for x in features[:, 1]]


def test_cached_embeddings_are_those_of_the_images_that_were_kept(tmp_path: Path) -> None:
    """Two fields, each unknown for another sample: as many images, of which all but one are others."""
    fields = [{"a": CLASSES[n % 2]} | {"b": CLASSES[n // 2 % 2]} for n in range(5)]
    del fields[0]["a"], fields[4]["b"]
    path, embeddings = tar_of_fields(tmp_path / "t.tar", fields), Embeddings(tmp_path / "cache")
    for field, expected in (("a", [20, 40, 60, 80]), ("b", [0, 20, 40, 60])):
        assert reds(embeddings, open_labelled(str(path), label_column=field)) == expected


def test_other_bytes_under_the_same_name_size_and_time(tmp_path: Path) -> None:
    path, embeddings = table(tmp_path / "t.csv", [None] * 4), Embeddings(tmp_path / "cache")
    assert reds(embeddings, open_labelled(str(path))) == [0, 1, 2, 3]
    for number, image in enumerate(sorted(tmp_path.glob("t*.png"))):
        before = image.stat()
        image.write_bytes(picture(100 + number))
        assert image.stat().st_size == before.st_size, "the case that is meant"
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reds(embeddings, open_labelled(str(path))) == [100, 101, 102, 103]


def test_a_count_that_does_not_fit_is_no_embedding_of_these(tmp_path: Path) -> None:
    data, embeddings = open_labelled(str(table(tmp_path / "t.csv", [None] * 4))), Embeddings(tmp_path / "cache")
    reds(embeddings, data)
    with pytest.raises(UserError, match="embeddings of 4 images, expected 3; delete this folder"):
        embeddings.images(cast(Candidate, Red()), data.images[:3], data.fingerprint)


def test_a_threshold_is_chosen_on_other_images_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, other = (table(tmp_path / name, [None] * 4, first) for name, first in (("test.csv", 0), ("train.csv", 10)))
    options = cast(Options, SimpleNamespace(without=None, allow_overlap=False))

    def chooses(train: Path | None) -> Any:
        source = parse_source(str(test), train=None if train is None else str(train))
        return _to_choose_on(source, source.labelled("test"), options)

    assert chooses(None) is None and len(chooses(other)) == 4 and not capsys.readouterr().err
    assert chooses(test) is None
    assert "test: no threshold is chosen on --train: 4 of 4 test images are in the training data" in capsys.readouterr().err
