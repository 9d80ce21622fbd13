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

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_file

IMAGE, TEXT, JSON, CLASS = 0, 1, 2, 3  # the parts of a sample
PARTS = 4
NOTHING = -1
_PART_OF = {"jpg": IMAGE, "jpeg": IMAGE, "png": IMAGE, "webp": IMAGE, "txt": TEXT, "json": JSON, "cls": CLASS}
_BLOCK = 512  # of a tar; a member's header is the block before it
_REMOTE_BLOCK = 2**23  # bytes that are fetched at once while a remote tar is read through
_OPEN_FILES = 256  # per process; systems allow 1,024 and more
_FORMAT = 2  # of the index files


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
        try:
            header = self.read(position - _BLOCK, _BLOCK)
            name = tarfile.TarInfo.frombuf(header, "utf-8", "replace").name  # type: ignore[arg-type]
        except (UserError, tarfile.TarError):
            name = f"byte {position}"
        return f"{self.path}: {name}"


def index_tar(path: str) -> tuple[Tar, np.ndarray]:
    """The tar, and int64 [samples, PARTS, 2]: position and size of image, text, JSON and class, NOTHING where one is
    missing.

    The index is kept in `cache_file`. UserError, naming host and path, if the tar is missing, cut short or no tar.
    """
    where = f"{path} on host {socket.gethostname()}"
    try:
        tar = Tar(path, _version(path))
        cache = cache_file(tar)
        if cache.is_file():
            return tar, np.load(cache)
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


def _read_through(path: str) -> np.ndarray:
    """The parts of each sample, in the order of their first members. tarfile.ReadError for a tar without its end mark."""
    samples: dict[str, list[list[int]]] = {}
    with _stream(path) as file:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or the headers of all would be kept
                folder, _, base = member.name.rpartition("/")
                key, _, suffix = base.partition(".")
                part = _PART_OF.get(suffix.lower())
                if part is not None and key and member.isfile():
                    parts = samples.setdefault(f"{folder}/{key}", [[NOTHING, NOTHING] for _ in range(PARTS)])
                    parts[part] = [member.offset_data, member.size]
            end = tar.offset  # type: ignore[attr-defined]
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a broken header for the end
            raise tarfile.ReadError(f"no end mark, or damaged after {end:,} bytes")
    return np.array(list(samples.values()), np.int64).reshape(-1, PARTS, 2)


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
    """Size and date, or what the store gives for them."""
    if "://" not in path:
        about = os.stat(path)
        return f"{about.st_size} {about.st_mtime_ns}"
    system, inside = _remote(path)
    about = system.info(inside)
    marks = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
    return " ".join(str(about[mark]) for mark in marks if about.get(mark))
