"""Articles as `PMC<id>.tar.gz`, the form in which PubMed Central gave them out until 2026.

They may come from anywhere, so nothing is unpacked to the disk and nothing in them is trusted: no links, devices or
paths that lead out of the package, bounded numbers and sizes, and every byte up to the archive's own checksum is read
once.
"""

import contextlib
import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.jats.safe_xml import MAX_BYTES
from biomedclip_jax.data.pmc.sources.folders import (
    XML_SUFFIXES,
    articles_among,
    digest_of_files,
    id_in_path,
    newest_versions,
    walk,
    with_ids,
)
from biomedclip_jax.data.pmc.sources.selection import OlderVersion
from biomedclip_jax.errors import UserError, first_line

PACKAGE_SUFFIXES = (".tar.gz", ".tgz")
MAX_MEMBERS = 20_000  # genuine packages have tens, seldom hundreds
MAX_MEMBER_BYTES = 2**30
MAX_TOTAL_BYTES = 2**32
MAX_RATIO = 200  # unpacked to packed bytes, beyond the first _FREE_BYTES; text packs to a fifth, images hardly
_FREE_BYTES = 2**26
_CACHE_BYTES = 2**27  # of an article's media in memory; what does not fit is read from the package again
_CHUNK = 2**20  # also the most that one read may ask for: tarfile reads headers, whatever length they claim, in one go


def is_package(name: str) -> bool:
    """Whether a file is a package, by its ending."""
    return name.lower().endswith(PACKAGE_SUFFIXES)


def packages_among(files: list[str]) -> list[str]:
    """Of the files of a folder those that are packages: `PMC*.tar.gz`; other archives are supplements, for instance."""
    return [name for name in files if is_package(name) and name.startswith("PMC")]


@dataclass(frozen=True)
class Packages:
    """Articles as packages in a folder and below. Keys are the paths of the packages relative to `root`."""

    root: Path
    ids: tuple[str, ...] | None = None
    only: str | None = None  # one package of the folder, whatever it is called

    def keys(self) -> Iterator[str]:
        """The keys of the articles, sorted; see `Source.keys`. Older versions have keys, too: opening one is an error."""
        keys = self._keys()
        vars(self)["_newest"] = newest_versions(keys)
        return iter(keys)

    def _keys(self) -> list[str]:
        if self.only is not None:
            found = [self.only]
        else:
            found = [f"{folder}{name}" for folder, files in walk(self.root) for name in packages_among(files)]
        return with_ids(found, self.ids)

    @cached_property
    def _newest(self) -> dict[str, str]:
        return newest_versions(self._keys())

    def version(self, key: str) -> str:
        """Changes when the package's name, size or time does."""
        return digest_of_files(self.root / key)

    def open(self, key: str) -> ArticleFiles:
        """Read an article from its package. UserError for one that is damaged, hostile, or holds no article or
        several.
        """
        if key in self._newest:
            raise OlderVersion(f"{self.root / key}: an older version of {self._newest[key]}, which is taken")
        path = self.root / key
        names: list[str] = []
        data = b""
        best: tuple[int, int] | None = None
        with _members(path) as members:
            for name, member in members:
                names.append(name)
                if name.lower().endswith(XML_SUFFIXES) and (best is None or _depth_and_form(name) < best):
                    best = _depth_and_form(name)  # only this one stays in memory: a supplement may be large
                    if member.size > MAX_BYTES:
                        raise _Refused(f"has {member.size:,} bytes of XML, more than {MAX_BYTES:,}")
                    data = member.read()
        xml = _the_article(path, [name for name in names if name.lower().endswith(XML_SUFFIXES)])
        folder = xml.rpartition("/")[0]
        beside = {name.rpartition("/")[2]: name for name in names if name.rpartition("/")[0] == folder}
        media = {name: member for name, member in beside.items() if not name.lower().endswith(XML_SUFFIXES)}
        # a package's own name counts; the folder in it, and the name of the XML, where that has no id
        name = id_in_path(xml if self.only is not None and id_in_path(key) is None else key) or _stem(key)
        return ArticleFiles(
            name, xml if self.only is not None else f"{key}/{xml}", data, None, tuple(media), _Reader(path, media)
        )


def _stem(key: str) -> str:
    return next((key[: -len(suffix)] for suffix in PACKAGE_SUFFIXES if key.lower().endswith(suffix)), key)


def _depth_and_form(xml: str) -> tuple[int, int]:
    """The smaller, the likelier the article: not deep in the package, `.nxml` before `.xml`."""
    return xml.count("/"), 0 if xml.lower().endswith(XML_SUFFIXES[0]) else 1


