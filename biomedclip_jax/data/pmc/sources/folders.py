"""Articles as files on a disk: arranged as in PMC's cloud, or any `.nxml` and `.xml` with their images beside them."""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pmc.jats.article import ArticleFiles, Metadata
from biomedclip_jax.data.pmc.jats.figure_files import key_of, keys_of
from biomedclip_jax.data.pmc.jats.safe_xml import MAX_BYTES, hrefs
from biomedclip_jax.data.pmc.sources._cloud_layout import (
    ARTICLE,
    best_version,
    is_own_file,
    may_be_picture,
    metadata_key,
    read_metadata,
)
from biomedclip_jax.data.pmc.sources.selection import OlderVersion, check_license
from biomedclip_jax.errors import UserError

XML_SUFFIXES = (".nxml", ".xml")
_MOST_VERSIONS = 99  # of an article in a copy of the cloud; opening one with more than these, and no other, is an error
_MAX_FILE_BYTES = 2**30
_SURELY_LATER = 2.0  # seconds; a folder that was changed less than this ago may change again without another time stamp
_ID_IN_NAME = re.compile(r"(?<![0-9A-Za-z])PMC\d{1,12}(?:\.\d{1,4}(?![0-9A-Za-z]))?(?!\d)", re.ASCII)


def id_in_path(path: str) -> str | None:
    """The PMC id, with version if there is one, of the file name, else of the innermost folder that has one."""
    for part in reversed(path.split("/")):
        if found := _ID_IN_NAME.search(part):
            return found[0]
    return None


def with_ids(keys: Iterable[str], ids: tuple[str, ...] | None) -> list[str]:
    """The keys whose path names one of `ids`, sorted, and the ids that none names: opening these fails with a message."""
    if ids is None:
        return sorted(keys)
    wanted, kept, missing = frozenset(ids), [], set(ids)
    for key in keys:
        found = id_in_path(key)
        names = {found, found.partition(".")[0]} & wanted if found else ()
        if names:
            kept.append(key)
            missing.difference_update(names)
    return sorted([*kept, *missing])


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder relative to root, "" or ending in "/"; its files) of all folders, hidden files and folders left out.

    Links to folders are followed, but no folder is given twice, by whatever links it can be reached.
    """
    known: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in known:
            folders.clear()
            continue
        known.add((facts.st_dev, facts.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(root).as_posix()
        yield "" if relative == "." else f"{relative}/", sorted(name for name in files if not name.startswith("."))


def articles_among(files: Iterable[str]) -> list[str]:
    """Of the files of a folder those that are articles: `.nxml`, else `.xml`, which may be a supplement beside a
    `.nxml`.
    """
    files = list(files)
    for suffix in XML_SUFFIXES:
        if found := [name for name in files if name.lower().endswith(suffix)]:
            return found
    return []


@dataclass(frozen=True)
class FolderReader:
    """Gives a file's bytes by its name in a folder."""

    folder: Path

    def __call__(self, name: str) -> bytes:
        return _read(self.folder / Path(name).name)


def newest_versions(keys: Iterable[str]) -> dict[str, str]:
    """Of keys that name a PMC id with a version: each that is not the newest -> the key of the newest."""
    by_id: dict[str, list[tuple[int, str]]] = {}
    for key in keys:
        if found := id_in_path(key):
            pmcid, _, version = found.partition(".")
            by_id.setdefault(pmcid, []).append((int(version or 0), key))
    newer: dict[str, str] = {}
    for versions in by_id.values():
        newest = max(version for version, _ in versions)
        best = min(key for version, key in versions if version == newest)
        newer.update((key, best) for version, key in versions if version < newest)
    return newer


@dataclass(frozen=True)
class _Listing:
    """The files of a folder. by_key: of a folder of several articles, the files by `key_of` their names."""

    files: list[str]
    by_key: dict[str, list[str]] | None

    @staticmethod
    def of(folder: Path) -> "_Listing":
        files = _files(folder)
        if len(articles_among(files)) < 2:
            return _Listing(files, None)
        by_key: dict[str, list[str]] = {}
        for name in files:
            if not name.lower().endswith(XML_SUFFIXES):
                by_key.setdefault(key_of(name), []).append(name)
        return _Listing(files, by_key)

    def media(self, xml: bytes, name: str) -> list[str]:
        """The files that may be an article's: those that it names if there are several articles, else all."""
        if self.by_key is None:
            return [file for file in self.files if not file.lower().endswith(XML_SUFFIXES)]
        keys = {key for href in hrefs(xml, name) for key in keys_of(href)}
        return sorted(file for key in keys for file in self.by_key.get(key, ()))


