"""Vectors that are there already, by the content of the image: nothing is embedded twice, even after a kill."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.search._folder import CONTENT, SEEN, IndexedModel, Manifest, open_columns, open_vectors

_JOURNAL = "embedded-{}.journal"


class KnownVectors:
    """The vectors of the state before, and of a journal of those that were made since, which is written as they come.

    A record of the journal is 64 letters, the SHA-256 of a file, and its vector; one cut short by a kill is left out.
    """

    def __init__(self, folder: Path, model: IndexedModel, before: Manifest | None):
        self.width = model.width
        self._record = np.dtype([("content", "S64"), ("vector", "<f4", (model.width,))])
        name = hashlib.sha256(f"{model.fingerprint} {model.preprocessing} {model.dtype}".encode()).hexdigest()[:16]
        self._journal = folder / _JOURNAL.format(name)
        self._marks: dict[tuple[str, str], str] = {}  # a file, and what was seen of it -> its content
        self._rows: dict[str, int] = {}
        self._old = np.empty((0, model.width), np.float32)
        if before is not None:
            self._old = open_vectors(folder, before)
            self._remember(folder, before)
        self._made = self._read_journal()

    def _remember(self, folder: Path, before: Manifest) -> None:
        columns = open_columns(folder, before)
        images, seen, contents = (columns.values(name) for name in ("image", SEEN, CONTENT))
        codes = (columns.codes(name).tolist() for name in ("image", SEEN, CONTENT))
        for row, (image, mark, content) in enumerate(zip(*codes, strict=True)):
            self._rows.setdefault(contents[content], row)
            if mark:
                self._marks[images[image], seen[mark]] = contents[content]

    def _read_journal(self) -> dict[str, int]:
        if self._journal.exists():  # a record that was cut short would shift those behind it
            os.truncate(self._journal, self._journal.stat().st_size // self._record.itemsize * self._record.itemsize)
        self._journaled = self._map_journal()
        return {content.decode(): row for row, content in enumerate(self._journaled["content"].tolist())}

    def _map_journal(self) -> np.ndarray:
        there = self._journal.exists() and self._journal.stat().st_size
        return np.memmap(self._journal, self._record, "r") if there else np.empty(0, self._record)

    @property
    def before(self) -> set[str]:
        """The contents that the state before had."""
        return set(self._rows)

    def content_of(self, image: str, mark: str) -> str | None:
        """The content of a file that has not changed since it was indexed; None where that is not known."""
        return self._marks.get((image, mark)) if mark else None

    def __contains__(self, content: str) -> bool:
        return content in self._rows or content in self._made

    def vector(self, content: str) -> np.ndarray:
        """The vector of a content, float32 [E]."""
        if content in self._made:
            return self._journaled["vector"][self._made[content]]
        return self._old[self._rows[content]]

    def add(self, contents: Sequence[str], vectors: np.ndarray) -> None:
        """Note vectors, float32 [n, E]; they survive a kill when this returns."""
        if not len(contents):
            return
        records = np.zeros(len(contents), self._record)
        records["content"], records["vector"] = [content.encode() for content in contents], vectors
        try:
            with self._journal.open("ab") as file:
                records.tofile(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self._journal}: cannot be written ({error.strerror}); free space, and run it again") from error
        self._made |= {content: len(self._journaled) + row for row, content in enumerate(contents)}
        self._journaled = self._map_journal()

    def forget_journal(self) -> None:
        """Remove the journals: their vectors are in a state now, or of another model."""
        for path in self._journal.parent.glob(_JOURNAL.format("*")):
            path.unlink(missing_ok=True)
