"""Image-caption pairs of any kind, one at a time: the contract between those who keep pairs and those who use them.

Readers are `tables`, `webdataset` and `tfds_read`, and `Mixture` here for several at once; `sources` chooses among
them.

At the end are hashes that change when the data do: embeddings that were computed once are kept under them.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from PIL import Image

from biomedclip_jax.data.identity import Identity, digest
from biomedclip_jax.data.images.load import LazyImage, load_image
from biomedclip_jax.errors import UserError

_ENDS = 128 * 1024  # bytes of each end of a file that are hashed


@dataclass(frozen=True)
class Reject:
    """A record that cannot be used; a line of `rejects.jsonl` has these fields.

    row: its number in the source, from 1, as text. image: what messages call its image. reason: one line.
    """

    row: str
    image: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What belongs to an image besides its pixels.

    captions: at least one, if captions were asked for. references: paragraphs that mention the figure. label: the name
    of its class, or several names in one text, where a label was asked for.
    """

    captions: tuple[str, ...]
    references: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair(Texts):
    """An image with its texts. image: a file, or its content, still encoded. name: what messages call it."""

    image: Path | bytes
    name: str


class Pairs(Protocol):
    """n pairs with random access, from several threads at once; picklable, for the loader's worker processes."""

    @property
    def rejects(self) -> list[Reject]:
        """The records that were left out when the pairs were opened."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """The pair at a position from 0 to n - 1. UserError if the record cannot be read."""
        ...

    def texts(self, index: int) -> Texts:
        """The texts at a position, without reading the image where that is possible. UserError as above."""
        ...

    def name(self, index: int) -> str:
        """The name that messages give to the image at a position."""
        ...

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        ...

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie; one for each source."""
        ...


@dataclass(frozen=True)
class ImageOf(LazyImage):
    """The image of a pair, read and decoded when it is asked for."""

    pairs: Pairs
    index: int

    def load(self) -> Image.Image:
        """Read and decode the image. UserError, which names it, if that fails."""
        pair = self.pairs[self.index]
        return load_image(pair.image, pair.name)


@dataclass(frozen=True)
class Subset:
    """Some of the pairs, in the order of `positions`."""

    pairs: Pairs
    positions: list[int]
    rejects: list[Reject]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[self.positions[index]]

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        return self.pairs.texts(self.positions[index])

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        return self.pairs.name(self.positions[index])

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"Subset {len(self)}"
        yield from self.pairs.image_versions()
        yield fingerprint(map(str, self.positions))

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie: those that they were chosen from, and the choice."""
        chosen = digest([str(position).encode() for position in self.positions])
        return tuple(replace(whole, files=f"{whole.files} {chosen}") for whole in self.pairs.identities())


def with_readable_texts(pairs: Pairs) -> Pairs:
    """The pairs whose texts can be read, all of which are read once; the others are in `rejects`."""
    kept, rejects = [], list(pairs.rejects)
    for index in range(len(pairs)):
        try:
            pairs.texts(index)
        except UserError as error:
            rejects.append(reject(pairs, index, error))
        else:
            kept.append(index)
    return pairs if len(kept) == len(pairs) else Subset(pairs, kept, rejects)


def reject(pairs: Pairs, index: int, error: UserError) -> Reject:
    """The `Reject` for a record that turned out to be unusable when it was read."""
    return Reject(str(index + 1), pairs.name(index), str(error))


def first_reject(rejects: Sequence[Reject]) -> str:
    """The end of a message that nothing is left: "; the first: IMAGE, REASON", or nothing where nothing was rejected."""
    return f"; the first: {rejects[0].image}, {rejects[0].reason}" if rejects else ""


class Mixture:
    """The pairs of all sources, one source after the other; `weights` says how often the loader draws from each."""

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float]):
        """weights: one for each source, relative to each other; the sizes of the sources do not matter."""
        self.weights = tuple(weights)
        self.lengths = [len(source) for source in sources]
        self.rejects: list[Reject] = [reject for source in sources for reject in source.rejects]
        self.sources = list(sources)
        self.starts = [0, *accumulate(self.lengths)][:-1]

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, index: int) -> Pair:
        source, inside = self._find(index)
        return source[inside]

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        source, inside = self._find(index)
        return source.texts(inside)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        source, inside = self._find(index)
        return source.name(inside)

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"Mixture {len(self)}"
        for source in self.sources:
            yield from source.image_versions()

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, wherever they lie; one for each source."""
        return tuple(identity for source in self.sources for identity in source.identities())

    def source_of(self, index: int) -> tuple[int, int]:
        """The first position of the source that a pair is from, and the size of that source."""
        number = self._number_of(index)
        return self.starts[number], self.lengths[number]

    def _find(self, index: int) -> tuple[Pairs, int]:
        number = self._number_of(index)
        return self.sources[number], index - self.starts[number]

    def _number_of(self, index: int) -> int:
        return bisect_right(self.starts, index) - 1


def fingerprint(parts: Iterable[str]) -> str:
    """A hash (32 hexadecimal digits) of some strings in their order; ["ab", "c"] and ["a", "bc"] differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


def file_fingerprint(paths: Iterable[Path]) -> str:
    """A hash of files by path and `file_mark`. OSError for a file that is missing."""
    return fingerprint(f"{os.path.abspath(path)} {file_mark(path)}" for path in paths)


def file_state(path: str) -> str:
    """Path and `file_mark` of a file in one string, which also says so if the file is missing."""
    try:
        return f"{os.path.abspath(path)} {file_mark(path)}"
    except OSError:
        return f"{path} is not there"


def file_mark(path: str | Path) -> str:
    """Size, time of last change and a digest of a file: of all of it up to 256 kB, else of its ends.

    A time stamp alone is no identity: copies and archives keep it. To read terabytes of images would take hours.
    OSError if the file is missing.
    """
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(_ENDS))
        if state.st_size > 2 * _ENDS:
            file.seek(-_ENDS, os.SEEK_END)
        digest.update(file.read(_ENDS))
    return f"{state.st_size} {state.st_mtime_ns} {digest.hexdigest()[:32]}"


def pairs_fingerprint(pairs: Pairs) -> str:
    """A hash of the captions of some pairs, and of what their images depend on (`Pairs.image_versions`).

    The captions are read once, the images not at all.
    """
    return fingerprint([*pairs.image_versions(), fingerprint(_captions(pairs))])


def _captions(pairs: Pairs) -> Iterator[str]:
    for index in range(len(pairs)):
        try:
            captions = pairs.texts(index).captions
        except UserError as error:
            captions = (str(error),)
        yield str(len(captions))
        yield from captions
