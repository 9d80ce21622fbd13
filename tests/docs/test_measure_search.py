"""The measurement of searches: what it makes, and that it counts neighbours as it says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "docs" / "measure_search.py"
    spec = importlib.util.spec_from_file_location("measure_search", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vectors_are_the_same_every_time_and_articles_lie_together(script: ModuleType, tmp_path: Path) -> None:
    vectors, queries = script.make(tmp_path, 800)
    assert vectors.shape == (800, script.WIDTH) and queries.shape == (200, script.WIDTH)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again, others = script.make(tmp_path, 800)
    assert np.array_equal(vectors, again) and np.array_equal(queries, others)
    scores = vectors @ vectors.T
    articles = np.arange(800) // 8
    same = articles[:, None] == articles[None]
    assert scores[same].mean() > scores[~same].mean() + 0.2
    texts, images = queries[100:] @ vectors.T, queries[:100] @ vectors.T
    assert texts.mean() < images.mean(), "texts lie off the images' cone"


def test_recall_counts_what_scores_as_high_as_the_tenth(script: ModuleType) -> None:
    vectors = np.eye(20, dtype=np.float32)
    vectors[1] = vectors[0]
    queries = np.ones((1, 20), np.float32) * np.linspace(1, 0.05, 20, dtype=np.float32)
    floors = np.array([np.sort(vectors @ queries[0])[-10]])
    best = np.argsort(-(vectors @ queries[0]), kind="stable")[None, :10]
    assert script.recall(best, vectors, queries, floors) == 1
    assert script.recall(np.where(best == 3, 19, best), vectors, queries, floors) == pytest.approx(0.9)
    assert script.recall(np.where(best == 3, -1, best), vectors, queries, floors) == pytest.approx(0.9)
    shuffled = np.concatenate([best[:, ::-1], [[-1, 15]]], axis=1)
    assert script.compared_again(vectors, queries, shuffled)[0].tolist() != shuffled[0, :10].tolist()
    assert script.recall(script.compared_again(vectors, queries, shuffled), vectors, queries, floors) == 1


def test_a_row_for_each_method(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_search.py", str(tmp_path), "--rows", "2000", "--methods", "exact", "ivf-sq8"])
    script.main()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert rows[0]["search"] == "exact" and rows[0]["recall"] == [1.0, 1.0] and len(rows) == 7
    assert all(0 < row["query"] <= row["median"] and 0 < min(row["recall"]) <= 1 for row in rows)
    assert capsys.readouterr().out.count("\n| ") == len(rows) + 2
