"""Making an index, and bringing it up to date: what is new is embedded, what has gone is dropped, the rest is kept."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from biomedclip_jax.data.embeddings_folder import model_mark
from biomedclip_jax.data.pairs import Reject, first_reject
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.search._approximate import FEWEST, build
from biomedclip_jax.search._columns import ColumnsWriter
from biomedclip_jax.search._folder import (
    CONTENT,
    MANIFEST,
    REJECTS,
    SEEN,
    VECTORS,
    IndexedModel,
    Manifest,
    file_sizes,
    next_state,
    read_manifest,
    remove_other_states,
    write_manifest,
)
from biomedclip_jax.search._identity import SOURCE, VIEW, check_same_model, identify
from biomedclip_jax.search._sources import Entry, HashedImage, Source
from biomedclip_jax.search._vectors import KnownVectors
from biomedclip_jax.search.hits import FIELDS
from biomedclip_jax.support.owner import owned_folder
from biomedclip_jax.support.parallel import read_ahead
from biomedclip_jax.support.terminal import progress_bar, say_some

_CHUNK = 512  # images that are embedded before their vectors are written
_SAY_EVERY = 10.0  # seconds
# the columns that are the article, the licence and the citation, the first that a source has
_MEANT = {"article": ("article", "pmcid", "doi"), "license": ("license", "licence"), "citation": ("citation", "attribution")}


@dataclass(frozen=True)
class Wanted:
    """What an index is to be made of. model, adapter, sources: as the user gave them. batch_size: images at once."""

    model: str
    sources: tuple[str, ...]
    adapter: str | None = None
    dtype: str = "float32"
    image_column: str = "image"
    caption_column: str = "caption"
    batch_size: int = 32
    approximate: bool | None = None  # None: as before, exact in a new index


@dataclass(frozen=True)
class Changes:
    """What an update has done.

    count: images that are there now, of which `embedded` had to be embedded and the vectors of `kept` were known. gone:
    vectors that no image has any more. repeated: rows that say what another row says of the same image, left out.
    renamed: images whose name another one has, too, and which are called NAME#2 and so on.
    """

    count: int
    embedded: int
    kept: int
    gone: int
    rejects: Sequence[Reject]
    repeated: int
    renamed: int


def update_index(folder: Path, wanted: Wanted, load: Callable[[], Pretrained]) -> Changes:
    """Make an index of all images of the sources, or bring the one in `folder` up to date.

    Whatever happens, the index that was there is whole until the new one is. Vectors that were made before a kill are
    used by the next call. Images that cannot be read are in `rejects.jsonl`.
    UserError for a folder that another process writes, that holds something else, an index of another model or of other
    sources, and where no image can be read.
    """
    _check_folder(folder)
    with owned_folder(folder, writer="`biomedclip index`", instead="another --out"):
        before = read_manifest(folder)
        if before is not None:
            _check_same_data(folder, before, wanted)
        clip = load()
        model = identify(clip, wanted.model, wanted.adapter, wanted.dtype)
        if before is not None:
            check_same_model(folder, before.model, clip, wanted.model)
            if before.model.dtype != wanted.dtype:
                raise UserError(
                    f"{folder}: its vectors were computed in {before.model.dtype}; give --dtype {before.model.dtype}"
                )
        known = KnownVectors(folder, model, before)
        state = next_state(folder, before)
        try:
            manifest, changes = _write_state(state, clip, model, known, wanted)
            asked = before is not None and before.approximate is not None if wanted.approximate is None else wanted.approximate
            if asked:
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


def _write_state(
    state: Path, clip: Pretrained, model: IndexedModel, known: KnownVectors, wanted: Wanted
) -> tuple[Manifest, Changes]:
    mark = model_mark(clip.fingerprint, clip.config, clip.processor.config, wanted.dtype)
    sources = [Source(name, wanted.image_column, mark, model.width) for name in wanted.sources]
    work = _Work(clip, known, wanted)
    changes = work.write(state, sources)
    manifest = Manifest(
        state.name,
        changes.count,
        len(changes.rejects),
        model,
        tuple(map(_absolute, wanted.sources)),
        wanted.image_column,
        wanted.caption_column,
        tuple(work.columns),
        file_sizes(state),
    )
    return manifest, changes


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


def _check_same_data(folder: Path, before: Manifest, wanted: Wanted) -> None:
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


def _absolute(source: str) -> str:
    """A source as it is called from anywhere."""
    return source if "://" in source or source.startswith("tfds:") else os.path.abspath(source)


class _Work:
    """One pass over all sources, which writes a state."""

    def __init__(self, clip: Pretrained, known: KnownVectors, wanted: Wanted):
        self._clip, self._known, self._wanted = clip, known, wanted
        self._writer = ColumnsWriter()
        self._rejects: list[Reject] = []
        self._ids: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._contents: set[str] = set()
        self._embedded = self._repeated = self._renamed = 0
        self.columns: list[str] = []

    @property
    def count(self) -> int:
        """Images that were written."""
        return self._writer.count

    def write(self, state: Path, sources: Sequence[Source]) -> Changes:
        """Write vectors and columns of all entries. UserError where there is none that can be read."""
        counts = [source.count for source in sources]
        total = None if None in counts else sum(filter(None, counts))
        began = said = time.monotonic()
        with (state / VECTORS).open("wb") as file, progress_bar(total, "image") as bar:
            for chunk in _chunks(entry for source in sources for entry in source):
                self._write_chunk(file, chunk)
                bar.update(len(chunk))
                if bar.disable and time.monotonic() - said > _SAY_EVERY:
                    said = time.monotonic()
                    rate = self._embedded / (said - began)
                    print(
                        f"{self.count:,} images, {self._embedded:,} embedded, {rate:,.0f} a second", file=sys.stderr, flush=True
                    )
        self._rejects += [reject for source in sources for reject in source.rejects]
        if not self.count:
            raise UserError(
                f"{', '.join(source.name for source in sources)}: no image that can be read{first_reject(self._rejects)}"
            )
        self.columns = self._writer.write(state)
        gone = len(self._known.before - self._contents)
        kept = self.count - self._embedded
        return Changes(self.count, self._embedded, kept, gone, self._rejects, self._repeated, self._renamed)

    def _write_chunk(self, file: IO[bytes], chunk: Sequence[Entry]) -> None:
        contents = self._embed(chunk)
        rows = []
        for entry, content in zip(chunk, contents, strict=True):
            if isinstance(content, UserError):
                self._rejects.append(Reject(str(entry.record.number + 1), entry.record.name, str(content)))
                continue
            cells = self._cells(entry, content)
            if (said := _digest(cells)) in self._seen:
                self._repeated += 1
                continue
            self._seen.add(said)
            self._writer.add(cells | {"id": self._id(cells["id"])})
            self._contents.add(content)
            rows.append(self._known.vector(content))
        if rows:
            np.stack(rows).astype("<f4").tofile(file)

    def _embed(self, chunk: Sequence[Entry]) -> list[str | UserError]:
        """The content of each entry, all of which have vectors now, or why it cannot be read."""
        contents: list[str | UserError | None] = [self._content_before(entry) for entry in chunk]
        given = {
            entry.content: entry.vector for entry in chunk if entry.vector is not None and entry.content not in self._known
        }
        if given:
            self._known.add(list(given), np.stack([vector for vector in given.values() if vector is not None]))
        unread = [number for number, content in enumerate(contents) if content is None]
        images = [HashedImage(chunk[number]) for number in unread]
        for number, found in zip(unread, read_ahead(lambda image: image.read() and image.content, images, 64), strict=True):
            contents[number] = found
        new: dict[str, int] = {}
        for number in unread:
            content = contents[number]
            if isinstance(content, str) and content not in self._known:
                new.setdefault(content, number)
        self._embed_new(chunk, list(new.values()), contents)
        return [UserError("") if content is None else content for content in contents]

    def _embed_new(self, chunk: Sequence[Entry], numbers: Sequence[int], contents: list[str | UserError | None]) -> None:
        if not numbers:
            return
        images = [HashedImage(chunk[number]) for number in numbers]
        failed: dict[int, UserError] = {}
        vectors = self._clip.encode_images(images, self._wanted.batch_size, on_error=failed.__setitem__)
        good = [image for position, image in enumerate(images) if position not in failed]
        finite = np.isfinite(vectors.sum(axis=1))
        self._known.add([image.content for image, fine in zip(good, finite, strict=True) if fine], vectors[finite])
        self._embedded += int(finite.sum())
        fine = iter(finite.tolist())
        for position, (number, image) in enumerate(zip(numbers, images, strict=True)):
            if position in failed:
                self._refuse(contents, contents[number], failed[position])
            elif not next(fine):
                self._refuse(contents, contents[number], UserError("the model's embedding of it is not finite"))
            elif image.content != contents[number]:
                self._refuse(contents, contents[number], UserError("it changed while it was read; index again"))

    def _refuse(self, contents: list[str | UserError | None], content: object, error: UserError) -> None:
        """All entries of the chunk with a content that gives no vector."""
        contents[:] = [error if each == content else each for each in contents]

    def _content_before(self, entry: Entry) -> str | None:
        if entry.vector is not None:
            return entry.content
        content = self._known.content_of(_image_of(entry), entry.mark)
        return content if content is not None and content in self._known else None

    def _cells(self, entry: Entry, content: str) -> dict[str, str]:
        """What the index keeps of an entry: the fields of every hit, and all other columns under their own names."""
        told = {name.strip(): text for name, text in entry.record.cells.items()}
        meant = {"caption": (self._wanted.caption_column,)} | _MEANT
        known = {name: next((told[each] for each in names if told.get(each)), "") for name, names in meant.items()}
        taken = {"id", *(name for name in FIELDS if name in known and name in meant[name])}
        others = {(f"{name} (column)" if name in FIELDS else name): text for name, text in told.items() if name not in taken}
        fields = {"id": entry.record.id, "image": _image_of(entry), **known}
        where = {SEEN: entry.mark, CONTENT: content, SOURCE: entry.place}
        return fields | others | where | ({VIEW: entry.view} if entry.view else {})

    def _id(self, name: str) -> str:
        self._ids[name] += 1
        number = self._ids[name]
        self._renamed += number > 1
        return name if number == 1 else f"{name}#{number}"


def _image_of(entry: Entry) -> str:
    """The path of the image, or what messages call it."""
    return entry.record.name if entry.record.file is None else os.path.abspath(entry.record.file)


def _digest(cells: dict[str, str]) -> bytes:
    return hashlib.blake2b(repr(sorted(cells.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    source = iter(entries)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk
