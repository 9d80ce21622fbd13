"""Which pictures of a build are the same as an earlier one: byte for byte, or to the eye."""

import itertools
from dataclasses import dataclass

import numpy as np

DISTANCE = 10  # bits of 256 in which perceptual hashes of the same picture, compressed or sized differently, may differ
_LARGEST_GROUP = 4_000  # in a larger group of pictures that share a piece of their hash only neighbours are compared
_BLOCK = 1_000_000  # pairs compared at once: 64 MB


@dataclass(frozen=True)
class Duplicates:
    """Which pictures are copies. of: int64 [n], the picture that picture i is a copy of, or -1. exact: bool [n], equal
    files.
    """

    of: np.ndarray
    exact: np.ndarray


def find_duplicates(digests: np.ndarray, looks: np.ndarray, order: np.ndarray, *, similar: bool = True) -> Duplicates:
    """Find pictures that are the same; of each group the one that is first in `order` stays.

    digests: uint8 [n, 32], SHA-256 of the files. looks: uint8 [n, 32], perceptual hashes. order: a permutation, int
    [n]. Two hashes that differ in at most DISTANCE bits are equal in one of DISTANCE + 1 pieces at least: only
    pictures that share a piece are compared, so that the work grows with n and not with its square.
    """
    count = len(digests)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    of, exact = np.full(count, -1, np.int64), np.zeros(count, bool)
    if count == 0:
        return Duplicates(of, exact)
    for group in _groups(digests):
        group = group[np.argsort(rank[group])]
        of[group[1:]], exact[group[1:]] = group[0], True
    if similar:
        kept = np.flatnonzero(of == -1)
        first, second = _similar(looks[kept])
        first, second = kept[first], kept[second]
        swapped = rank[first] > rank[second]
        first, second = np.where(swapped, second, first), np.where(swapped, first, second)
        for i in np.lexsort((rank[first], rank[second])):  # a copy is dropped only for one that stays itself
            if of[first[i]] == -1 and of[second[i]] == -1:
                of[second[i]] = first[i]
        for i in np.flatnonzero(exact):  # the copies of a copy
            if of[of[i]] != -1:
                of[i] = of[of[i]]
    return Duplicates(of, exact)


def _keys(rows: np.ndarray) -> np.ndarray:
    """uint8 [n, k] as n sortable values."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()


def _groups(rows: np.ndarray) -> list[np.ndarray]:
    """Positions of equal rows of uint8 [n, k], groups of two or more."""
    keys = _keys(rows)
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    sizes = np.diff(np.append(starts, len(keys)))
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True) if size > 1]


def _similar(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions whose hashes differ in at most DISTANCE bits, each pair once."""
    edges = np.linspace(0, 8 * looks.shape[1], DISTANCE + 2).astype(int)
    found = [np.empty((0, 2), np.int64)]
    for start, stop in itertools.pairwise(edges):
        first_byte = start // 8
        bits = np.unpackbits(looks[:, first_byte : -(-stop // 8)], axis=1)[:, start - 8 * first_byte : stop - 8 * first_byte]
        keys = _keys(np.packbits(bits, axis=1))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.arange(len(keys))
        for step in range(1, _LARGEST_GROUP):  # each with the one that stands `step` further on in its group
            first = first[first + step < len(keys)]
            first = first[keys[first] == keys[first + step]]
            if not len(first):
                break
            for block in np.array_split(first, 1 + len(first) // _BLOCK):
                pairs = np.stack([order[block], order[block + step]], axis=1)
                distance = np.bitwise_count(looks[pairs[:, 0]] ^ looks[pairs[:, 1]]).sum(axis=1)
                found.append(np.sort(pairs[distance <= DISTANCE], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]
