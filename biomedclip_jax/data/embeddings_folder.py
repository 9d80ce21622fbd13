"""The folder of Parquet files that `biomedclip embed` writes: embeddings of any number of files, a shard at a time.

Which files a shard holds depends on the list of files alone, and a shard appears whole or not at all. So whoever comes
next makes what is missing: the same command after it was killed, or another process that has another part of the work.
Each file has its row; of one that is no readable image the embedding is NaN and `reject` says why.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import LazyImage, load_image
from biomedclip_jax.data.images.views.find import View
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

MANIFEST = "embeddings.json"
_FORMAT = 1
_SAY = {  # what two commands for one folder may differ in
    "model": "another model, other preprocessing or another --dtype",
    "width": "another model",
    "files": "another list of files",
    "listed": "another list of files, or of files of other sizes",
    "shard_size": "another --shard-size",
    "views": "files taken apart otherwise (--every, --plane, --window, --tile, --mpp)",
}

Embed = Callable[[Sequence[LazyImage], Callable[[int, UserError], object]], np.ndarray]


@dataclass(frozen=True)
class Archive:
    """What a folder of embeddings is of, and how it is divided; all that is in it was made with these.

    model: a hash of weights, preprocessing and precision. width: of an embedding. files: how many. listed: a hash of their
    names and sizes in order. shard_size: rows of each shard but the last. views: how files were taken apart
    (`ViewOptions.to_text`), "" where each file is one image.
    """

    model: str
    width: int
    files: int
    listed: str
    shard_size: int
    views: str = ""

    @property
    def shards(self) -> int:
        """How many files of embeddings there are in the end."""
        return -(-self.files // self.shard_size)

    def shard_file(self, shard: int) -> str:
        """The name of a shard's file."""
        return f"embeddings-{shard:05d}-of-{self.shards:05d}.parquet"

    def rows_of(self, shard: int) -> int:
        """How many rows a shard has."""
        return min(self.shard_size, self.files - shard * self.shard_size)


@lru_cache(maxsize=16)
def _sha256(path: Path) -> str:
    """Of a file with many images, which is asked for with each of them."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashedImage(LazyImage):
    """An image whose file is hashed when it is loaded. sha256: "" before, and of a file that cannot be read."""

    def __init__(self, image: Path | View):
        self._image = image
        self.sha256 = ""

    def load(self) -> Image.Image:
        """Read, hash and decode it. UserError, which names it, if that fails."""
        if isinstance(self._image, View):
            image = self._image.load()
            self.sha256 = _sha256(self._image.path)
            return image
        try:
            content = self._image.read_bytes()
        except OSError as error:
            raise UserError(f"{self._image}: cannot be read: {error.strerror or error}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        return load_image(content, str(self._image))


def open_archive(folder: Path, archive: Archive) -> None:
    """Note in a new folder what it is of; of one that is begun UserError unless it is of the same."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file where a folder was expected")
    found = _read_manifest(folder)
    if found is None:
        if folder.is_dir() and any(not path.name.startswith(f".{MANIFEST}") for path in folder.iterdir()):
            found = _read_manifest(folder)  # of another process that has begun meanwhile
            if found is None:
                raise UserError(f"{folder}: is there already and not empty; choose another folder, or remove it first")
        else:
            found = _begin(folder, archive)
    for field, what in _SAY.items():
        theirs, ours = getattr(found, field), getattr(archive, field)
        if theirs != ours:
            counts = f" ({theirs:,} there, now {ours:,})" if isinstance(ours, int) else ""
            raise UserError(f"{folder}: holds the embeddings of {what}{counts}; choose another --out, or remove that folder")


def _begin(folder: Path, archive: Archive) -> Archive:
    """Write the manifest, of which there is one however many processes begin at once; returns what it says."""
    own = folder / f".{MANIFEST}.{socket.gethostname()}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own.write_text(json.dumps({"format": _FORMAT, **asdict(archive)}, indent=1) + "\n", encoding="utf-8")
        try:
            os.link(own, folder / MANIFEST)  # whole, and only if there is none
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(own, folder / MANIFEST)
        own.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose a folder that you may write to") from error
    return _read_manifest(folder) or archive


