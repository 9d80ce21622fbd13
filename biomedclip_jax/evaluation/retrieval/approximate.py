"""Approximate nearest neighbours, which the paper's retrieval used, and how many of the exact ones they find."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from biomedclip_jax.errors import UserError
from biomedclip_jax.sharding import BATCH, make_mesh, replicated, rows
from biomedclip_jax.support.terminal import progress_bar

Method = Literal["faiss", "approx_max_k"]

FETCHED = 32  # neighbours of a query: more than the largest k, so that a group of equal scores is seen as one
RECALL_TARGET = 0.95  # of approx_max_k
_FLAT, _GRAPH = 1_000, 10_000  # keys below which FAISS searches all of them, or a graph
_PROBED = 32  # of so many lists FAISS searches one
_QUERIES, _KEYS = 1_024, 2**15  # whose scores approx_max_k sees at once
_AT_ONCE = 16_384  # rows that FAISS is given


def nearest(queries: np.ndarray, keys: np.ndarray, method: Method) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The keys of the highest inner products with each query, and how they were searched.

    queries: float32 [Q, E]. keys: float32 [K, E]. Returns positions int64 [Q, F] and scores float32 [Q, F], best first,
    where F is FETCHED, or K if that is less; -1 and -inf where fewer were found; and the settings of the search.
    "faiss": an index by the number of keys, as autofaiss, the tool behind clip-retrieval, chooses it: below 1,000 all keys
    (exact), below 10,000 a graph (HNSW32), then inverted lists (IVF; 4 sqrt(K), rounded to a power of two), of which the
    nearest 1/32 are searched, 16 or more. The paper names neither index nor library.
    "approx_max_k": `jax.lax.approx_max_k` on parts of the keys. A TPU takes a short cut; other devices sort.
    UserError where faiss is asked for and not installed.
    """
    fetched = min(FETCHED, len(keys))
    if method == "faiss":
        return _faiss(queries, keys, fetched)
    return _approx_max_k(queries, keys, fetched)


def first_right(positions: np.ndarray, scores: np.ndarray, own: np.ndarray, keys: int) -> np.ndarray:
    """The rank of the best right key of each query, int64 [Q]: how many of the wrong keys found score as well, or better.

    It is `keys`, their number, where no right one was found.
    positions, scores: of `nearest`. own: int [P, 2], the pairs (query, key) that belong together.
    """
    found = np.arange(len(positions))[:, None] * keys + positions
    right = np.isin(found, own[:, 0] * keys + own[:, 1]) & (positions >= 0)
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    over = ((scores >= best) & ~right & (positions >= 0)).sum(axis=1)
    return np.where(right.any(axis=1), over, keys)


