"""What an index may be made of: any source of records, and what `biomedclip embed` has written."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.embeddings_file import load_embeddings
from biomedclip_jax.data.embeddings_folder import MANIFEST, read_archive, shard_vectors
from biomedclip_jax.data.images.load import LazyImage, load_image
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

    def read(self) -> bytes:
        """Read the encoded image, and note its hash. UserError, which names it, if it cannot be read."""
        record, records = self._entry.record, self._entry.records
        if record.file is None:
            assert records is not None
            found = records.content(record.number)
        else:
            try:
                found = record.file.read_bytes()
            except (OSError, ValueError) as error:
                raise UserError(f"{record.file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self.content = hashlib.sha256(found).hexdigest()
        return found

    def load(self) -> Image.Image:
        """Read, hash and decode it."""
        return load_image(self.read(), self._entry.record.name)


class Source:
    """The entries of one of the sources of an index. count: how many, None where that shows only at the end."""

    def __init__(self, name: str, image_column: str, model: str, width: int):
        """name: as the user gave it. model: `embeddings_folder.model_mark` of the model. UserError for what is no source,
        and for vectors of another model.
        """
        self.name, self._model, self._width = name, model, width
        self._records: list[Records] = []
        self._embedded = name.lower().endswith(".npz") or (Path(name) / MANIFEST).is_file()
        self.rejects: list[Reject] = []
        if self._embedded:
            self.count: int | None = None
            self._check_archive()
        else:
            self._records = open_records(name, image_column)
            counts = [part.count for part in self._records]
            self.count = None if None in counts else sum(filter(None, counts))

    def __iter__(self) -> Iterator[Entry]:
        if self._embedded:
            yield from self._archived() if Path(self.name).is_dir() else self._from_file()
        for number, part in enumerate(self._records):
            for record in part:
                if record.file is not None:
                    yield Entry(record, mark=_mark(record.file), records=part)
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
        own = hashlib.sha256(f"{content} {view}".encode()).hexdigest()  # the file's is that of all its images
        record = Record(row, name, name, {"folder": str(file.parent)}, file)
        return Entry(record, content=own, vector=vector, view=view)

    def _entry(self, row: int, name: str, content: str, vector: np.ndarray) -> Entry:
        folder = os.path.dirname(name)
        return Entry(Record(row, name, name, {"folder": folder}, Path(name)), content=content, vector=vector)


def _mark(file: Path) -> str:
    """What changes when a file does: its size, its number and its times, of which no program can set the last; "" of none."""
    try:
        state = os.stat(file)
    except OSError:
        return ""
    return f"{state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns}"
