"""The bench of embedding files: each side reads the same model and files, and sides that disagree are not compared."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_bench import CONFIG

from biomedclip_jax.bench import embedding, loader
from biomedclip_jax.bench._alternate import Facts
from biomedclip_jax.bench.embedding import OURS, RESULT, bench_embedding, describe
from biomedclip_jax.bench.task import Task, task_config
from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(loader, "_PICTURES", 4)
    monkeypatch.setattr(loader, "_PER_SHARD", 1)
    text = dataclasses.replace(CONFIG.model.text, vocab_size=300)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, text=text))
    return Task(task_config(config, 0), (), repeats=1, compiled=False)


def test_both_sides_embed_the_same_pictures(task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_embedding(task, None, against=True, turns=1, json_file=tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["images"] == 4 and {OURS.name, "open_clip eager"} <= found["seconds"].keys()
    assert "biomedclip_jax / open_clip eager: " in capsys.readouterr().out


def test_sides_that_disagree_are_not_compared(tmp_path: Path) -> None:
    ours = np.eye(3, 8, dtype=np.float32)
    np.save(tmp_path / RESULT.format(OURS.name), ours)
    np.save(tmp_path / RESULT.format("open_clip eager"), ours)
    embedding._check_same(tmp_path)
    np.save(tmp_path / RESULT.format("onnxruntime"), ours[::-1])
    with pytest.raises(UserError, match=r"embeddings of onnxruntime are not ours: a cosine of 0\.0000"):
        embedding._check_same(tmp_path)


def test_the_report(task: Task) -> None:
    facts = Facts("cpu", "1 x cpu", {"jax": "1"}, 10, {}, {"onnxruntime": "left out (not installed)"})
    found = {OURS.name: [[1.0, 1.0, 4.0], [2.0]], "open_clip eager": [[2.0], [3.0]]}
    lines = list(describe(task, 12, {OURS.name: facts}, found))
    assert "12 images from files, 16 px, batches of 16" in lines[0] and "onnxruntime: left out" in lines[2]
    assert "9.00 images/s  (6.00 to 12.00 by turn)" in lines[3]
    assert "biomedclip_jax / open_clip eager: 1.75 x (1.5 to 2 by turn)" in lines[5]


def test_what_goes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--what", "embedding", "step"]) == 2
    assert "expected embedding alone" in capsys.readouterr().err
