"""What an index may be made of: any source of records, and what `biomedclip embed` has written."""

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.embeddings_file import load_embeddings
from biomedclip_jax.data.embeddings_folder import MANIFEST, read_archive, shard_vectors
from biomedclip_jax.data.images.load import LazyImage, load_image
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.records import FORMS, Record, Records, open_records
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

DATA_FORMS = f"{FORMS}, or what `biomedclip embed` has written (a folder or .npz)"


@dataclass(frozen=True)
class Entry:
    """A record on its way into an index. place: where its image is, if that is no file of its own. mark: of a file, what
    changes when it does. content, vector: of what was embedded elsewhere. view: of an image among those of a file, its
    place and how the file is taken apart.
    """

    record: Record
    place: str = ""
    mark: str = ""
    content: str = ""
    vector: np.ndarray | None = None
    records: Records | None = None
    view: str = ""


class HashedImage(LazyImage):
    """The image of an entry; content: the SHA-256 of what was read last."""

    def __init__(self, entry: Entry):
        self._entry = entry
        self.content = ""

    def hashed(self) -> str:
        """Read what the image is in, and return `content`. UserError, which names it, if it cannot be read."""
        if self._entry.record.view is None:
            self._read()
        else:
            assert self._entry.record.file is not None
            self.content = view_content(file_hash(self._entry.record.file), self._entry.view)
        return self.content

    def load(self) -> Image.Image:
        """Read, hash and decode it."""
        if (view := self._entry.record.view) is not None:
            image = view.load()
            self.hashed()  # of a file that has not changed since it is known
            return image
        return load_image(self._read(), self._entry.record.name)

    def _read(self) -> bytes:
        record, records = self._entry.record, self._entry.records
        if record.file is None:
            assert records is not None
            found = records.content(record.number)
        else:
            found = _bytes_of(record.file)
        self.content = hashlib.sha256(found).hexdigest()
        return found


class Source:
    """The entries of one of the sources of an index. count: how many, None where that shows only at the end."""

    def __init__(self, name: str, image_column: str, model: str, width: int, views: ViewOptions | None = None):
        """name: as the user gave it. model: `embeddings_folder.model_mark` of the model. views: how files are taken apart.
        UserError for what is no source, for vectors of another model, and for views of what are no files.
        """
        self.name, self._model, self._width = name, model, width
        self._views = "" if views is None else views.to_text()
        self._records: list[Records] = []
        self._embedded = name.lower().endswith(".npz") or (Path(name) / MANIFEST).is_file()
        self.rejects: list[Reject] = []
        if self._embedded and views is not None:
            raise UserError(f"{name}: --every takes files apart, and these are embeddings; leave it out, or index them alone")
        if self._embedded:
            self.count: int | None = None
            self._check_archive()
        else:
            self._records = open_records(name, image_column, views)
            counts = [part.count for part in self._records]
            self.count = None if None in counts else sum(filter(None, counts))

    def __iter__(self) -> Iterator[Entry]:
        if self._embedded:
            yield from self._archived() if Path(self.name).is_dir() else self._from_file()
        for number, part in enumerate(self._records):
            for record in part:
                if record.file is not None:
                    view = f"{record.view.place} {self._views}" if record.view is not None else ""
                    yield Entry(record, mark=file_mark(record.file, view), records=part, view=view)
                else:
                    yield Entry(record, f"{self.name} {number}.{record.number}", records=part)
            self.rejects += part.rejects

    def _check_archive(self) -> None:
        if not Path(self.name).is_dir():
            return
        archive, _ = read_archive(Path(self.name))
        if archive.model != self._model:
            raise UserError(
                f"{self.name}: embeddings of another model, --dtype or preprocessing; give the model that they were made with"
            )

    def _archived(self) -> Iterator[Entry]:
        archive, shards = read_archive(Path(self.name))
        row = 0
        for table in shards:
            vectors = shard_vectors(table, archive.width)
            cells = (table[name].to_pylist() for name in ("name", "sha256", "reject"))
            places = table["place"].to_pylist() if archive.views else [""] * len(vectors)
            for name, content, reject, place, vector in zip(*cells, places, vectors, strict=True):
                row += 1
                if reject is not None:
                    self.rejects.append(Reject(str(row), name, reject))
                elif archive.views:
                    yield self._view(row - 1, name, content, place, archive.views, vector)
                else:
                    yield self._entry(row - 1, name, content, vector)

    def _from_file(self) -> Iterator[Entry]:
        vectors, names = load_embeddings(self.name)
        if vectors.ndim != 2 or vectors.shape[1] != self._width:
            raise UserError(f"{self.name}: embeddings of width {vectors.shape[-1]}, and the model's have {self._width}")
        say_some(f"{self.name}: does not say which model it is of; it is taken to be of this one")
        for row, (name, vector) in enumerate(zip(names, vectors, strict=True)):
            vector = np.asarray(vector, np.float32)
            if not np.isfinite(vector).all():
                self.rejects.append(Reject(str(row + 1), name, "its embedding is not finite"))
            else:
                yield self._entry(row, name, hashlib.sha256(vector.tobytes()).hexdigest(), vector)

    def _view(self, row: int, name: str, content: str, place: str, options: str, vector: np.ndarray) -> Entry:
        file = Path(name.removesuffix(f"#{place}")) if place else Path(name)
        view = f"{place} {options}"
        record = Record(row, name, name, {"folder": str(file.parent)}, file)
        return Entry(record, content=view_content(content, view), vector=vector, view=view)

    def _entry(self, row: int, name: str, content: str, vector: np.ndarray) -> Entry:
        folder = os.path.dirname(name)
        return Entry(Record(row, name, name, {"folder": folder}, Path(name)), content=content, vector=vector)


def file_mark(file: Path, view: str = "") -> str:
    """What changes when a file does: its size, its number and its times, of which no program can set the last; "" of none.

    view: which of the images in the file is meant, and how it is taken apart.
    """
    try:
        state = os.stat(file)
    except OSError:
        return ""
    return f"{state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns} {view}".rstrip()


def view_content(content: str, view: str) -> str:
    """The hash of one of the images in a file, whose own is that of all of them."""
    return hashlib.sha256(f"{content} {view}".encode()).hexdigest()


def file_hash(file: Path) -> str:
    """The SHA-256 of a file, read once for all of its images as long as it does not change."""
    with _hashing:
        return _hash_of(file, file_mark(file))


_hashing = threading.Lock()


@lru_cache(maxsize=16)
def _hash_of(file: Path, _: str) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")
