"""A copy of articles of PMC's cloud on a disk, in the same layout. Run again, it fetches what is missing or changed.

An article is written pictures first, then its metadata, then its XML: a folder with an XML is whole. Each file is
written aside and renamed. `fetch-state.sqlite` says which articles are done, `rejects.jsonl` which are not in the copy
and why.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from biomedclip_jax.data.pmc.sources._cloud import CloudSource, FoundVersion, NoSuchArticle
from biomedclip_jax.data.pmc.sources._cloud_layout import CloudFile, metadata_key, picture_files, read_metadata, xml_file
from biomedclip_jax.data.pmc.sources.selection import NOT_WANTED, ArticleReject, NotWanted
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import in_order
from biomedclip_jax.support.terminal import progress_bar

NAME = "fetch-state.sqlite"
_COMMIT_EVERY = 1.0  # seconds; what a kill loses of this is looked at again, not downloaded again


@dataclass(frozen=True)
class Known:
    """How a fetch left an article. version: `CloudSource.version` then. reason: why it was not wanted; None: it was
    fetched.
    """

    version: str
    article: str | None  # "PMC123.2"
    reason: str | None = None
    licenses: str | None = None  # with which it was not wanted


class FetchState:
    """What a fetch remembers of articles, so that the next one asks only for changes: a small data base beside the
    articles.

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
        """How an article was left, or None for one that is new."""
        try:
            query = "select version, article, reason, licenses from articles where key = ?"
            row = self._base.execute(query, [key]).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return Known(*row) if row else None

    def put(self, key: str, known: Known) -> None:
        """Remember how an article was left; it is safe on the disk within a second or so, or at `close`."""
        try:
            values = [key, known.version, known.article, known.reason, known.licenses]
            self._base.execute("insert or replace into articles values (?, ?, ?, ?, ?)", values)
            if time.monotonic() - self._committed > _COMMIT_EVERY:
                self._base.commit()
                self._committed = time.monotonic()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Write what was put to the disk and let other processes in."""
        self._base.commit()
        self._base.close()


REJECTS = "rejects.jsonl"
NO_SUCH_ARTICLE, FAILED = "no such article", "could not be fetched"  # reasons of rejects, besides NOT_WANTED


@dataclass(frozen=True)
class _Outcome:
    """What became of an article. known: what is to be remembered, None if nothing is."""

    key: str
    counts: dict[str, int] = field(default_factory=dict)
    known: Known | None = None
    reject: ArticleReject | None = None


def fetch(source: CloudSource, folder: Path) -> Counter[str]:
    """Bring the articles of `source` whose licence it wants into `folder`, as many at once as its bucket has
    connections.

    Returns counts: "articles", "unchanged", "fetched", "files" and "bytes" (downloaded), and one for each reason of
    rejects. An article that cannot be had is listed in `rejects.jsonl` and does not stop the others; the next run
    tries it again.
    Raises UserError for a bucket that cannot be listed, and for a folder that is in use or cannot be written.
    """
    licenses = json.dumps(sorted(source.licenses)) if source.licenses is not None else "any"
    source = replace(source)  # an index of its own: that of an earlier run may be out of date
    total = len(source)  # the bucket is listed, or the inventory read
    counts = Counter({"articles": 0, "unchanged": 0, "fetched": 0, "files": 0, "bytes": 0})
    try:
        (folder / "metadata").mkdir(parents=True, exist_ok=True)
        partial_rejects = folder / f"{REJECTS}.partial"
        with (
            closing(FetchState(folder)) as state,
            closing(_outcomes(source, folder, state, licenses)) as outcomes,
            partial_rejects.open("w", encoding="utf-8") as rejects,
            progress_bar(total, "article") as bar,
        ):
            for outcome in outcomes:
                counts["articles"] += 1
                counts.update(outcome.counts)
                if outcome.known is not None:
                    state.put(outcome.key, outcome.known)
                if outcome.reject is not None:
                    counts[outcome.reject.reason] += 1
                    rejects.write(json.dumps(vars(outcome.reject), ensure_ascii=False) + "\n")
                bar.update()
        os.replace(partial_rejects, folder / REJECTS)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{error.filename or folder}: cannot be written ({reason}); mend that and run the same again"
        ) from error
    return counts


def _outcomes(source: CloudSource, folder: Path, state: FetchState, licenses: str) -> Generator[_Outcome, None, None]:
    at_once = source.bucket.connections
    with ThreadPoolExecutor(at_once) as pool:
        tasks = map(lambda key: (key, state.get(key)), source.keys())
        yield from in_order(pool, partial(_fetch_one, source, folder, licenses), tasks, 4 * at_once)


def _fetch_one(source: CloudSource, folder: Path, licenses: str, task: tuple[str, Known | None]) -> _Outcome:
    key, known = task
    try:
        version = source.version(key)
        if known is not None and known.version == version:
            if known.reason is not None and known.licenses == licenses:
                return _Outcome(key, reject=ArticleReject(key, NOT_WANTED, known.reason))
            if known.article is not None and _is_wanted_and_whole(source, folder, known.article):
                return _Outcome(key, {"unchanged": 1})
        try:
            found = source.find(key)
        except NotWanted as error:
            reject = ArticleReject(key, NOT_WANTED, str(error))
            return _Outcome(key, known=Known(version, None, str(error), licenses), reject=reject)
        files, size = _fetch_article(source, folder, found)
        return _Outcome(key, {"fetched": 1, "files": files, "bytes": size}, Known(version, found.article))
    except NoSuchArticle as error:
        return _Outcome(key, reject=ArticleReject(key, NO_SUCH_ARTICLE, str(error)))
    except UserError as error:
        return _Outcome(key, reject=ArticleReject(key, FAILED, str(error)))


def _is_wanted_and_whole(source: CloudSource, folder: Path, article: str) -> bool:
    """By the copy's own metadata, without a request."""
    try:
        metadata = read_metadata((folder / metadata_key(article)).read_bytes(), article)
        source.check_license(metadata, article)
        files = [xml_file(metadata, article), *picture_files(metadata, article)]
    except (OSError, UserError):
        return False
    names = (f"{article}.json", *(file.name for file in files))
    return all((folder / article / name).is_file() for name in names)