def recall_against_exact(
    queries: np.ndarray,
    keys: np.ndarray,
    positions: np.ndarray,
    ks: Sequence[int] = (1, 10),
    sample: int = 1_000,
    seed: int = 0,
) -> dict[str, float]:
    """Which share of the k nearest keys is among the first k found, over at most `sample` random queries.

    Of keys with equal scores any is right: what counts is to score as high as the exact search's k-th.
    positions: of `nearest`. Returns `queries`, their number, and `recall_at_k` for each k.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:sample])
    largest = min(max(ks), len(keys))
    exact = np.full((len(chosen), 0), -np.inf, np.float32)
    of_found = np.full((len(chosen), positions.shape[1]), -np.inf, np.float32)
    for start in range(0, len(keys), _KEYS):
        scores = queries[chosen] @ keys[start : start + _KEYS].T
        exact = np.concatenate([exact, scores], axis=1)
        if exact.shape[1] > largest:
            exact = np.partition(exact, exact.shape[1] - largest, axis=1)[:, -largest:]
        inside = positions[chosen] - start
        here = (inside >= 0) & (inside < scores.shape[1]) & (positions[chosen] >= 0)
        of_found = np.where(here, np.take_along_axis(scores, np.where(here, inside, 0), axis=1), of_found)
    exact = -np.sort(-exact, axis=1)
    shares: dict[str, float] = {"queries": len(chosen)}
    for k in ks:
        asked = min(k, largest)
        shares[f"recall_at_{k}"] = float((of_found[:, :asked] >= exact[:, asked - 1 : asked]).mean())
    return shares


def _faiss(queries: np.ndarray, keys: np.ndarray, fetched: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG, by which it is wrapped
            import faiss
    except ImportError as error:
        raise UserError("--approximate faiss needs faiss: pip install 'biomedclip_jax[faiss]'") from error
    count, width = keys.shape
    lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    name = "Flat" if count < _FLAT else "HNSW32" if count < _GRAPH else f"IVF{lists},Flat"
    settings: dict[str, Any] = {"search": "faiss", "index": name}
    index: Any = faiss.index_factory(width, name, faiss.METRIC_INNER_PRODUCT)
    if name.startswith("HNSW"):
        settings["efSearch"] = index.hnsw.efSearch = 4 * FETCHED
    elif name.startswith("IVF"):
        settings["nprobe"] = index.nprobe = max(16, lists // _PROBED)
        some = np.sort(np.random.default_rng(0).permutation(count)[: 100 * lists])
        index.cp.min_points_per_centroid = 1  # otherwise it prints that it wants more than there are
        index.train(np.ascontiguousarray(keys[some]))
    for start in range(0, count, _AT_ONCE):
        index.add(np.ascontiguousarray(keys[start : start + _AT_ONCE]))
    positions, scores = np.empty((len(queries), fetched), np.int64), np.empty((len(queries), fetched), np.float32)
    with progress_bar(len(queries), "query", show=len(queries) > 10_000) as bar:
        for start in range(0, len(queries), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            scores[part], positions[part] = index.search(np.ascontiguousarray(queries[part]), fetched)
            bar.update(len(scores[part]))
    scores[positions < 0] = -np.inf
    return positions, scores, settings


def _approx_max_k(queries: np.ndarray, keys: np.ndarray, fetched: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    mesh = make_mesh(jax.local_devices())
    part, size = _QUERIES * mesh.size, min(_KEYS, len(keys))
    search = _searcher(mesh, fetched)
    positions, scores = np.full((len(queries), fetched), -1), np.full((len(queries), fetched), -np.inf, np.float32)
    for first in range(0, len(keys), size):
        some = keys[first : first + size]
        real = jax.device_put(np.arange(size) < len(some), replicated(mesh))
        on_device = jax.device_put(np.pad(some, ((0, size - len(some)), (0, 0))), replicated(mesh))
        for start in range(0, len(queries), part):
            here = slice(start, start + part)
            asked = queries[here]
            padded = jax.device_put(np.pad(asked, ((0, part - len(asked)), (0, 0))), rows(mesh))
            values, inside = (np.asarray(found)[: len(asked)] for found in search(padded, on_device, real))
            values = np.concatenate([scores[here], values], axis=1)
            both = np.concatenate([positions[here], first + inside], axis=1)
            order = np.argsort(-values, axis=1, kind="stable")[:, :fetched]
            scores[here], positions[here] = (np.take_along_axis(each, order, axis=1) for each in (values, both))
    positions[scores == -np.inf] = -1
    return positions, scores, {"search": "approx_max_k", "recall_target": RECALL_TARGET, "device": jax.default_backend()}


@functools.lru_cache(maxsize=8)
def _searcher(mesh: Mesh, fetched: int):
    """The compiled search: (queries [Q, E], keys [K, E], which of these are real [K]) -> scores, positions [Q, fetched]."""

    def search(queries: Array, keys: Array, real: Array) -> tuple[Array, Array]:
        scores = lax.dot_general(queries, keys, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
        values, positions = lax.approx_max_k(jnp.where(real, scores, -jnp.inf), fetched, recall_target=RECALL_TARGET)
        return values, positions

    return jax.jit(jax.shard_map(search, mesh=mesh, in_specs=(BATCH, P(), P()), out_specs=(BATCH, BATCH)))
