"""One tar of a WebDataset: the positions of its members, found once, and their bytes.

Local tars are read by position, others through fsspec by ranges of bytes.
"""

import functools
import hashlib
import os
import socket
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES, RARE_SUFFIXES
from biomedclip_jax.data.pairs import file_mark
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_file

IMAGE, TEXT, JSON, CLASS = 0, 1, 2, 3  # the parts of a sample
PARTS = 4
FAULT = 4  # beside the parts: where the member is for which a sample cannot be used or was not complete, and why
NOTHING = -1

# why; what is 0 is no fault. OTHER is one only where a part is missing for it.
TWICE, SEVERAL, LINK, OTHER, SPARSE = 1, 2, 3, 4, 5
FAULTS = {
    TWICE: "a member of this name is in the tar twice",
    SEVERAL: "several members for one part of its key, such as two images",
    LINK: "a link, not a file: pack with tar --hard-dereference --dereference",
    OTHER: "",
    SPARSE: "stored with holes left out, so not in one piece: pack without tar --sparse",
}

_PART_OF = {suffix[1:]: IMAGE for suffix in (*IMAGE_SUFFIXES, *RARE_SUFFIXES)} | {"txt": TEXT, "json": JSON, "cls": CLASS}
_BLOCK = 512  # of a tar; a member's header is the block before it
_REMOTE_BLOCK = 2**23  # bytes that are fetched at once while a remote tar is read through
_OPEN_FILES = 256  # per process; systems allow 1,024 and more
_FORMAT = 4  # of the index files
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}


@dataclass(frozen=True)
class Tar:
    """A tar on a disk or in a store. path: or an address. version: changes when the tar does."""

    path: str
    version: str

    def read(self, position: int, size: int) -> bytes:
        """`size` bytes of the tar from `position` on. UserError if it has become shorter, or cannot be read."""
        try:
            if "://" in self.path:
                system, path = _remote(self.path)
                content = system.cat_file(path, start=position, end=position + size)
            else:
                content = os.pread(_opened(self.path, self.version).number, size, position)
        except UserError:
            raise
        except Exception as error:  # OSError, and whatever the libraries behind fsspec raise
            raise UserError(f"{self.path}: cannot be read ({first_line(error)})") from error
        if len(content) != size:
            raise UserError(f"{self.path}: has become shorter since the run began; copy it again")
        return content

    def name(self, position: int) -> str:
        """What messages call a member: the tar, and in it the name of the member whose content begins at `position`."""
        return f"{self.path}: {self.member(position)}"

    def member(self, position: int) -> str:
        """The name of the member whose content begins at `position`."""
        try:
            header = self.read(position - _BLOCK, _BLOCK)
            return tarfile.TarInfo.frombuf(header, "utf-8", "replace").name  # type: ignore[arg-type]
        except (UserError, tarfile.TarError):
            return f"byte {position}"


def index_tar(path: str) -> tuple[Tar, np.ndarray]:
    """The tar, and int64 [samples, PARTS + 1, 2]: position and size of image, text, JSON and class, NOTHING where one
    is missing; and in `FAULT` the position of a member and one of `FAULTS`, or 0.

    The last ending of a name says what a member is, and all before it is the key of its sample: names may have dots.
    What follows the end mark of a tar, as in concatenated ones, is read, too.

    The index is kept in `cache_file`. UserError, naming host and path, if the tar is missing, compressed, cut short or
    no tar.
    """
    where = f"{path} on host {socket.gethostname()}"
    try:
        tar = Tar(path, _version(path))
        cache = cache_file(tar)
        if (kept := _load_index(cache)) is not None:
            return tar, kept
        parts = _read_through(path)
    except FileNotFoundError:
        raise UserError(f"{where}: this shard is missing; copy it there, or correct the pattern") from None
    except tarfile.TarError as error:
        raise UserError(f"{where}: this shard is cut short or no tar ({first_line(error)}); copy it again") from error
    except UserError:
        raise
    except Exception as error:  # OSError, and whatever the libraries behind fsspec raise
        raise UserError(f"{where}: this shard cannot be read ({first_line(error)})") from error
    save_index(cache, parts)
    return tar, parts