def _read_manifest(folder: Path) -> Archive | None:
    """What a folder says it is of; None where it says nothing."""
    file = folder / MANIFEST
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT:
            raise UserError(f"{file}: of a newer version of biomedclip_jax; update it")
        return Archive(**found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not what `biomedclip embed` writes ({error}); remove its folder") from error


def write_shard(folder: Path, archive: Archive, shard: int, paths: Sequence[Path | View], embed: Embed) -> int:
    """Make a shard from its files, or leave one that is there and whole; returns how many of its rows are rejects."""
    import pyarrow
    from pyarrow import parquet

    target = folder / archive.shard_file(shard)
    if target.exists():
        if (rejects := _rejects_of(target, archive.rows_of(shard))) is not None:
            return rejects
        say_some(f"{target}: not a whole shard; it is made again")
    images = [HashedImage(path) for path in paths]
    reasons: dict[int, str] = {}
    good = embed(images, lambda position, error: reasons.__setitem__(position, str(error)))
    rows = np.full((len(paths), archive.width), np.nan, np.float32)
    rows[[position for position in range(len(paths)) if position not in reasons]] = good
    table = _table(paths, images, rows, reasons)
    if archive.views:
        places = [path.place if isinstance(path, View) else "" for path in paths]
        table = table.append_column("place", pyarrow.array(places, pyarrow.string()))
    # several processes may make one shard: they make the same, each beside it
    aside = folder / f".{target.name}.{socket.gethostname()}.{os.getpid()}"
    try:
        parquet.write_table(table, aside, compression="none", use_dictionary=False)
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if not target.exists():
            raise UserError(f"{target}: cannot be written ({error.strerror or error}); free space, and run it again") from error
    _remove_left(folder, target.name)
    return len(reasons)


def _remove_left(folder: Path, name: str) -> None:
    """Remove what processes that were killed have left beside a file that is there now."""
    for path in folder.glob(f".{name}.*"):
        path.unlink(missing_ok=True)


def _table(paths: Sequence[Path | View], images: Sequence[HashedImage], rows: np.ndarray, reasons: dict[int, str]) -> Any:
    import pyarrow

    width = rows.shape[1]
    columns = {
        "name": pyarrow.array([_name(path) for path in paths], pyarrow.string()),
        "sha256": pyarrow.array([image.sha256 or None for image in images], pyarrow.string()),
        "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), width),
        "reject": pyarrow.array([reasons.get(position) for position in range(len(paths))], pyarrow.string()),
    }
    return pyarrow.table(columns)


def _name(path: Path | View) -> str:
    """The name of a file as UTF-8, which Parquet wants of texts."""
    name = str(path)
    plain = os.fsencode(name).decode("utf-8", "backslashreplace")
    if plain != name:
        say_some(f"{plain}: the name of this file is not UTF-8; the table has \\x.. for what is none")
    return plain


def _rejects_of(file: Path, rows: int) -> int | None:
    """How many rows of a shard are rejects; None of one that has not `rows` rows or cannot be read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as found:
            return rows - found.read(["reject"])["reject"].null_count if found.metadata.num_rows == rows else None
    except (ArrowException, OSError, KeyError):
        return None


def shards_there(folder: Path, archive: Archive) -> int:
    """How many of the shards have been made."""
    there = sum((folder / archive.shard_file(shard)).exists() for shard in range(archive.shards))
    if there == archive.shards:
        _remove_left(folder, MANIFEST)
    return there


def model_mark(weights: str, config: object, preprocess: object, dtype: str) -> str:
    """What an archive says of its model. weights: their fingerprint."""
    return fingerprint([weights, str(config), str(preprocess), dtype])


def read_archive(folder: Path) -> tuple[Archive, Iterator[Any]]:
    """What an archive is of, and its shards one by one, as Arrow tables. UserError as of `load_folder`."""
    archive = _complete(folder)
    return archive, (_read_shard(folder, archive, shard) for shard in range(archive.shards))


def load_folder(folder: Path) -> tuple[np.ndarray, list[str]]:
    """The embeddings float32 [n, E] and the n names of all files that were readable images.

    UserError for a folder that is no such one, and for one that is not complete.
    """
    archive, shards = read_archive(folder)
    embeddings = np.empty((archive.files, archive.width), np.float32)
    names: list[str] = []
    for table in shards:
        kept = np.array(table["reject"].is_null())
        rows = shard_vectors(table, archive.width)
        embeddings[len(names) : len(names) + kept.sum()] = rows[kept]
        names += table["name"].filter(table["reject"].is_null()).to_pylist()
    return embeddings[: len(names)], names


def shard_vectors(table: Any, width: int) -> np.ndarray:
    """The embeddings of a shard, float32 [n, E]."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in table["embedding"].chunks]).reshape(-1, width)


def _complete(folder: Path) -> Archive:
    archive = _read_manifest(folder)
    if archive is None:
        raise UserError(f"{folder}: no {MANIFEST} in it; expected a folder that `biomedclip embed --out` has written")
    if (there := shards_there(folder, archive)) < archive.shards:
        raise UserError(
            f"{folder}: {there:,} of {archive.shards:,} shards are there; run the `embed` that writes it again, it goes on"
        )
    return archive


def _read_shard(folder: Path, archive: Archive, shard: int) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise UserError(f"{folder}: reading Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'") from None
    file = folder / archive.shard_file(shard)
    try:
        columns = ["name", "sha256", "embedding", "reject", *(["place"] if archive.views else [])]
        return read_table(file, columns=columns).combine_chunks()
    except (ArrowException, OSError) as error:
        raise UserError(f"{file}: not readable as Parquet ({error}); remove it, and run `embed` again") from error
