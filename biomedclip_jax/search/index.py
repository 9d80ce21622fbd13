"""An index that is open for searching: `open_index(where).search(vectors)`, whatever keeps its vectors."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.views.find import View
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.data.records import Records, open_records
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained, from_pretrained
from biomedclip_jax.search._folder import CONTENT, SEEN, IndexedModel, Manifest
from biomedclip_jax.search._identity import SOURCE, VIEW, check_same_model
from biomedclip_jax.search._sources import file_hash, file_mark, view_content
from biomedclip_jax.search.filters import Filter, parse_filters
from biomedclip_jax.search.hits import Hit

POOLS = ("best", "mean")


class Index(ABC):
    """Images with their vectors and all that is known of them. Make one with `open_index`.

    folder: where it is, a folder or an address. model: `IndexedModel`, the model that texts and images must be embedded
    with. sources: what it was made of. columns: what filters may name. Safe to use from several threads at once.
    """

    def __init__(self, folder: Path | str, manifest: Manifest):
        self.folder = folder
        self.model: IndexedModel = manifest.model
        self.sources = manifest.sources
        self.rejects = manifest.rejects
        self.columns = [name for name in manifest.columns if not name.startswith(" ")]
        self._manifest = manifest
        self._opened: dict[str, list[Records]] = {}

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
        return self._search(queries, top, self.parsed(filters), leave_out, self.is_exact(filters, leave_out, exact=exact))

    @abstractmethod
    def _search(
        self, queries: np.ndarray, top: int, filters: Sequence[Filter], leave_out: Sequence[int], exact: bool
    ) -> list[list[Hit]]:
        """`search` of unit vectors, float32 [Q, E]. exact: that no image may be missed."""

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
        return self._search_groups(queries, column, top, self.parsed(filters), leave_out, pool)

    @abstractmethod
    def _search_groups(
        self, queries: np.ndarray, column: str, top: int, filters: Sequence[Filter], leave_out: Sequence[int], pool: str
    ) -> list[Hit]:
        """`search_groups` of unit vectors, float32 [V, E], by a column that is there."""

    def is_exact(self, filters: Sequence[str | Filter] = (), leave_out: Sequence[int] = (), *, exact: bool = False) -> bool:
        """Whether such a search compares all images, and cannot miss one."""
        return exact or bool(filters) or bool(len(leave_out)) or self._manifest.approximate is None

    def parsed(self, filters: Sequence[str | Filter]) -> list[Filter]:
        """The filters that texts mean. UserError for what is none."""
        return parse_filters(filters, self.columns)

    @abstractmethod
    def matching(self, filters: Sequence[str | Filter] = ()) -> int:
        """How many images the filters leave."""

    @abstractmethod
    def positions(self, column: str, text: str) -> list[int]:
        """The rows in which a column says this; none is an empty list."""

    @abstractmethod
    def values(self, column: str) -> dict[str, int]:
        """The different texts of a column, each with the number of images, the most frequent first."""

    @abstractmethod
    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """The vectors of some rows, float32 [n, E]."""

    @abstractmethod
    def hit(self, position: int) -> Hit:
        """What is known of a row; its score is 1."""

    @abstractmethod
    def _hidden(self, position: int) -> Mapping[str, str]:
        """What is kept of a row and no hit shows."""

    def image(self, hit: Hit) -> Image.Image:
        """The picture of a hit, read from where it was indexed. UserError where it cannot be read any more."""
        hidden = self._hidden(hit.position)
        if view := hidden.get(VIEW):
            path, mark = Path(hit.image), hidden.get(SEEN)
            if mark and file_mark(path, view) != mark and view_content(file_hash(path), view) != hidden[CONTENT]:
                raise UserError(f"{hit.image}: has changed since it was indexed; index again")
            which, _, options = view.partition(" ")
            return View(Path(hit.image), which, hit.image, ViewOptions.from_text(options)).load()
        source, _, place = hidden.get(SOURCE, "").rpartition(" ")
        if not place:
            content = _read(Path(hit.image))
        else:
            part, _, number = place.partition(".")
            if source not in self._opened:
                self._opened[source] = open_records(source, self._manifest.image_column)
            content = self._opened[source][int(part)].content(int(number))
        known = place or hidden.get(SEEN)  # of vectors that came without their files it is not
        if known and hashlib.sha256(content).hexdigest() != hidden[CONTENT]:
            raise UserError(f"{hit.image}: has changed since it was indexed; index again")
        return load_image(content, hit.image)

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


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