def _the_article(path: Path, xmls: list[str]) -> str:
    depth = min((name.count("/") for name in xmls), default=0)
    found = articles_among(name for name in xmls if name.count("/") == depth)
    if len(found) != 1:
        raise UserError(f"{path}: expected one article (.nxml) in it, found {', '.join(found) or 'none'}")
    return found[0]


@dataclass
class _Reader:
    """A media file's bytes, by its name. The package is read through once for all of them, when the first is asked
    for.
    """

    path: Path
    members: dict[str, str]  # name -> name in the package
    _cache: dict[str, bytes] | None = field(default=None, repr=False, compare=False)

    def __call__(self, name: str) -> bytes:
        if name not in self.members:
            raise UserError(f"{self.path}: no {name} in this package")
        if self._cache is None:
            self._cache = self._read(set(self.members.values()), _CACHE_BYTES)
        member = self.members[name]
        return self._cache[member] if member in self._cache else self._read({member}, MAX_MEMBER_BYTES)[member]

    def _read(self, wanted: set[str], at_most: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with _members(self.path) as members:
            for name, member in members:
                if name in wanted and member.size <= at_most:
                    found[name] = member.read()
                    at_most -= member.size
        return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_cache": None}


@dataclass(frozen=True)
class _Member:
    size: int
    _file: Any

    def read(self) -> bytes:
        pieces = list(iter(lambda: self._file.read(_CHUNK), b""))
        data = b"".join(pieces)
        if len(data) != self.size:
            raise EOFError("the archive ends in the middle of it")
        return data


@contextlib.contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[str, _Member]]]:
    """The regular files of a package, checked, in its order; to be read as they come.

    Raises UserError, with the package and the member, for all that is damaged or forbidden.
    """
    last = "its beginning"

    def members(tar: tarfile.TarFile, unpacked: _Unpacked) -> Iterator[tuple[str, _Member]]:
        nonlocal last
        seen: set[str] = set()
        for count, member in enumerate(tar, 1):
            last = member.name
            name = _checked(member, count)
            if name is None:
                continue
            if name in seen:
                raise _Refused("is in it twice")
            seen.add(name)
            yield name, _Member(member.size, tar.extractfile(member))
        unpacked.rest_is_padding(tar.offset)

    try:
        with (
            path.open("rb") as packed,
            _Unpacked(packed) as unpacked,
            tarfile.open(fileobj=cast(Any, unpacked), mode="r:", errorlevel=2) as tar,
        ):
            yield members(tar, unpacked)
    except _Refused as error:
        raise UserError(f"{path}: {last!r:.200} {error}; such a package is not read") from error
    except FileNotFoundError:
        raise UserError(f"{path}: no such package") from None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise UserError(f"{path}: damaged at or after {last!r:.200} ({first_line(error)}); fetch it again") from error


class _Refused(Exception):
    """What a package must not hold."""


def _checked(member: tarfile.TarInfo, count: int) -> str | None:
    """The member's name without "./", or None for a folder. Raises _Refused."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if count > MAX_MEMBERS:
        raise _Refused(f"is one file more than {MAX_MEMBERS:,}")
    if member.name.startswith(("/", "\\")) or ".." in parts or "\0" in member.name or member.name[1:3] == ":\\":
        raise _Refused("is a path that leads out of the package")
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        raise _Refused("is a link, a device or another special file")
    if member.size > MAX_MEMBER_BYTES:
        raise _Refused(f"has {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}")
    if not parts:
        raise _Refused("has no name")
    return "/".join(parts)


class _Unpacked:
    """The bytes inside a gzip file, for tarfile to seek forward in; raises _Refused when they are too many."""

    def __init__(self, packed: BinaryIO):
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._most = min(MAX_TOTAL_BYTES, _FREE_BYTES + MAX_RATIO * os.fstat(packed.fileno()).st_size)

    def __enter__(self) -> "_Unpacked":
        return self

    def __exit__(self, *_: object) -> None:
        self._gzip.close()

    def read(self, size: int) -> bytes:
        if size > _CHUNK:
            raise _Refused(f"has a header of {size:,} bytes")
        data = self._gzip.read(size)
        if self._gzip.tell() > self._most:
            raise _Refused(f"is where the package unpacks to more than {self._most:,} bytes")
        return data

    def seek(self, position: int) -> int:
        if position < self._gzip.tell():
            return self._gzip.seek(position)
        while (left := position - self._gzip.tell()) > 0 and self.read(min(left, _CHUNK)):
            pass
        return self._gzip.tell()

    def tell(self) -> int:
        return self._gzip.tell()

    def rest_is_padding(self, position: int) -> None:
        """tarfile takes a damaged header for the end: after a true end there are but zeros, and gzip's checksum."""
        self.seek(position)
        while rest := self.read(_CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is something that is no member of an archive")