@dataclass(frozen=True)
class PlainFolder:
    """Articles in a folder and below. Keys are the paths of their XML files relative to `root`.

    Files beside one article are its own; of the files beside several, those that an article names.
    """

    root: Path
    ids: tuple[str, ...] | None = None
    only: str | None = None  # one file of the folder

    def keys(self) -> Iterator[str]:
        """The keys of the articles, sorted; see `Source.keys`. Older versions have keys, too: opening one is an error."""
        keys = self._keys()
        vars(self)["_newest"] = newest_versions(keys)
        return iter(keys)

    def _keys(self) -> list[str]:
        if self.only is not None:
            found = [self.only]
        else:
            found = [f"{folder}{name}" for folder, files in walk(self.root) for name in articles_among(files)]
        return with_ids(found, self.ids)

    @cached_property
    def _newest(self) -> dict[str, str]:
        return newest_versions(self._keys())

    @cached_property
    def _listings(self) -> dict[Path, tuple[int, _Listing]]:
        """Of folders that hold several articles, with their time stamps; a folder of one is not listed twice anyway."""
        return {}

    def _listing(self, folder: Path) -> _Listing:
        changed = folder.stat().st_mtime_ns
        if folder in self._listings and self._listings[folder][0] == changed:
            return self._listings[folder][1]
        listing = _Listing.of(folder)
        if listing.by_key is not None and time.time() - changed / 1e9 > _SURELY_LATER:
            self._listings[folder] = (changed, listing)
        return listing

    def version(self, key: str) -> str:
        """Changes when one of the article's files does: its name, size or time."""
        path = self.root / key
        try:
            listing = self._listing(path.parent)
            if listing.by_key is None:
                return digest_of_files(path.parent)
            media = listing.media(_read(path, MAX_BYTES), key)
        except (OSError, UserError):  # opening it will say why
            return digest_of_files(path)
        return digest_of_files(path, path.with_name(f"{path.stem}.json"), *(path.with_name(name) for name in media))

    def open(self, key: str) -> ArticleFiles:
        """Open the best version of an article; see `Source.open`."""
        if key in self._newest:
            raise OlderVersion(f"{self.root / key}: an older version of {self._newest[key]}, which is taken")
        path = self.root / key
        xml = _read(path, MAX_BYTES)
        name = id_in_path(key) or os.fsencode(key.rpartition(".")[0]).decode("utf-8", "backslashreplace")
        json = path.with_name(f"{path.stem}.json")
        metadata = read_metadata(_read(json), str(json)) if ARTICLE.fullmatch(path.stem) and json.is_file() else None
        media = tuple(self._listing(path.parent).media(xml, key))
        return ArticleFiles(name, key, xml, metadata, media, FolderReader(path.parent))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_listings"}


@dataclass(frozen=True)
class CloudFolder:
    """A copy of a part of PMC's cloud: `PMC<id>.<version>/` and `metadata/`. Keys as in `CloudSource`."""

    root: Path
    ids: tuple[str, ...] | None = None
    licenses: frozenset[str] | None = None

    def keys(self) -> Iterator[str]:
        """The keys of the articles, sorted; see `Source.keys`."""
        if self.ids is not None:
            return iter(self.ids)
        found = (ARTICLE.fullmatch(entry.name) for entry in os.scandir(self.root) if entry.is_dir())
        return iter(sorted({f"PMC{match[1]}" for match in found if match}))

    def version(self, key: str) -> str:
        """Changes when a file of any version of the article does: its name, size or time."""
        pmcid = key.partition(".")[0]
        articles = [f"{pmcid}.{version}" for version in self._versions(key)]
        return digest_of_files(*(self.root / name for article in articles for name in (article, metadata_key(article))))

    def open(self, key: str) -> ArticleFiles:
        """Open the best version of an article; see `Source.open`."""
        pmcid = key.partition(".")[0]
        version = best_version(self._versions(key), lambda version: self._metadata(f"{pmcid}.{version}"))
        article = f"{pmcid}.{version}"
        metadata = self._metadata(article)
        if metadata is not None and metadata.license_code:
            check_license(metadata.license_code, self.licenses, article)
        folder = self.root / article
        if not (folder / f"{article}.xml").is_file():
            raise UserError(f"{folder}: no {article}.xml in it; if a fetch was interrupted, run it again")
        media = tuple(name for name in _files(folder) if not is_own_file(name, article) and may_be_picture(name))
        xml = _read(folder / f"{article}.xml", MAX_BYTES)
        return ArticleFiles(article, f"{article}/{article}.xml", xml, metadata, media, FolderReader(folder))

    def _metadata(self, article: str) -> Metadata | None:
        for path in (self.root / metadata_key(article), self.root / article / f"{article}.json"):
            if path.is_file():
                return read_metadata(_read(path), str(path))
        return None

    def _versions(self, key: str) -> list[int]:
        """Of one id, without a listing of the whole folder where that can be helped: it may hold millions."""
        pmcid, _, version = key.partition(".")
        if version:
            found = [int(version)] if (self.root / key).is_dir() else []
        else:  # the cloud numbers from 1 without gaps; a copy may lack some, so look on past the first that is missing
            stem = f"{self.root}/{pmcid}."
            found = [number for number in range(1, _MOST_VERSIONS + 1) if os.path.isdir(f"{stem}{number}")]
        if not found:
            raise UserError(f"{self.root / key}: no such article")
        return found


def is_cloud_folder(root: Path) -> bool:
    """Whether any folder in it is named like an article of the cloud and holds its XML."""
    with os.scandir(root) as entries:
        return any(ARTICLE.fullmatch(entry.name) and (root / entry.name / f"{entry.name}.xml").is_file() for entry in entries)


def digest_of_files(*paths: Path) -> str:
    """Hexadecimal; of names, sizes and times of these files and of the files of these folders. Missing ones do not
    count.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for path in paths:
        for file in [path / name for name in _files(path)] if path.is_dir() else [path]:
            if file.is_file():
                facts = file.stat()
                digest.update(os.fsencode(f"{file.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n"))
    return digest.hexdigest()


def _files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))


def _read(path: Path, most: int = _MAX_FILE_BYTES) -> bytes:
    try:
        if (size := path.stat().st_size) > most:
            raise UserError(f"{path}: {size:,} bytes; expected at most {most:,}: leave it out")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
