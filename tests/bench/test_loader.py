"""The loader's bench: each side reads its files, with tokens as long as asked for, and the report follows from the turns."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_bench import CONFIG
from PIL import Image

from biomedclip_jax.bench import loader
from biomedclip_jax.bench.loader import DECODING, OPEN_CLIP, OURS, Rate, bench_loader, describe, make_files, shards
from biomedclip_jax.bench.task import Task, caption_lengths, task_config
from biomedclip_jax.cli import main
from biomedclip_jax.config import DataConfig
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(loader, "_PICTURES", 4)
    monkeypatch.setattr(loader, "_PER_SHARD", 10)
    monkeypatch.setattr(loader, "_SECONDS", 0.2)
    text = dataclasses.replace(CONFIG.model.text, vocab_size=300)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, text=text), data=DataConfig("", workers=0))
    return Task(task_config(config, 0), (), lengths="real", files=str(tmp_path))


def test_the_files(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_files(tmp_path, task)
    with Image.open(tmp_path / "3.jpg") as picture:
        assert picture.size == (800, 600)
    table, tars = open_pairs(str(tmp_path / "pairs.csv")), open_pairs(shards(task))
    assert len(table) == 4 and len(tars) == 10 * loader.shard_count()
    assert [tars.texts(i) for i in range(8)] == [table.texts(i % 4) for i in range(8)]
    assert tars[6].image == Path(table.name(2)).read_bytes()
    text = task.config.model.text
    tokenizer = Tokenizer(tmp_path, text.context_length, text.pad_id, text.vocab_size)
    tokens = tokenizer([table.texts(i).captions[0] for i in range(4)])
    np.testing.assert_array_equal((tokens != 0).sum(axis=1), caption_lengths("real", text.context_length, 4))


def test_pictures_of_ones_own(task: Task, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "files").mkdir()
    with pytest.raises(UserError, match=r"own: no image"):
        make_files(tmp_path / "files", task, own)
    Image.new("RGB", (9, 8)).save(own / "a.jpg")
    make_files(tmp_path / "files", task, own)
    assert open_pairs(str(tmp_path / "files" / "pairs.csv")).name(0) == str(own / "a.jpg")


def test_every_side_is_measured(task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small and short, and all of it real: the processes, the decoding, open_clip's own loader where webdataset is there."""
    try:
        import webdataset

        against = int(webdataset.__version__.split(".")[0]) == 0  # open_clip's code knows no other
    except ImportError:
        against = False
    bench_loader(task, None, against=against, turns=1, json_file=tmp_path / "out.json")
    sides = json.loads((tmp_path / "out.json").read_text())["sides"]
    assert sides.keys() == {DECODING, OURS, *([OPEN_CLIP] if against else [])}
    rates = [Rate(**rate) for of_side in sides.values() for rate in of_side]
    assert all(rate.pairs_per_second > 0 and rate.cpu_milliseconds > 0 for rate in rates)
    assert "biomedclip_jax / decoding alone: " in capsys.readouterr().out


def test_the_report(task: Task) -> None:
    found = {
        DECODING: [Rate(100.0, 4.0), Rate(200.0, 4.0), Rate(400.0, 6.0)],
        OURS: [Rate(90.0, 5.0), Rate(100.0, 5.0), Rate(320.0, 5.0)],
    }
    lines = list(describe(task, found))
    assert "batches of 16, 16 px, real captions" in lines[0] and "0 workers" in lines[0]
    assert "100.0 pairs/s  (90.0 to 320.0), 5 ms of a processor a pair" in lines[2]
    assert lines[3].endswith("0.8 x its pairs/s (0.5 to 0.9 by turn), 0.8 x by processor time")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loader", "--json", "none/x.json"], "--json none/x.json: no such folder"),
        (["--what", "loader", "step"], "expected loader alone"),
        (["loader", "--seeds", "3"], "--seeds: no such field"),
    ],
)
def test_the_command(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err
