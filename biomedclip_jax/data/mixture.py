"""Several sources at once, each with a weight: how often it is seen, whatever its size."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from biomedclip_jax.data.pairs import Pair, Pairs, Reject, Texts


class Mixture:
    """The pairs of all sources, one source after the other; `weights` is for those who draw from it (`loader.py`)."""

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float]):
        self.weights = tuple(weights)
        self.lengths = [len(source) for source in sources]
        self.rejects: list[Reject] = [reject for source in sources for reject in source.rejects]
        self.sources = list(sources)
        self.starts = [0, *accumulate(self.lengths)][:-1]

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, index: int) -> Pair:
        source, inside = self._find(index)
        return source[inside]

    def texts(self, index: int) -> Texts:
        source, inside = self._find(index)
        return source.texts(inside)

    def name(self, index: int) -> str:
        source, inside = self._find(index)
        return source.name(inside)

    def _find(self, index: int) -> tuple[Pairs, int]:
        number = bisect_right(self.starts, index) - 1
        return self.sources[number], index - self.starts[number]
