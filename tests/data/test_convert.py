"""A source written as any kind is the same pairs again; what cannot be read is listed, and nothing is half-written."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data import convert as convert_module
from biomedclip_jax.data.convert import REJECTS, Kind, convert
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.errors import UserError

SOURCE = {
    **{"csv": "pairs.csv", "jsonl": "pairs.jsonl", "parquet": "pairs.parquet", "webdataset": "*.tar", "tfds": ":train"},
    "huggingface": "data/*.parquet",
}
KINDS = tuple(SOURCE)


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of five kinds, some of them broken, with one to three captions."""
    rng = np.random.default_rng(0)
    rows = []
    for i, suffix in enumerate([".jpg", ".png", ".tif", ".gif", ".webp"] * 2):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / f"{i}{suffix}")
        rows.append({"image": f"{i}{suffix}", "caption": [f"caption {i}"], "kind": "ab"[i % 2], "references": []})
    rows[3]["caption"] = ["one", "two ≥", "three"]
    rows[4]["references"] = ["see Figure 4"]
    (tmp_path / "5.jpg").write_bytes(b"<html>gone</html>")
    (tmp_path / "6.png").write_bytes((tmp_path / "6.png").read_bytes()[:100])
    rows.append({"image": "none.png", "caption": ["absent"], "kind": "a"})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def reopened(destination: Path, kind: str, label: str | None = None, caption: str = "caption") -> Pairs:
    place = f"{destination}{SOURCE[kind]}" if kind == "tfds" else f"{destination}/{SOURCE[kind]}"
    return open_pairs(place, caption_column=caption, label_column=label)


def content(pairs: Pairs, index: int) -> bytes:
    image = pairs[index].image
    return image if isinstance(image, bytes) else image.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(folder: Path, kind: Kind) -> None:
    source = open_pairs(str(folder / "t.jsonl"), label_column="kind")
    counted: list[int] = []
    assert convert(source, folder / "out", kind, counted.append) == (8, 3) and sum(counted) == 10
    pairs = reopened(folder / "out", kind, "label")
    kept = [0, 1, 2, 3, 4, 7, 8, 9]
    if kind == "csv":  # one row for each caption
        assert [pairs.texts(i).captions[0] for i in range(3, 6)] == ["one", "two ≥", "three"] and len(pairs) == 10
        positions = [0, 1, 2, 3, 6, 7, 8, 9]
    else:
        assert len(pairs) == 8
        several = pairs if kind != "webdataset" else open_pairs(f"{folder}/out/*.tar", caption_column="captions")
        found = [several.texts(i).captions for i in range(len(several))] if kind != "webdataset" else None
        assert found is None or found[3] == ("one", "two ≥", "three")
        assert pairs[4].references == ("see Figure 4",) and pairs[3].references == ()
        positions = list(range(8))
    for position, number in zip(positions, kept, strict=True):
        assert pairs.texts(position).label == "ab"[number % 2]
        assert pairs.texts(position).captions[0] == source.texts(number).captions[0]
        original, copy = content(source, number), content(pairs, position)
        held = convert_module._HELD.get(kind, (".jpg", ".png", ".webp", ".tif", ".gif"))
        if Path(source.name(number)).suffix in held:
            assert copy == original
        else:
            assert Image.open(io.BytesIO(copy)).format == "PNG"
            expected = np.asarray(load_image(original).convert("RGB"))
            assert np.array_equal(np.asarray(load_image(copy).convert("RGB")), expected)
    rejects = [json.loads(line) for line in (folder / "out" / REJECTS).read_text().splitlines()]
    assert [(r["row"], r["reason"].partition(":")[2][:14]) for r in rejects[1:]] == [
        ("6", " a web page, n"),
        ("7", " a damaged or "),
    ]
    assert rejects[0]["reason"] == "image file is not there"


@pytest.mark.parametrize("kind", ["webdataset", "tfds", "huggingface"])
def test_several_shards(folder: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in a shard depends on the position in the source, so a bad record moves nothing from shard to shard."""
    monkeypatch.setattr(convert_module, "PER_SHARD", 3)
    source = open_pairs(str(folder / "t.jsonl"))
    convert(source, folder / "out", kind)
    ending = {"webdataset": "*.tar*", "tfds": "*.array_record*", "huggingface": "data/train-*-of-00004.parquet"}[kind]
    assert len(list((folder / "out").glob(ending))) == 4
    pairs = reopened(folder / "out", kind)
    assert [pairs.texts(i).captions[0] for i in (0, 2, 3, 4, 5, 7)] == [
        f"caption {i}" if i != 3 else "one" for i in (0, 2, 3, 4, 7, 9)
    ]


def test_the_same_bytes_every_time(folder: Path) -> None:
    source = open_pairs(str(folder / "t.jsonl"))
    for kind in ("webdataset", "tfds"):
        for name in ("one", "two"):
            convert(source, folder / kind / name, kind)  # type: ignore[arg-type]
        one, two = (sorted((folder / kind / name).iterdir()) for name in ("one", "two"))
        for a, b in zip(one, two, strict=True):
            assert a.name == b.name and (a.name == "dataset_info.json" or a.read_bytes() == b.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_half_written(folder: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_pairs(str(folder / "t.jsonl"))
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="already"):
        convert(source, folder / "full", kind)

    def stop(count: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="free space"):
        convert(source, folder / "out", kind, stop)
    assert not list(folder.glob("out*")) and (folder / "full" / "thesis.txt").read_text() == "precious"


def test_when_nothing_can_be_read(folder: Path) -> None:
    source = open_pairs(str(folder / "t.jsonl"))
    for i in range(10):
        Path(source.name(i)).unlink()
    with pytest.raises(UserError, match=r"none of the 10 pairs can be read; the first: .*0\.jpg: "):
        convert(source, folder / "out", "webdataset")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_halves_of_characters(folder: Path, kind: Kind) -> None:
    """JSON can hold half a surrogate pair, in a text and in the name of a file that is not there; UTF-8 can't."""
    lines = [
        '{"image": "1.png", "caption": "x \\ud83d y", "kind": "\\ud83d"}',
        '{"image": "\\udcff.png", "caption": "z", "kind": "k"}',
    ]
    (folder / "half.jsonl").write_text("\n".join(lines))
    source = open_pairs(str(folder / "half.jsonl"), label_column="kind")
    assert convert(source, folder / "out", kind) == (1, 1)
    assert reopened(folder / "out", kind, "label").texts(0).captions == ("x ? y",)
    assert json.loads((folder / "out" / REJECTS).read_text(encoding="utf-8"))["image"].endswith("\udcff.png")