def _fetch_article(source: CloudSource, folder: Path, found: FoundVersion) -> tuple[int, int]:
    """Bring an article into `folder`; returns how many files were downloaded, and their bytes."""
    article = found.article
    xml, pictures = xml_file(found.metadata, article), picture_files(found.metadata, article)
    own = folder / article
    own.mkdir(exist_ok=True)
    sizes = [_fetch_file(source, own, file) for file in pictures]
    for name in _pictures_before(folder, article) - {file.name for file in pictures}:
        (own / name).unlink(missing_ok=True)
    for path in (own / f"{article}.json", folder / metadata_key(article)):
        aside = path.with_name(f"{path.name}.partial")
        aside.write_bytes(found.data)
        os.replace(aside, path)
    sizes.append(_fetch_file(source, own, xml))
    downloaded = [size for size in sizes if size is not None]
    return len(downloaded), sum(downloaded)


def _pictures_before(folder: Path, article: str) -> set[str]:
    try:
        metadata = read_metadata((folder / metadata_key(article)).read_bytes(), article)
        return {file.name for file in picture_files(metadata, article)}
    except (OSError, UserError):
        return set()


def _fetch_file(source: CloudSource, folder: Path, file: CloudFile) -> int | None:
    """Download a file of the article of `folder`; returns its size, or None if the same file is in the folder already."""
    path = folder / file.name
    if file.md5 is not None and path.is_file():
        with path.open("rb") as existing:
            if hashlib.file_digest(existing, partial(hashlib.md5, usedforsecurity=False)).hexdigest() == file.md5:
                return None
    return source.bucket.download(f"{folder.name}/{file.name}", path, file.md5)
