"""The made files are read by both sides' loaders, with tokens as long as asked for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bench import CONFIG

from biomedclip_jax.bench import loader, open_clip, ours
from biomedclip_jax.bench.task import Task, caption_lengths, task_config
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.text import Tokenizer


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(loader, "_PICTURES", 4)
    monkeypatch.setattr(Task, "loader_batches", 2)
    monkeypatch.setattr(loader, "worker_count", lambda: 0)
    text = dataclasses.replace(CONFIG.model.text, vocab_size=300)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, text=text))
    task = Task(task_config(config, 0), ("loader",), lengths="real", files=str(tmp_path))
    loader.make_files(tmp_path, task)
    return task


def test_the_files(task: Task) -> None:
    assert task.files is not None
    folder, text = Path(task.files), task.config.model.text
    with Image.open(folder / "3.jpg") as picture:
        assert picture.size == (800, 600)
    captions = [line.split(",")[1] for line in (folder / "pairs.csv").read_text().splitlines()[1:]]
    tokens = Tokenizer(folder, text.context_length, text.pad_id, text.vocab_size)(captions)
    np.testing.assert_array_equal((tokens != 0).sum(axis=1), caption_lengths("real", text.context_length, 4))


def test_both_loaders_read_them(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    batches = TrainLoader.batches
    monkeypatch.setattr(TrainLoader, "batches", lambda *a: (seen.append(b["images"].shape) or b for b in batches(*a)))
    ours.load(task)()
    assert seen == [(16, 16, 16, 3)] * 2
    assert task.pairs("loader") == 32
    open_clip.load(task)()
