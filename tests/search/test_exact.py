"""The exact search beside a plain one: all hits, in the same order every time, whatever is filtered and grouped."""

import numpy as np
import pytest

from biomedclip_jax.search import _exact
from biomedclip_jax.search._exact import nearest, nearest_groups


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exact, "_BLOCK", 4 * 16 * 40)  # 40 rows


def plain(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, top: int) -> list[int]:
    scores = [float((vectors[row].astype(np.float64) * query.astype(np.float64)).sum()) for row in rows]
    return [int(rows[i]) for i in sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i]))[:top]]


@pytest.mark.parametrize("top", [1, 10, 1_000])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("filtered", [False, True])
def test_all_nearest_are_found_in_order_also_among_copies(top: int, queries: int, filtered: bool) -> None:
    random = np.random.default_rng(0)
    vectors = unit(random.normal(size=(230, 16)))
    vectors[random.permutation(230)[:90]] = vectors[5]  # many equal ones, across blocks
    asked = unit(np.concatenate([vectors[5:6] + 0.1, random.normal(size=(queries - 1, 16))]))
    rows = np.flatnonzero(random.random(230) < 0.4) if filtered else None
    looked = np.arange(230) if rows is None else rows
    for query, (positions, scores) in zip(asked, nearest(vectors, asked, top, rows), strict=True):
        assert positions.tolist() == plain(vectors, query, looked, top)
        assert len(positions) == min(top, len(looked)) and (np.diff(scores) <= 0).all()


def test_nothing_to_look_at_is_no_hit() -> None:
    vectors = unit(np.eye(4, 16) + 0.1)
    assert [len(own[0]) for own in nearest(vectors, vectors[:2], 3, np.empty(0, np.int64))] == [0, 0]
    assert nearest_groups(vectors, vectors[:1], 3, np.empty(0, np.int64), np.empty(0, np.int64), "best") == []


@pytest.mark.parametrize("pool", ["best", "mean"])
def test_groups_beside_a_plain_computation(pool: str) -> None:
    random = np.random.default_rng(1)
    vectors, views = unit(random.normal(size=(300, 16))), unit(random.normal(size=(3, 16)))
    rows = np.flatnonzero(random.random(300) < 0.7)
    groups = random.integers(0, 25, 300)
    scores = vectors.astype(np.float64) @ views.T.astype(np.float64)
    join = np.max if pool == "best" else np.mean
    wanted = {g: float(join(scores[[row for row in rows if groups[row] == g]])) for g in set(groups[rows].tolist())}
    found = nearest_groups(vectors, views, 10, groups[rows], rows, pool)
    assert [groups[own[0]] for own, _, _ in found] == sorted(wanted, key=lambda g: -wanted[g])[:10]
    for own, _, score in found:
        assert score[0] == pytest.approx(wanted[groups[own[0]]], abs=1e-6)
        assert own.tolist() == [row for row in rows if groups[row] == groups[own[0]]]
