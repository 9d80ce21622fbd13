"""An approximate index beside the vectors, for archives in which comparing all of them takes too long.

FAISS's inverted lists (IVF) with vectors of a byte a number (SQ8): a quarter of the room, built in one pass. The
nearest lists are looked into, and what is found is compared again with its own vectors, so that scores and their order
are those of the exact search. docs/measurements.md says what is missed, and what other kinds miss.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import core_count

FILE = "approximate.faiss"
FEWEST = 10_000  # images; fewer are compared in a millisecond
_PROBED = 64, 32  # lists that are looked into: so many, or one of so many if that is more
_AGAIN = 100  # vectors that are compared again, at least
_SAMPLE = 40  # vectors a list, of which the lists are made
_AT_ONCE = 65_536


def build(state: Path, vectors: np.ndarray) -> dict[str, Any]:
    """Make the index of some vectors, float32 [n, E], into a folder; returns its settings. UserError without FAISS."""
    faiss = _faiss()
    count = len(vectors)
    lists = 2 ** round(math.log2(4 * math.sqrt(count)))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # otherwise it prints that it wants more than there are
    some = np.sort(np.random.default_rng(0).permutation(count)[: _SAMPLE * lists])
    index.train(np.ascontiguousarray(vectors[some]))
    for start in range(0, count, _AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + _AT_ONCE]))
    faiss.write_index(index, str(state / FILE))
    return {"kind": f"IVF{lists},SQ8", "probed": max(_PROBED[0], lists // _PROBED[1])}


class Approximate:
    """The index of a state, open for searching."""

    def __init__(self, state: Path, settings: dict[str, Any]):
        """settings: of `build`. UserError for a file that FAISS cannot read, and without FAISS."""
        faiss = _faiss()
        try:
            self._index: Any = faiss.read_index(str(state / FILE), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise UserError(
                f"{state / FILE}: cannot be read; index again with --approximate, or search with --exact"
            ) from error
        self._index.nprobe = settings["probed"]

    def candidates(self, queries: np.ndarray, top: int) -> list[np.ndarray]:
        """For each query, float32 [Q, E], rows among which the nearest `top` are, int64, rising."""
        _, positions = self._index.search(np.ascontiguousarray(queries), max(_AGAIN, 4 * top))
        return [np.sort(own[own >= 0]) for own in positions]


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG, by which it is wrapped
            import faiss
    except ImportError as error:
        raise UserError("an approximate index needs faiss: pip install 'biomedclip_jax[faiss]'") from error
    faiss.omp_set_num_threads(core_count())
    return faiss
