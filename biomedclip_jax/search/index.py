"""An index that is open for searching: `open_index(folder).search(vectors)`."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.views.find import View
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.data.records import Records, open_records
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained, from_pretrained
from biomedclip_jax.search._approximate import Approximate
from biomedclip_jax.search._folder import (
    CONTENT,
    SEEN,
    IndexedModel,
    Manifest,
    check_files,
    open_columns,
    open_vectors,
    read_manifest,
)
from biomedclip_jax.search._identity import SOURCE, VIEW, check_same_model
from biomedclip_jax.search.exact import nearest, nearest_groups
from biomedclip_jax.search.filters import Filter, parse_filters
from biomedclip_jax.search.hits import Hit, make_hit

POOLS = ("best", "mean")


class Index:
    """Images with their vectors and all that is known of them. Make one with `open_index`.

    folder: where it is. model: `IndexedModel`, the model that texts and images must be embedded with. sources: what it
    was made of. columns: what filters may name. Safe to use from several threads at once.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.model: IndexedModel = manifest.model
        self.sources = manifest.sources
        self.rejects = manifest.rejects
        self._manifest = manifest
        self._vectors = open_vectors(folder, manifest)
        self._columns = open_columns(folder, manifest)
        self._opened: dict[str, list[Records]] = {}
        self.columns = [name for name in self._columns.names if not name.startswith(" ")]

    def __len__(self) -> int:
        return self._manifest.count

    def load_model(self, source: str | None = None) -> Pretrained:
        """The model of this index, from where it was, or from `source`. UserError for another one."""
        name = self.model.name if source is None else source
        adapter = self.model.adapter if source is None else None
        try:
            clip = from_pretrained(name, adapter=adapter, dtype=self.model.dtype)
        except UserError as error:
            if source is not None:
                raise
            raise UserError(
                f"{error}; it is the model that {self.folder} was made with: say where it is now (--model)"
            ) from None
        self.check_model(clip, name)
        return clip

    def check_model(self, clip: Pretrained, name: str) -> None:
        """UserError unless this is the model of the index. name: what the message calls it."""
        check_same_model(self.folder, self.model, clip, name)

    def search(
        self,
        vectors: np.ndarray,
        top: int = 10,
        filters: Sequence[str | Filter] = (),
        leave_out: Sequence[int] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """The images nearest to each query, best first; of equal scores the first in the index.

        vectors: float32 [Q, E] or [E], of any length but 0. filters: "license=CC BY", "year>=2015" ...; all must hold.
        leave_out: positions of images that are no hits. Every query has `top` hits, or all that the filters leave.
        exact: compare all images also where an approximate index is there, which is used without filters alone.
        Raises UserError for a filter on a column that is not there, and for vectors of another width.
        """
        queries = self._checked(vectors, top)
        if not self.is_exact(filters, leave_out, exact=exact):
            rows = self._approximate.candidates(queries, top)
            found = [nearest(self._vectors, query[None], top, own)[0] for query, own in zip(queries, rows, strict=True)]
        else:
            found = nearest(self._vectors, queries, top, self._rows(filters, leave_out))
        return [[self._hit(score, position) for position, score in zip(*own, strict=True)] for own in found]

    def search_groups(
        self,
        vectors: np.ndarray,
        column: str,
        top: int = 10,
        filters: Sequence[str | Filter] = (),
        leave_out: Sequence[int] = (),
        pool: str = "best",
    ) -> list[Hit]:
        """The groups of images, such as patients, nearest to one thing, each with its nearest image, best first.

        vectors: float32 [V, E] or [E], views of the one thing: a text, or the images of a patient. column: whose equal
        texts make a group; an image without one stands for itself. pool: "best" takes the highest cosine of any view with
        any image of the group, "mean" the mean of all. The rest is as in `search`.
        """
        if pool not in POOLS:
            raise UserError(f"pool {pool!r}: expected {' or '.join(POOLS)}")
        queries = self._checked(vectors, top)
        self._check_column(column)
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

    def is_exact(self, filters: Sequence[str | Filter] = (), leave_out: Sequence[int] = (), *, exact: bool = False) -> bool:
        """Whether such a search compares all images, and cannot miss one."""
        return exact or bool(filters) or bool(len(leave_out)) or self._manifest.approximate is None

    def parsed(self, filters: Sequence[str | Filter]) -> list[Filter]:
        """The filters that texts mean. UserError for what is none."""
        return parse_filters(filters, self.columns)

    def matching(self, filters: Sequence[str | Filter] = ()) -> int:
        """How many images the filters leave."""
        rows = self._rows(filters, ())
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

    def image(self, hit: Hit) -> Image.Image:
        """The picture of a hit, read from where it was indexed. UserError where it cannot be read any more."""
        if VIEW in self._columns.names and (view := self._columns.text(VIEW, hit.position)):
            which, _, options = view.partition(" ")
            return View(Path(hit.image), which, hit.image, ViewOptions.from_text(options)).load()
        source, _, place = self._columns.text(SOURCE, hit.position).rpartition(" ")
        if not place:
            content = _read(Path(hit.image))
        else:
            part, _, number = place.partition(".")
            if source not in self._opened:
                self._opened[source] = open_records(source, self._manifest.image_column)
            content = self._opened[source][int(part)].content(int(number))
        known = place or self._columns.text(SEEN, hit.position)  # of vectors that came without their files it is not
        if known and hashlib.sha256(content).hexdigest() != self._columns.text(CONTENT, hit.position):
            raise UserError(f"{hit.image}: has changed since it was indexed; index again")
        return load_image(content, hit.image)

    @cached_property
    def _approximate(self) -> Approximate:
        assert self._manifest.approximate is not None
        return Approximate(self.folder / self._manifest.state, self._manifest.approximate)

    @cached_property
    def contents(self) -> dict[str, int]:
        """The hash of each image's file -> its first row."""
        values, codes = self._columns.values(CONTENT), self._columns.codes(CONTENT).tolist()
        found: dict[str, int] = {}
        for position, code in enumerate(codes):
            found.setdefault(values[code], position)
        return found

    def _hit(self, score: float, position: int) -> Hit:
        return make_hit(score, int(position), self._cells(int(position)))

    def _cells(self, position: int) -> dict[str, str]:
        return {name: text for name, text in self._columns.row(position).items() if not name.startswith(" ")}

    def _checked(self, vectors: np.ndarray, top: int) -> np.ndarray:
        """The queries, unit length, float32 [Q, E]."""
        if top < 1:
            raise UserError(f"top = {top}: expected a whole number above 0")
        queries = np.atleast_2d(np.asarray(vectors, np.float64))
        if queries.ndim != 2 or queries.shape[1] != self.model.width:
            raise UserError(
                f"queries of shape {list(np.shape(vectors))}: expected width {self.model.width}, as in {self.folder}"
            )
        length = np.linalg.norm(queries, axis=1, keepdims=True)
        if not (np.isfinite(length).all() and (length > 0).all()):
            raise UserError("a query is zero or not finite; is the model, or its input, broken?")
        return (queries / length).astype(np.float32)

    def _check_column(self, column: str) -> None:
        parse_filters([Filter(column, "=", "")], self.columns)

    def _rows(self, filters: Sequence[str | Filter], leave_out: Sequence[int]) -> np.ndarray | None:
        """The rows that are looked at, rising; None for all."""
        wanted = parse_filters(filters, self.columns)
        if not wanted and not len(leave_out):
            return None
        kept = np.ones(len(self), bool)
        for each in wanted:
            kept &= self._columns.where(each.column, each.wants)
        kept[list(leave_out)] = False
        return np.flatnonzero(kept)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


def open_index(folder: str | Path) -> Index:
    """Open an index that `biomedclip index` has made. UserError for what is none, and for one that is damaged."""
    folder = Path(folder)
    for last in (False, False, True):  # another process may put a new state in its place meanwhile
        manifest = read_manifest(folder)
        if manifest is None:
            what = "no index in this folder" if folder.is_dir() else "no such folder"
            raise UserError(f"{folder}: {what}; expected one that `biomedclip index --out` has made")
        try:
            check_files(folder, manifest)
            return Index(folder, manifest)
        except FileNotFoundError:
            if last:
                raise UserError(f"{folder / manifest.state}: is missing; remove {folder}, and index again") from None
    raise AssertionError
