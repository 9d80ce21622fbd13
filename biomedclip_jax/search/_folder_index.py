"""An index that lies in a folder: this process compares all its vectors."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from biomedclip_jax.search._approximate import Approximate
from biomedclip_jax.search._exact import nearest, nearest_groups
from biomedclip_jax.search._folder import Manifest, open_columns, open_vectors
from biomedclip_jax.search.filters import Filter
from biomedclip_jax.search.hits import Hit, make_hit
from biomedclip_jax.search.index import Index


class FolderIndex(Index):
    """An index whose folder `biomedclip index` has made; `Index` says what the methods do."""

    folder: Path

    def __init__(self, folder: Path, manifest: Manifest):
        super().__init__(folder, manifest)
        self._vectors = open_vectors(folder, manifest)
        self._columns = open_columns(folder, manifest)

    def _search(
        self, queries: np.ndarray, top: int, filters: Sequence[Filter], leave_out: Sequence[int], exact: bool
    ) -> list[list[Hit]]:
        if not exact:
            rows = self._approximate.candidates(queries, top)
            found = [nearest(self._vectors, query[None], top, own)[0] for query, own in zip(queries, rows, strict=True)]
        else:
            found = nearest(self._vectors, queries, top, self._rows(filters, leave_out))
        return [[self._hit(score, position) for position, score in zip(*own, strict=True)] for own in found]

    def _search_groups(
        self, queries: np.ndarray, column: str, top: int, filters: Sequence[Filter], leave_out: Sequence[int], pool: str
    ) -> list[Hit]:
        rows = self._rows(filters, leave_out)
        rows = np.arange(len(self)) if rows is None else rows
        codes = self._columns.codes(column)[rows].astype(np.int64)
        alone = codes == 0
        codes[alone] = -1 - rows[alone]
        found = []
        for positions, scores, own in nearest_groups(self._vectors, queries, top, codes, rows, pool):
            best = int(positions[np.argmax(scores)])
            group = self._columns.text(column, best) or self._columns.text("id", best)
            found.append(make_hit(float(own[0]), best, self._cells(best), group, len(positions)))
        return found

    def matching(self, filters: Sequence[str | Filter] = ()) -> int:
        """How many images the filters leave."""
        rows = self._rows(self.parsed(filters), ())
        return len(self) if rows is None else len(rows)

    def positions(self, column: str, text: str) -> list[int]:
        """The rows in which a column says this; none is an empty list."""
        self._check_column(column)
        return np.flatnonzero(self._columns.where(column, lambda own: own == text)).tolist() if text else []

    def values(self, column: str) -> dict[str, int]:
        """The different texts of a column, each with the number of images, the most frequent first."""
        self._check_column(column)
        counts = np.bincount(self._columns.codes(column), minlength=1)
        texts = self._columns.values(column)
        return {texts[code]: int(counts[code]) for code in np.argsort(-counts, kind="stable").tolist() if counts[code]}

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """The vectors of some rows, float32 [n, E]."""
        return np.asarray(self._vectors[np.asarray(positions, np.int64)])

    def hit(self, position: int) -> Hit:
        """What is known of a row; its score is 1."""
        return self._hit(1.0, position)

    def _hidden(self, position: int) -> Mapping[str, str]:
        return {name: text for name, text in self._columns.row(position).items() if name.startswith(" ")}

    @cached_property
    def _approximate(self) -> Approximate:
        assert self._manifest.approximate is not None
        return Approximate(self.folder / self._manifest.state, self._manifest.approximate)

    def _hit(self, score: float, position: int) -> Hit:
        return make_hit(score, int(position), self._cells(int(position)))

    def _cells(self, position: int) -> dict[str, str]:
        return {name: text for name, text in self._columns.row(position).items() if not name.startswith(" ")}

    def _rows(self, filters: Sequence[Filter], leave_out: Sequence[int]) -> np.ndarray | None:
        """The rows that are looked at, rising; None for all."""
        if not filters and not len(leave_out):
            return None
        kept = np.ones(len(self), bool)
        for each in filters:
            kept &= self._columns.where(each.column, each.wants)
        kept[list(leave_out)] = False
        return np.flatnonzero(kept)
