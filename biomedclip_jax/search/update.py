"""Making an index, and bringing it up to date: what is new is embedded, what has gone is dropped, the rest is kept."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from biomedclip_jax.data.embeddings_folder import model_mark
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.search._approximate import FEWEST, build
from biomedclip_jax.search._columns import ColumnsWriter
from biomedclip_jax.search._folder import (
    MANIFEST,
    REJECTS,
    VECTORS,
    IndexedModel,
    Manifest,
    file_sizes,
    next_state,
    read_manifest,
    remove_other_states,
    state_name,
    write_manifest,
)
from biomedclip_jax.search._identity import check_same_model, identify
from biomedclip_jax.search._pass import Changes, Known, Pass, Rows, Wanted
from biomedclip_jax.search._server import GRAPH, Server, is_address
from biomedclip_jax.search._server_rows import ServerRows
from biomedclip_jax.search._sources import Source
from biomedclip_jax.search._vectors import KnownVectors
from biomedclip_jax.support.owner import owned, owned_folder
from biomedclip_jax.support.terminal import say_some

_WRITER = "`biomedclip index`"
_INSTEAD = "another --out"
_WATCHED_SECONDS = 40.0  # the holder of a collection, on another host


def update_index(where: Path | str, wanted: Wanted, load: Callable[[], Pretrained]) -> Changes:
    """Make an index of all images of the sources, or bring the one that is there up to date.

    where: a folder, or the address of a collection on a Qdrant server. Whatever happens, the index that was there is whole
    until the new one is. Vectors that were made before a kill are used by the next call.
    UserError for a folder or collection that another process writes, that holds something else, an index of another model
    or of other sources, and where no image can be read.
    """
    return _update_collection(str(where), wanted, load) if is_address(where) else _update_folder(Path(where), wanted, load)


def _update_folder(folder: Path, wanted: Wanted, load: Callable[[], Pretrained]) -> Changes:
    """Images that cannot be read are in `rejects.jsonl`."""
    _check_folder(folder)
    with owned_folder(folder, writer=_WRITER, instead=_INSTEAD):
        before = read_manifest(folder)
        clip, model = _checked_model(folder, before, wanted, load)
        known = KnownVectors(folder, model, before)
        state = next_state(folder, before)
        try:
            with FolderRows(state, known) as rows:
                changes = _run(clip, model, known, rows, wanted)
            manifest = replace(_manifest(state.name, model, wanted), count=changes.count, rejects=len(changes.rejects))
            manifest = replace(manifest, columns=tuple(rows.write_columns()), files=file_sizes(state))
            if _asked(before, wanted):
                manifest = _with_approximate(state, manifest)
        except Exception:
            shutil.rmtree(state, ignore_errors=True)
            raise
        rejects = "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in changes.rejects)
        write_text(folder / REJECTS, rejects.encode("utf-8", "backslashreplace").decode())
        write_manifest(folder, manifest)
        remove_other_states(folder, manifest)
        known.forget_journal()
        return changes


class FolderRows:
    """The rows of a new state in its folder. count: how many it has."""

    def __init__(self, state: Path, known: KnownVectors):
        self._state, self._known = state, known
        self._columns = ColumnsWriter()
        self._file = (state / VECTORS).open("wb")
        self._vectors: list[np.ndarray] = []
        self.count = 0

    def __enter__(self) -> "FolderRows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_row(self, cells: Mapping[str, str], content: str) -> None:
        """A row in the order of the data; the vector of its content is known."""
        self._columns.add(cells)
        self._vectors.append(self._known.vector(content))
        self.count += 1

    def save(self) -> None:
        """Write the vectors that are in memory."""
        if self._vectors:
            np.stack(self._vectors).astype("<f4").tofile(self._file)
        self._vectors.clear()

    def write_columns(self) -> list[str]:
        """Write what is known of all rows, and return the names of the columns."""
        return self._columns.write(self._state)


def _update_collection(address: str, wanted: Wanted, load: Callable[[], Pretrained]) -> Changes:
    server = Server(address)
    with owned(server.lock, server.lock.name, writer=_WRITER, instead=_INSTEAD, watch=_WATCHED_SECONDS) as taken_over:
        before = server.read_manifest()
        finished = before if before is not None and before.number else None
        clip, model = _checked_model(address, finished, wanted, load)
        manifest = _manifest(state_name(before.number + 1 if before is not None else 1), model, wanted)
        manifest = replace(manifest, approximate=GRAPH if _asked(before, wanted) else None)
        rows = ServerRows(server, before, manifest)
        try:
            changes = _run(clip, model, rows, rows, wanted)
        except UserError:
            rows.give_up()
            raise
        if taken_over():
            raise UserError(f"{address}: another {_WRITER} has taken it over; the index that was there still counts")
        rows.finish(changes.count, len(changes.rejects))
        return changes


def _checked_model(
    where: Path | str, before: Manifest | None, wanted: Wanted, load: Callable[[], Pretrained]
) -> tuple[Pretrained, IndexedModel]:
    """The model, after all that can be wrong beforehand."""
    if before is not None:
        _check_same_data(where, before, wanted)
    clip = load()
    if before is not None:
        check_same_model(where, before.model, clip, wanted.model)
        if before.model.dtype != wanted.dtype:
            raise UserError(f"{where}: its vectors were computed in {before.model.dtype}; give --dtype {before.model.dtype}")
    return clip, identify(clip, wanted.model, wanted.adapter, wanted.dtype)


def _manifest(state: str, model: IndexedModel, wanted: Wanted) -> Manifest:
    """What a state says of itself, before it has rows."""
    sources = tuple(map(_absolute, wanted.sources))
    columns = wanted.image_column, wanted.caption_column
    return Manifest(state, 0, 0, model, sources, *columns, (), {}, views=wanted.views_text)


def _asked(before: Manifest | None, wanted: Wanted) -> bool:
    """Whether an approximate search is wanted: as before, unless it was said."""
    return before is not None and before.approximate is not None if wanted.approximate is None else wanted.approximate


def _run(clip: Pretrained, model: IndexedModel, known: Known, rows: Rows, wanted: Wanted) -> Changes:
    mark = model_mark(clip.fingerprint, clip.config, clip.processor.config, wanted.dtype)
    sources = [Source(name, wanted.image_column, mark, model.width, wanted.views) for name in wanted.sources]
    return Pass(clip, known, rows, wanted).run(sources)


def _with_approximate(state: Path, manifest: Manifest) -> Manifest:
    """The state with an approximate index, unless it is too small for one."""
    if manifest.count < FEWEST:
        say_some(f"{state.parent}: {manifest.count:,} images are compared in a moment; no approximate index below {FEWEST:,}")
        return manifest
    vectors = np.memmap(state / VECTORS, "<f4", "r", shape=(manifest.count, manifest.model.width))
    settings = build(state, vectors)
    return replace(manifest, approximate=settings, files=file_sizes(state))


def _check_folder(folder: Path) -> None:
    """UserError for a folder that holds something else: what does not count in it will be removed."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file where a folder was expected")
    ours = ("rows-", "embedded-", "lock.json", MANIFEST, REJECTS)
    if folder.is_dir() and (other := next((p.name for p in sorted(folder.iterdir()) if not p.name.startswith(ours)), None)):
        raise UserError(f"{folder}: is there already, and holds {other}, which is no part of an index; choose another folder")


def _check_same_data(folder: Path | str, before: Manifest, wanted: Wanted) -> None:
    """UserError where sources that the index was made of are not given again: their images would be dropped."""
    given = set(map(_absolute, wanted.sources))
    if missing := [name for name in before.sources if name not in given]:
        more = " ".join([*before.sources, *(name for name in map(_absolute, wanted.sources) if name not in before.sources)])
        raise UserError(
            f"{folder}: was made of {', '.join(missing)}, which --data does not name, so its images would be dropped; to add "
            f"to it give --data {more}, else choose another --out"
        )
    for what in ("image_column", "caption_column"):
        if getattr(before, what) != getattr(wanted, what):
            option = f"--{what.replace('_', '-')}"
            raise UserError(f"{folder}: was made with {option} {getattr(before, what)}; give that, or choose another --out")
    if before.views != (views := wanted.views_text):
        raise UserError(
            f"{folder}: its files were taken apart otherwise ({before.views or 'not at all'}, now {views or 'not at all'}); "
            "give the same --every, --plane, --window, --tile and --mpp, or choose another --out"
        )


def _absolute(source: str) -> str:
    """A source as it is called from anywhere."""
    return source if "://" in source or source.startswith("tfds:") else os.path.abspath(source)
