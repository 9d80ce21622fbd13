"""Image-caption pairs of any kind, one at a time: the contract between those who keep pairs and those who use them.

Readers: `tables.py`, `webdataset.py`, `builds.py`, and `mixture.py` for several at once; `open_pairs.py` chooses by the source.

Several sources at once, each with a weight: how often it is seen, whatever its size.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from PIL import Image

from biomedclip_jax.data.images.load import LazyImage, load_image
from biomedclip_jax.errors import UserError

Reject = dict[str, str]  # "row" (from 1), "image" (its name) and "reason" of a record that cannot be used


@dataclass(frozen=True, kw_only=True)
class Texts:
    """captions: at least one, if captions were asked for. references: paragraphs that mention the figure. label: the same."""

    captions: tuple[str, ...]
    references: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair(Texts):
    """image: a file, or its content, still encoded. name: what messages call it."""

    image: Path | bytes
    name: str

    @staticmethod
    def of(image: Path | bytes, name: str, texts: Texts) -> "Pair":
        """The image and what belongs to it."""
        return Pair(image=image, name=name, captions=texts.captions, references=texts.references, label=texts.label)


class Pairs(Protocol):
    """n pairs with random access, from several threads at once; picklable, for the loader's worker processes."""

    @property
    def rejects(self) -> list[Reject]:
        """What was left out when the pairs were opened."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """UserError if the record cannot be read."""
        ...

    def texts(self, index: int) -> Texts:
        """What belongs to the image, without reading the image where that is possible. UserError as above."""
        ...

    def name(self, index: int) -> str:
        """What messages call the image."""
        ...


@dataclass(frozen=True)
class ImageOf(LazyImage):
    """The image of a pair, read and decoded when it is asked for."""

    pairs: Pairs
    index: int

    def load(self) -> Image.Image:
        """UserError, which names the image, if it cannot be read."""
        pair = self.pairs[self.index]
        return load_image(pair.image, pair.name)


@dataclass(frozen=True)
class Subset:
    """The pairs at these positions."""

    pairs: Pairs
    positions: list[int]
    rejects: list[Reject]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[self.positions[index]]

    def texts(self, index: int) -> Texts:
        return self.pairs.texts(self.positions[index])

    def name(self, index: int) -> str:
        return self.pairs.name(self.positions[index])


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
    """The line of `rejects.jsonl` for a record that turned out to be unusable."""
    return {"row": str(index + 1), "image": pairs.name(index), "reason": str(error)}


class Mixture:
    """The pairs of all sources, one source after the other; `weights` is for those who draw from it (`loader.py`)."""

    def __init__(self, sources: Sequence[Pairs], weights: Sequence[float]):
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
        source, inside = self._find(index)
        return source.texts(inside)

    def name(self, index: int) -> str:
        source, inside = self._find(index)
        return source.name(inside)

    def _find(self, index: int) -> tuple[Pairs, int]:
        number = bisect_right(self.starts, index) - 1
        return self.sources[number], index - self.starts[number]
