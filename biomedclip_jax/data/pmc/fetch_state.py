"""What a fetch remembers of the articles it has dealt with, so that the next one asks only for what has changed."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.errors import UserError

NAME = "fetch-state.sqlite"
_COMMIT_EVERY = 1.0  # seconds; what a kill loses of this is looked at again, not downloaded again


@dataclass(frozen=True)
class Known:
    """How an article was left. version: `CloudSource.version` then. reason: why it was not wanted; None if it was fetched."""

    version: str
    article: str | None  # "PMC123.2"
    reason: str | None = None
    licenses: str | None = None  # with which it was not wanted


class FetchState:
    """A small data base beside the articles; one process at a time.

    Raises UserError where another fetch has it open, and where the file is damaged.
    """

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._base = sqlite3.connect(self._path, timeout=0.5)
        try:
            # no write-ahead log: it needs shared memory, which network file systems lack
            self._base.execute("pragma locking_mode = exclusive")
            self._base.execute(
                "create table if not exists articles"
                " (key text primary key, version text, article text, reason text, licenses text) without rowid"
            )
            self._base.execute("begin immediate")
            self._base.execute("delete from articles where key = ''")  # takes the lock
            self._base.commit()
        except sqlite3.Error as error:
            self._base.close()
            raise self._unusable(error) from error
        self._committed = time.monotonic()

    def _unusable(self, error: sqlite3.Error) -> UserError:
        if "locked" in str(error):
            return UserError(f"{self._path}: in use; another fetch into this folder is running, wait for its end")
        return UserError(f"{self._path}: {error}; remove this file, and the copy is checked anew and nothing downloaded twice")

    def get(self, key: str) -> Known | None:
        try:
            query = "select version, article, reason, licenses from articles where key = ?"
            row = self._base.execute(query, [key]).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return Known(*row) if row else None

    def put(self, key: str, known: Known) -> None:
        try:
            values = [key, known.version, known.article, known.reason, known.licenses]
            self._base.execute("insert or replace into articles values (?, ?, ?, ?, ?)", values)
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._base.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Keep what was put."""
        self._base.commit()
        self._base.close()
