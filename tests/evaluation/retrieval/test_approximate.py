"""Approximate neighbours: that they are near, what a right one among them counts, and the measure of what is missed."""

import builtins
from typing import Any

import jax
import numpy as np
import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval import approximate
from biomedclip_jax.evaluation.retrieval._ranks import ranks
from biomedclip_jax.evaluation.retrieval.approximate import FETCHED, first_right, nearest, recall_against_exact


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pairs(count: int, width: int = 32, noise: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    text = unit(rng.normal(size=(count, width)))
    return unit(text + noise * rng.normal(size=text.shape)), text


def diagonal(count: int) -> np.ndarray:
    return np.repeat(np.arange(count)[:, None], 2, axis=1)


@pytest.mark.parametrize("method", ["faiss", "approx_max_k"])
def test_few_keys_are_searched_exactly(method: Any) -> None:
    """FAISS takes all keys below 1,000, and on a CPU approx_max_k sorts: the ranks are the exact ones."""
    image, text = pairs(700, noise=0.35)
    positions, scores, settings = nearest(image, text, method)
    assert positions.shape == scores.shape == (700, FETCHED) and settings["search"] == method
    exact = np.argsort(-(image @ text.T), axis=1, kind="stable")[:, :FETCHED]
    assert positions.tolist() == exact.tolist()
    assert scores == pytest.approx(np.take_along_axis(image @ text.T, exact, axis=1), abs=1e-6)
    assert recall_against_exact(image, text, positions) == {"queries": 700, "recall_at_1": 1, "recall_at_10": 1}
    found, expected = first_right(positions, scores, diagonal(700), 700), ranks(image, text, diagonal(700))[0]
    seen = expected < FETCHED
    assert found[seen].tolist() == expected[seen].tolist() and (found[~seen] == 700).all()
    assert 0.2 < (expected < 1).mean() < 0.95 and (~seen).sum() > 0, "the case has good and bad ranks"


def test_approx_max_k_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in three parts, the last one short, and queries in two, on one device as on eight."""
    image, text = pairs(260)
    whole = nearest(image, text, "approx_max_k")
    monkeypatch.setattr(approximate, "_KEYS", 100)
    monkeypatch.setattr(approximate, "_QUERIES", 20)
    parts = nearest(image, text, "approx_max_k")
    one = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    for found in (parts, nearest(image, text, "approx_max_k")):
        assert found[0].tolist() == whole[0].tolist()


@pytest.mark.parametrize(("count", "index"), [(900, "Flat"), (2_000, "HNSW32"), (10_000, "IVF512,Flat")])
def test_faiss_index_by_size(count: int, index: str, capfd: pytest.CaptureFixture[str]) -> None:
    image, text = pairs(count, noise=0.1)  # without clusters: harder for lists than real data
    positions, _, settings = nearest(image[:500], text, "faiss")
    assert settings["index"] == index
    measured = recall_against_exact(image[:500], text, positions)
    assert measured["recall_at_1"] > 0.9 and measured["queries"] == 500
    assert capfd.readouterr() == ("", ""), "a library's warnings are not for users"


def test_fewer_keys_than_fetched() -> None:
    image, text = pairs(5)
    for method in ("faiss", "approx_max_k"):
        positions, _, _ = nearest(image, text, method)
        assert np.sort(positions, axis=1).tolist() == [[0, 1, 2, 3, 4]] * 5
        assert recall_against_exact(image, text, positions)["recall_at_10"] == 1


def test_several_right_ones_and_ties() -> None:
    """The best right one counts, and wrong ones that score as well stand before it."""
    positions = np.array([[3, 1, 0, 2], [0, 1, 2, 3], [2, 3, -1, -1], [1, 0, 2, 3]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.9, 0.9, 0.1], [0.5, 0.4, -np.inf, -np.inf], [0.5] * 4], np.float32)
    own = np.array([[0, 1], [0, 2], [1, 0], [2, 1], [3, 0], [3, 2]])
    assert first_right(positions, scores, own, 4).tolist() == [1, 2, 4, 2]


@pytest.mark.parametrize("method", ["faiss", "approx_max_k"])
def test_a_constant_model_gets_no_credit(method: Any) -> None:
    same = np.tile(unit(np.ones((1, 8))), (60, 1))
    positions, scores, _ = nearest(same, same, method)
    assert first_right(positions, scores, diagonal(60), 60).min() >= 10


def test_recall_against_exact_is_what_is_missed() -> None:
    """Searches that lost half of the keys, or gave them in a bad order; copies of a key stand for each other."""
    image, text = pairs(400)
    exact = np.argsort(-(image @ text.T), axis=1, kind="stable")
    assert recall_against_exact(image, text, exact[:, 1:33])["recall_at_1"] == 0
    assert recall_against_exact(image, text, exact[:, 1:33])["recall_at_10"] == pytest.approx(0.9)
    half = np.stack([row[row < 200][:32] for row in exact])
    lost = np.mean([(row[:10] < 200).mean() for row in exact])
    assert recall_against_exact(image, text, half)["recall_at_10"] == pytest.approx(lost)
    twice = np.concatenate([text, text])
    assert recall_against_exact(image, twice, exact[:, :32] + 400)["recall_at_1"] == 1
    assert recall_against_exact(image, text, np.full((400, 32), -1)) == {"queries": 400, "recall_at_1": 0, "recall_at_10": 0}


def test_recall_against_exact_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = pairs(300)
    exact = np.argsort(-(image @ text.T), axis=1, kind="stable")[:, :32]
    exact[::2] = -1
    monkeypatch.setattr(approximate, "_KEYS", 70)  # the keys in parts, too
    measured = recall_against_exact(image, text, exact, sample=100)
    assert (
        measured["queries"] == 100
        and measured["recall_at_1"] == measured["recall_at_10"]
        and 0.3 < measured["recall_at_1"] < 0.7
    )
    assert measured == recall_against_exact(image, text, exact, sample=100)
    assert recall_against_exact(image, text, exact)["recall_at_10"] == 0.5


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"biomedclip_jax\[faiss\]"):
        nearest(*pairs(5), "faiss")
