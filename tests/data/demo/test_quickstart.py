"""The quickstart's data: no pixel in both splits, fair captions, the same bytes every time, all or nothing."""

import csv
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers.reference import load_open_clip
from PIL import Image

from biomedclip_jax.config import DataConfig
from biomedclip_jax.data.demo import _quickstart as demo
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError

SPLITS = ("train", "held_out")
CONTEXT_LENGTH = 32  # what the quickstart's text tower reads of a caption
Row = dict[str, str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("demo")
    demo.make_demo(workdir)
    assert [path.name for path in workdir.iterdir()] == ["data"]
    return workdir / "data"


@pytest.fixture(scope="module")
def rows(data: Path) -> dict[str, list[Row]]:
    found = {}
    for split in SPLITS:
        with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            found[split] = list(csv.DictReader(file))
    return found


def box_of(row: Row) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = map(int, row["region"].split())
    return x0, y0, x1, y1


def overlaps(train: Iterable[Row], held_out: Iterable[Row]) -> list[tuple[str, str]]:
    """The pairs of images that share a pixel of their source."""
    by_source: dict[str, list[Row]] = {}
    for row in train:
        by_source.setdefault(row["source"], []).append(row)
    shared = []
    for row in held_out:
        x0, y0, x1, y1 = box_of(row)
        for other in by_source.get(row["source"], []):
            left, top, right, bottom = box_of(other)
            if left < x1 and x0 < right and top < y1 and y0 < bottom:
                shared.append((other["image"], row["image"]))
    return shared


def words_of(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace(":", " ").split()


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_no_pixel_is_in_both_splits(rows: dict[str, list[Row]]) -> None:
    assert overlaps(rows["train"], rows["held_out"]) == []


def test_overlap_is_noticed(rows: dict[str, list[Row]]) -> None:
    """The positive control of the test above: regions that share one row of pixels, and regions that only touch."""
    row = rows["held_out"][0]
    x0, _, x1, y1 = box_of(row)
    sharing = row | {"region": f"{x0} {y1 - 1} {x1} {y1 + 50}"}
    touching = row | {"region": f"{x0} {y1} {x1} {y1 + 50}"}
    elsewhere = sharing | {"source": "another.dcm"}
    assert overlaps([sharing], [row]) == [(row["image"], row["image"])]
    assert overlaps([touching, elsewhere], [row]) == []


def test_labels_are_balanced(rows: dict[str, list[Row]]) -> None:
    for split, regions in (("train", demo.TRAIN_REGIONS), ("held_out", demo.HELD_OUT_REGIONS)):
        counts = Counter(row["label"] for row in rows[split])
        assert counts == dict.fromkeys(demo.MODALITIES, regions)
        per_source = Counter((row["label"], row["source"]) for row in rows[split])
        assert len(per_source) == len(demo.SOURCES)
        for label in demo.MODALITIES:
            shares = [count for (of, _), count in per_source.items() if of == label]
            assert max(shares) - min(shares) <= 1


def test_images_are_what_the_rows_say(data: Path, rows: dict[str, list[Row]]) -> None:
    named = [row["image"] for split in SPLITS for row in rows[split]]
    assert len(set(named)) == len(named) < 3_000
    assert {f"images/{path.name}" for path in (data / "images").iterdir()} == set(named)
    for name in named:
        with Image.open(data / name) as image:
            assert image.size == (demo.PIXELS, demo.PIXELS) and image.mode in ("L", "RGB")
    assert sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) < 25e6


def test_regions_are_where_the_rows_say(data: Path, rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        for row in (rows[split][0], rows[split][-1]):
            package, _, inside = row["source"].partition("/")
            region = load_image(demo.find_packages()[package] / inside).crop(box_of(row))
            expected = region.resize((demo.PIXELS, demo.PIXELS), Image.Resampling.BICUBIC)
            assert np.array_equal(np.asarray(expected), np.asarray(load_image(data / row["image"])))


def test_boxes_of_the_table_are_boxes() -> None:
    for source in demo.SOURCES:
        places = [tuple(map(int, p.split())) for marks in source.landmarks.values() for p in marks.split(",")]
        for x0, y0, x1, y1 in [source.train, source.held_out, *places]:
            assert 0 <= x0 < x1 <= 100 and 0 <= y0 < y1 <= 100, source.path


def test_captions(rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        for row in rows[split]:
            assert 5 <= len(row["caption"].split()) <= 30, row["caption"]
    held_out = [row["caption"] for row in rows["held_out"]]
    assert len(set(held_out)) == len(held_out)
    assert len({row["caption"] for row in rows["train"]}) > 0.7 * len(rows["train"])


def test_held_out_captions_use_words_of_the_training_captions(rows: dict[str, list[Row]]) -> None:
    known = {word for row in rows["train"] for word in words_of(row["caption"])}
    assert {word for row in rows["held_out"] for word in words_of(row["caption"])} <= known


def test_caption_names_what_is_in_the_region() -> None:
    source = demo.Source("p/i", "head CT", "axial slice", (0, 0, 50, 100), (50, 0, 100, 100), {
        "a": "0 0 20 20", "b": "20 0 40 100, 90 90 100 100", "c": "45 45 50 50",
    })  # fmt: skip
    assert demo.visible(source, (0, 0, 20, 20), 200, 200) == ["a"]
    assert demo.visible(source, (0, 0, 70, 70), 200, 200) == ["a"]  # holds a quarter of the first place of b
    assert demo.visible(source, (36, 36, 86, 86), 200, 200) == ["b"]  # lies in b for the most part
    assert demo.visible(source, (100, 100, 200, 200), 200, 200) == ["b"]  # holds the second place of b
    assert demo.visible(source, (160, 0, 200, 40), 200, 200) == []


def test_tokenizers_agree_and_know_every_word(data: Path, rows: dict[str, list[Row]]) -> None:
    from transformers import AutoTokenizer

    folder = data / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__.startswith("BertTokenizer")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == vocabulary

    captions = [row["caption"] for split in SPLITS for row in rows[split]]
    prompts = [DataConfig(train="").template.format(label) for label in demo.MODALITIES]
    ids = tokenizer(captions + prompts)["input_ids"]
    assert max(map(len, ids)) <= CONTEXT_LENGTH
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert not any(token.startswith("##") for row in ids for token in tokenizer.convert_ids_to_tokens(row))

    odd = ["A Chest X-ray!", "zebra 42 &amp; unicorn", " ".join(["lung"] * 99)]  # mixed case, unknown words, too long
    expected = load_open_clip().tokenizer.HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)(captions + odd)
    ours = Tokenizer(folder, CONTEXT_LENGTH, pad_id=0, vocab_size=len(vocabulary))(captions + odd)
    assert np.array_equal(ours, expected.numpy())
    assert tokenizer.convert_ids_to_tokens(ours[-3][:8]) == ["[CLS]", "a", "chest", "x", "-", "ray", "!", "[SEP]"]
    assert not (ours == tokenizer.unk_token_id).any()


def test_another_process_writes_the_same_bytes(data: Path, tmp_path: Path) -> None:
    command = "import sys, pathlib, biomedclip_jax.data.demo._quickstart as d; d.make_demo(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(demo.__file__).parents[3])}
    subprocess.run([sys.executable, "-W", "error", "-c", command, tmp_path], check=True, env=environment)
    assert hashes(tmp_path / "data") == hashes(data)


def test_complete_data_are_left_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_fill", lambda *_: pytest.fail("written again"))
    demo.make_demo(data.parent)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAIN_REGIONS", 2)
    monkeypatch.setattr(demo, "HELD_OUT_REGIONS", 2)

    def interrupt(folder: Path, texts: list[str]) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(demo, "write_tokenizer", interrupt)
        demo.make_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "data.partial" / "images").mkdir(parents=True)  # what a killed process leaves
    (tmp_path / "data.partial" / "images" / "old.png").write_bytes(b"half")
    demo.make_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert not (tmp_path / "data" / "images" / "old.png").exists()


def test_a_folder_of_someone_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="data: is there already and not empty"):
        demo.make_demo(tmp_path)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("package", ["data_store", "pydicom", "skimage"])
def test_missing_package(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails, and it is not found
    with pytest.raises(UserError, match=rf"{package}: pip install 'biomedclip_jax\[demo\]'"):
        demo.make_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []
