"""The folder of an index: what is in it, and how one state of it takes the place of another.

`index.json` names the state that counts, a folder `rows-000007` with vectors and columns, which is never changed. A
new one is written beside it, and then `index.json` is replaced: whoever is killed in between leaves the old state.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.search._columns import Columns

MANIFEST, VECTORS, REJECTS = "index.json", "vectors.float32", "rejects.jsonl"
SEEN, CONTENT = " seen", " content"  # columns for indexing again: marks of files, and hashes of what they hold
_FORMAT = 1


@dataclass(frozen=True)
class IndexedModel:
    """The model that the vectors of an index are of.

    name: where it was, a path or a hub address. adapter: what was merged into it. fingerprint: of its weights.
    preprocessing: a hash of how images and texts come in. dtype: what it computed in. width: of a vector.
    """

    name: str
    adapter: str | None
    fingerprint: str
    preprocessing: str
    dtype: str
    width: int


@dataclass(frozen=True)
class Manifest:
    """What an index holds.

    count: images. rejects: images that cannot be read. columns: their names in order. sources: what it was made of.
    image_column, caption_column: as they were given. files: of the state, with their sizes in bytes. approximate: settings
    of an approximate search; None without. views: how files were taken apart (`ViewOptions.to_text`); "": not at all.
    """

    state: str
    count: int
    rejects: int
    model: IndexedModel
    sources: tuple[str, ...]
    image_column: str
    caption_column: str
    columns: tuple[str, ...]
    files: dict[str, int]
    approximate: dict[str, Any] | None = None
    views: str = ""

    @property
    def number(self) -> int:
        """Of the state, from 1."""
        return int(self.state.rpartition("-")[2])


def state_name(number: int) -> str:
    """What the state with a number is called."""
    return f"rows-{number:06d}"


def read_manifest(folder: Path) -> Manifest | None:
    """What an index says of itself; None where there is none. UserError for what is no such file."""
    file = folder / MANIFEST
    try:
        return manifest_of(file.read_text(encoding="utf-8"), file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not what `biomedclip index` writes ({error}); remove {folder}, and index again") from error


def manifest_of(text: str, where: object) -> Manifest:
    """What a text of `manifest_text` says; where: what messages call it. ValueError for another text."""
    try:
        found: dict[str, Any] = json.loads(text)
        if found.pop("format") != _FORMAT:
            raise UserError(f"{where}: of another version of biomedclip_jax; make the index again")
        found["model"] = IndexedModel(**found["model"])
        found |= {name: tuple(found[name]) for name in ("sources", "columns")}
        return Manifest(**found)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def manifest_text(manifest: Manifest) -> str:
    """A manifest as a text of JSON, from which `manifest_of` makes it again."""
    return json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=1) + "\n"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a state the one that counts, whole or not at all."""
    write_text(folder / MANIFEST, manifest_text(manifest))


def file_sizes(state: Path) -> dict[str, int]:
    """The files of a state with their sizes; they are on the disk when this returns."""
    sizes = {}
    for path in sorted(state.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            sizes[path.name] = os.fstat(file.fileno()).st_size
    return sizes


def next_state(folder: Path, manifest: Manifest | None) -> Path:
    """A new, empty folder for the state after this one; what processes that were killed have left is removed."""
    number = manifest.number + 1 if manifest is not None else 1
    remove_other_states(folder, manifest)
    state = folder / state_name(number)
    state.mkdir(parents=True)
    return state


def remove_other_states(folder: Path, manifest: Manifest | None) -> None:
    """Remove the states that do not count. Readers that have one open keep it."""
    for path in folder.glob("rows-*"):
        if manifest is None or path.name != manifest.state:
            shutil.rmtree(path, ignore_errors=True)


def check_files(folder: Path, manifest: Manifest) -> None:
    """UserError for a file that is missing or has another size than it had. FileNotFoundError where the state is gone."""
    state = folder / manifest.state
    os.stat(state)
    for name, size in manifest.files.items():
        path = state / name
        found = path.stat().st_size if path.exists() else None
        if found != size:
            what = "is missing" if found is None else f"has {found:,} bytes, expected {size:,}"
            raise UserError(f"{path}: {what}; the index is damaged: remove {folder}, and index again")


def open_vectors(folder: Path, manifest: Manifest) -> np.ndarray:
    """The vectors, float32 [n, E], which stay on disk until they are looked at."""
    shape = (manifest.count, manifest.model.width)
    if not manifest.count:
        return np.empty(shape, np.float32)
    return np.memmap(folder / manifest.state / VECTORS, "<f4", "r", shape=shape)


def open_columns(folder: Path, manifest: Manifest) -> Columns:
    """The columns, those for indexing again among them."""
    return Columns(folder / manifest.state, manifest.columns)