def cache_file(*tars: Tar, kind: str = "") -> Path:
    """The file for an index of these tars in these versions, in `$XDG_CACHE_HOME/biomedclip_jax/shards`."""
    digest = hashlib.sha256(f"{_FORMAT}\0{kind}".encode())
    for tar in tars:
        address = tar.path if "://" in tar.path else os.path.realpath(tar.path)
        digest.update(f"\0{address}\0{tar.version}".encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "biomedclip_jax" / "shards" / f"{digest.hexdigest()[:32]}.npy"


def save_index(path: Path, parts: np.ndarray) -> bool:
    """Keep an index; False where it cannot be written, and the tars are read through again next time."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name NumPy would add its suffix
            np.save(file, parts)

    try:
        write_file(path, write)
    except UserError:
        return False
    return True


def _load_index(path: Path) -> np.ndarray | None:
    """An index that was kept; None where there is none, or where another process is just writing it."""
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError):
        return None


def _read_through(path: str) -> np.ndarray:
    """The parts of each sample, in the order of their first members. tarfile.ReadError for a tar without its end mark."""
    samples = _Samples()
    with _stream(path) as file:
        _check_uncompressed(path, file.read(8))
        start: int | None = 0
        while start is not None:
            file.seek(start)
            samples.begin_archive()
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # or the headers of all would be kept
                    samples.add(member)
                end = tar.offset  # type: ignore[attr-defined]
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a broken header for the end
                raise tarfile.ReadError(f"no end mark, or damaged after {end:,} bytes")
            start = _next_archive(file, end + _BLOCK)
    return samples.array()


def _next_archive(file: Any, position: int) -> int | None:
    """Where the next of concatenated tars begins, at `position` or after zeros; None if nothing but zeros is left."""
    file.seek(position)
    while block := file.read(_BLOCK):
        if block.strip(b"\0"):
            return position
        position += len(block)
    return None


def _check_uncompressed(path: str, head: bytes) -> None:
    for mark, (kind, program) in _COMPRESSED.items():
        if head.startswith(mark):
            raise UserError(f"{path}: compressed ({kind}), but shards are read by position; unpack it with {program} first")


class _Samples:
    """Members gathered by their keys."""

    def __init__(self) -> None:
        self._rows: list[list[list[int]]] = []
        self._row_of: dict[str, int] = {}
        self._names: set[str] = set()

    def begin_archive(self) -> None:
        """Keys of concatenated tars are their own: each may have a sample 0."""
        self._row_of.clear()
        self._names.clear()

    def add(self, member: tarfile.TarInfo) -> None:
        """A member that is a file or a link to one; folders, hidden files and those of macOS belong to no sample."""
        folder, _, base = member.name.rpartition("/")
        if member.isdir() or base.startswith(".") or "__MACOSX" in folder.split("/"):
            return
        key, dot, ending = base.rpartition(".")
        key = f"{folder}/{key if dot else base}"
        row, part = self._row(key), _PART_OF.get(ending.lower())
        if member.name in self._names:  # the same sample once more, as a row of its own: neither can be told to be meant
            row[FAULT] = [member.offset_data, TWICE]
            row = self._row(f"{key}\0again")
            row[FAULT] = [member.offset_data, TWICE]
        self._names.add(member.name)
        if member.issparse():
            row[FAULT] = [member.offset_data, SPARSE]
        elif not member.isfile():
            row[FAULT] = [member.offset_data, LINK]
        elif part is not None and row[part][0] == NOTHING:
            row[part] = [member.offset_data, member.size]
        elif row[FAULT][1] in (0, OTHER):
            row[FAULT] = [member.offset_data, OTHER if part is None else SEVERAL]

    def _row(self, key: str) -> list[list[int]]:
        if key not in self._row_of:
            self._row_of[key] = len(self._rows)
            self._rows.append([*([NOTHING, NOTHING] for _ in range(PARTS)), [NOTHING, 0]])
        return self._rows[self._row_of[key]]

    def array(self) -> np.ndarray:
        """All samples, int64 [samples, PARTS + 1, 2]."""
        return np.array(self._rows, np.int64).reshape(-1, PARTS + 1, 2)


class _OpenFile:
    """A descriptor that is closed when nobody reads from it any more."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(_OPEN_FILES)
def _opened(path: str, version: str) -> _OpenFile:
    return _OpenFile(path)


def _stream(path: str) -> Any:
    if "://" not in path:
        return open(path, "rb")
    system, inside = _remote(path)
    return system.open(inside, "rb", block_size=_REMOTE_BLOCK, cache_type="readahead")


def _remote(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise UserError(f"{address}: reading over the network needs fsspec: pip install 'biomedclip_jax[pmc]'") from None
    return fsspec.core.url_to_fs(address)


def _version(path: str) -> str:
    """A mark of the file (`file_mark`), or size, date and tag as the store gives them."""
    if "://" not in path:
        return file_mark(path)
    system, inside = _remote(path)
    about = system.info(inside)
    marks = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
    return " ".join(str(about[mark]) for mark in marks if about.get(mark))
