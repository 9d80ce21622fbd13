"""One pass over all that an index is made of: what is new is embedded, of the rest the vectors are known."""

import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.data.pairs import Reject, first_reject
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.search._folder import CONTENT, SEEN
from biomedclip_jax.search._identity import SOURCE, VIEW
from biomedclip_jax.search._sources import Entry, HashedImage, Source
from biomedclip_jax.search.hits import FIELDS
from biomedclip_jax.support.parallel import read_ahead
from biomedclip_jax.support.terminal import progress_bar

_CHUNK = 512  # images that are embedded before their vectors are written, at most
_SAVE_EVERY = 30.0  # seconds of embedding that a kill may cost, about
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
    views: ViewOptions | None = None  # how files are taken apart; None: each is one image

    @property
    def views_text(self) -> str:
        """How files are taken apart, as an index notes it."""
        return "" if self.views is None else self.views.to_text()


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


class Known(Protocol):
    """The vectors that are there already, by the content of the image."""

    @property
    def before(self) -> set[str]:
        """The contents that the state before had."""
        ...

    def content_of(self, image: str, mark: str) -> str | None:
        """The content of a file that has not changed since it was indexed; None where that is not known."""
        ...

    def __contains__(self, content: str) -> bool: ...

    def add(self, contents: Sequence[str], vectors: np.ndarray) -> None:
        """Note vectors, float32 [n, E]."""
        ...


class Rows(Protocol):
    """What takes the rows of a new state. count: how many it has."""

    count: int

    def add_row(self, cells: Mapping[str, str], content: str) -> None:
        """A row in the order of the data; the vector of its content is known."""
        ...

    def save(self) -> None:
        """A chunk is complete: write what is in memory."""
        ...


class Pass:
    """One pass over all sources, which gives their rows to a new state."""

    def __init__(self, clip: Pretrained, known: Known, rows: Rows, wanted: Wanted):
        self._clip, self._known, self._rows, self._wanted = clip, known, rows, wanted
        self._chunk = min(_CHUNK, wanted.batch_size)  # until it is known how fast the model is
        self._rejects: list[Reject] = []
        self._ids: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._contents: set[str] = set()
        self._embedded = self._repeated = self._renamed = 0

    def run(self, sources: Sequence[Source]) -> Changes:
        """Give all entries to the state. UserError where there is none that can be read."""
        counts = [source.count for source in sources]
        total = None if None in counts else sum(filter(None, counts))
        began = said = time.monotonic()
        with progress_bar(total, "image") as bar:
            for chunk in self._chunks(entry for source in sources for entry in source):
                self._take_chunk(chunk)
                bar.update(len(chunk))
                if bar.disable and time.monotonic() - said > _SAY_EVERY:
                    said = time.monotonic()
                    rate = self._embedded / (said - began)
                    print(
                        f"{self._rows.count:,} images, {self._embedded:,} embedded, {rate:,.0f} a second",
                        file=sys.stderr,
                        flush=True,
                    )
        self._rejects += [reject for source in sources for reject in source.rejects]
        if not self._rows.count:
            raise UserError(
                f"{', '.join(source.name for source in sources)}: no image that can be read{first_reject(self._rejects)}"
            )
        gone = len(self._known.before - self._contents)
        count = self._rows.count
        return Changes(count, self._embedded, count - self._embedded, gone, self._rejects, self._repeated, self._renamed)

    def _chunks(self, entries: Iterable[Entry]) -> Iterator[list[Entry]]:
        source = iter(entries)
        while chunk := list(islice(source, self._chunk)):
            yield chunk

    def _take_chunk(self, chunk: Sequence[Entry]) -> None:
        contents = self._embed(chunk)
        for entry, content in zip(chunk, contents, strict=True):
            if isinstance(content, UserError):
                self._rejects.append(Reject(str(entry.record.number + 1), entry.record.name, str(content)))
                continue
            cells = self._cells(entry, content)
            if (said := digest(cells)) in self._seen:
                self._repeated += 1
                continue
            self._seen.add(said)
            self._rows.add_row(cells | {"id": self._id(cells["id"])}, content)
            self._contents.add(content)
        self._rows.save()

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
        for number, found in zip(unread, read_ahead(HashedImage.hashed, images, 64), strict=True):
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
        began = time.monotonic()
        vectors = self._clip.encode_images(images, self._wanted.batch_size, on_error=failed.__setitem__)
        rate = len(images) / max(time.monotonic() - began, 1e-9)
        self._chunk = max(min(_CHUNK, self._wanted.batch_size), min(_CHUNK, int(rate * _SAVE_EVERY)))
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
        """The name, or one that no row has yet."""
        self._ids[name] += 1
        if self._ids[name] == 1:
            return name
        self._renamed += 1
        while (other := f"{name}#{self._ids[name]}") in self._ids:  # a row may be called so from the beginning
            self._ids[name] += 1
        self._ids[other] = 1
        return other


def _image_of(entry: Entry) -> str:
    """The path of the image, or what messages call it."""
    return entry.record.name if entry.record.file is None else os.path.abspath(entry.record.file)


def digest(cells: Mapping[str, str]) -> bytes:
    """What tells a row from every other."""
    return hashlib.blake2b(repr(sorted(cells.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()
