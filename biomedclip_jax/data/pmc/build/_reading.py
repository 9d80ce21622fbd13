"""Which articles of a shard are being read, so that one that kills its process is known when the shard is built again.

Whoever died may have been killed for want of memory, by a fault in a decoder, or by hand: what was open then is read
once more, each article in a process of its own, and only one that kills that, too, is left out.
"""

import contextlib
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from biomedclip_jax.data.pmc.build.pairs import Filters, Pair, Reject, pairs_of_article
from biomedclip_jax.data.pmc.build.record import ShardId
from biomedclip_jax.data.pmc.build.runner import end_with_parent
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.support.storage import Storage

STATE = ".build"  # what a build knows of itself
LOCK = f"{STATE}/lock.json"  # who writes it
STAGING = f"{STATE}/staging"

FOLDER = f"{STATE}/reading"
KILLER = "ends the process that reads it"


class ReadingLog:
    """A file, of local destinations, that names an article before it is read and after; elsewhere nothing is noted."""

    def __init__(self, storage: Storage, shard: ShardId):
        self._path = Path(storage.root) / FOLDER / shard.name if storage.is_local else None
        self._file: int | None = None

    def suspects(self) -> frozenset[str]:
        """The articles that were being read when the process that built this shard before died."""
        if self._path is None or not self._path.is_file():
            return frozenset()
        being_read: set[str] = set()
        for line in self._path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):  # the last line of a life may be cut short
                key, begins = json.loads(line)
                (being_read.add if begins else being_read.discard)(key)
        return frozenset(being_read)

    @contextlib.contextmanager
    def reading(self, key: str) -> Iterator[None]:
        """Note that an article is being read; from several threads at once."""
        self._note(key, begins=True)
        yield  # only a process that dies leaves it open
        self._note(key, begins=False)

    def _note(self, key: str, *, begins: bool) -> None:
        if self._file is not None:
            os.write(self._file, f"{json.dumps([key, begins])}\n".encode())

    def __enter__(self) -> "ReadingLog":
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # what it held stays: a suspect is one until it was read apart
            self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(self._file, b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever ends the block, but the death of the process: the articles are not to blame."""
        if self._file is not None and self._path is not None:
            os.close(self._file)
            self._file = None
            self._path.unlink(missing_ok=True)


class Apart:
    """Reads articles in a process of its own, one at a time, that may die of them."""

    def __init__(self):
        self._one_at_a_time = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def read(self, source: Source, key: str, filters: Filters) -> list[Pair | Reject]:
        """What `pairs_of_article` gives; a Reject if the process dies."""
        with self._one_at_a_time:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
            try:
                return self._pool.submit(pairs_of_article, source, key, filters).result()
            except BrokenProcessPool:
                self._close()
                detail = "its process died twice, for want of memory or by a fault in a decoder; the rest goes on without it"
                return [Reject("article", KILLER, key, detail=detail)]

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
