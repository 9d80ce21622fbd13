"""Articles as files on a disk: arranged as in PMC's cloud, or any `.nxml` and `.xml` with their images beside them."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data.pmc.jats.article import ArticleFiles, Metadata
from biomedclip_jax.data.pmc.sources._cloud_layout import (
    ARTICLE,
    best_version,
    is_own_file,
    may_be_picture,
    metadata_key,
    read_metadata,
)
from biomedclip_jax.data.pmc.sources.selection import check_license
from biomedclip_jax.errors import UserError

XML_SUFFIXES = (".nxml", ".xml")
_MOST_VERSIONS = 99  # of an article in a copy of the cloud; opening one with more than these, and no other, is an error
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
    """(folder relative to root, "" or ending in "/"; its files) of all folders, hidden files and folders left out."""
    for folder, folders, files in os.walk(root):
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


@dataclass(frozen=True)
class PlainFolder:
    """Articles in a folder and below. Keys are the paths of their XML files relative to `root`."""

    root: Path
    ids: tuple[str, ...] | None = None
    only: str | None = None  # one file of the folder

    def keys(self) -> Iterator[str]:
        """The keys of the articles, sorted; see `Source.keys`."""
        if self.only is not None:
            found = [self.only]
        else:
            found = [f"{folder}{name}" for folder, files in walk(self.root) for name in articles_among(files)]
        return iter(with_ids(found, self.ids))

    def version(self, key: str) -> str:
        """Changes when a file beside the XML does: its name, size or time."""
        return digest_of_files((self.root / key).parent)

    def open(self, key: str) -> ArticleFiles:
        """Open the best version of an article; see `Source.open`."""
        path = self.root / key
        xml = _read(path)
        name = id_in_path(key) or key.rpartition(".")[0]
        json = path.with_name(f"{path.stem}.json")
        metadata = read_metadata(_read(json), str(json)) if ARTICLE.fullmatch(path.stem) and json.is_file() else None
        media = tuple(file for file in _files(path.parent) if not file.lower().endswith(XML_SUFFIXES))
        return ArticleFiles(name, key, xml, metadata, media, FolderReader(path.parent))


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
        xml = _read(folder / f"{article}.xml")
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
