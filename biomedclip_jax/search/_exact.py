"""The rows of a large matrix that are nearest to some queries, all of them compared, and in the same order every time."""

from collections.abc import Iterator, Sequence

import numpy as np

_BLOCK = 64 * 2**20  # bytes of vectors, and of scores, that are looked at together
_MARGIN = 1e-5  # by which float32 may err in a score: what scores that close to the last is computed again

Nearest = tuple[np.ndarray, np.ndarray]  # positions int64 [k] and scores float64 [k], best first


def nearest(vectors: np.ndarray, queries: np.ndarray, top: int, rows: np.ndarray | None = None) -> list[Nearest]:
    """The `top` rows with the highest inner products with each query; fewer only where there are fewer.

    vectors: float32 [n, E], perhaps memory-mapped. queries: float32 [Q, E]. rows: int64, rising, the only rows to look at.
    Scores are float64, so that equal vectors have equal scores wherever they stand; of these the first come first.
    """
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in queries]
    floors = np.full(len(queries), -np.inf)
    for positions, scores in blocks(vectors, queries, rows):
        for number, own in enumerate(scores):
            kept = np.flatnonzero(own >= floors[number] - _MARGIN)
            if len(kept) > top:
                floors[number] = max(floors[number], np.partition(own[kept], len(kept) - top)[len(kept) - top])
                kept = kept[own[kept] >= floors[number] - _MARGIN]
            found[number].append((positions[kept], own[kept]))
    return [_best(vectors, query, top, own) for query, own in zip(queries, found, strict=True)]


def _best(vectors: np.ndarray, query: np.ndarray, top: int, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Nearest:
    if not found:
        return np.empty(0, np.int64), np.empty(0)
    positions, rough = (np.concatenate([each[side] for each in found]) for side in (0, 1))
    if len(positions) > top:
        floor = np.partition(rough, len(rough) - top)[len(rough) - top] - _MARGIN
        positions = positions[rough >= floor]
    return ordered(positions, exact_scores(vectors, query, positions), top)


def ordered(positions: np.ndarray, scores: np.ndarray, top: int) -> Nearest:
    """The best `top` of some rows: by score, then by position."""
    order = np.lexsort((positions, -scores))[:top]
    return positions[order], scores[order]


def exact_scores(vectors: np.ndarray, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Inner products of some rows with a query, float64, each summed in the same order."""
    step = max(1, _BLOCK // (8 * vectors.shape[1]))
    parts = [positions[start : start + step] for start in range(0, len(positions), step)]
    query = query.astype(np.float64)
    return np.concatenate([np.empty(0), *((vectors[part] * query).sum(axis=1) for part in parts)])


def blocks(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions int64 [b] and scores float32 [Q, b] of one block of rows after the other."""
    count = len(vectors) if rows is None else len(rows)
    step = max(1, _BLOCK // (4 * max(vectors.shape[1], len(queries))))
    for start in range(0, count, step):
        positions = np.arange(start, min(start + step, count)) if rows is None else rows[start : start + step]
        part = vectors[start : start + step] if rows is None else vectors[positions]
        scores = (part @ queries[0])[None] if len(queries) == 1 else queries @ part.T
        yield positions, scores


def nearest_groups(
    vectors: np.ndarray, queries: np.ndarray, top: int, groups: np.ndarray, rows: np.ndarray, pool: str
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The `top` groups nearest to a thing of which each query is a view, such as a patient with several images.

    groups: int64, the number of the group of each of `rows`. pool: "best" takes the highest score of any of its rows with
    any query, "mean" the mean of all.
    Returns for each of the best groups its positions, their scores and, as an array of one, its own; the best first, and
    of equal ones that whose nearest row comes first.
    """
    if not len(rows):
        return []
    numbers, members = np.unique(groups, return_inverse=True)
    if pool == "mean":
        queries = queries.astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32)
    rough = np.zeros(len(numbers)) if pool == "mean" else np.full(len(numbers), -np.inf)
    place = 0
    for positions, scores in blocks(vectors, queries, rows):
        own = members[place : place + len(positions)]
        place += len(positions)
        if pool == "mean":
            rough += np.bincount(own, scores[0], minlength=len(numbers))
        else:
            np.maximum.at(rough, own, scores.max(axis=0).astype(np.float64))
    if pool == "mean":
        rough /= np.bincount(members, minlength=len(numbers))
    if len(numbers) > top:
        floor = np.partition(rough, len(rough) - top)[len(rough) - top] - _MARGIN
        chosen = np.flatnonzero(rough >= floor)
    else:
        chosen = np.arange(len(numbers))
    order = np.argsort(members, kind="stable")
    starts = np.searchsorted(members[order], np.arange(len(numbers) + 1))
    found = []
    for group in chosen.tolist():
        own = rows[order[starts[group] : starts[group + 1]]]
        scores = np.max([exact_scores(vectors, query, own) for query in queries], axis=0)
        score = float(scores.max() if pool == "best" else scores.mean())
        found.append((own, scores, np.array([score])))
    found.sort(key=lambda each: (-each[2][0], each[0][np.argmax(each[1])]))
    return found[:top]
