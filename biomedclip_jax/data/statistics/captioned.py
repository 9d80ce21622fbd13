"""The pictures of a data set one by one, each with its caption, and what a model sees in them beside their words.

A model itself is no business of this room: `evaluation.figure_types` asks one, and gives back a `TypesSeen`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from biomedclip_jax.data.images.load import LazyImage, load_image
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.data.pmc.figure_types import MIXED, UNKNOWN
from biomedclip_jax.data.statistics._counts import BuildShard, Part, SomePairs
from biomedclip_jax.errors import UserError


@dataclass(frozen=True)
class CaptionedPicture:
    """The picture of a whole figure, decoded when it is asked for, and its caption."""

    image: LazyImage
    caption: str


@dataclass(frozen=True)
class _Encoded(LazyImage):
    data: bytes
    name: str

    def load(self) -> Image.Image:
        """Decode the image. UserError, which names it, if that fails."""
        return load_image(self.data, self.name)


def captioned_pictures(part: Part) -> Iterator[CaptionedPicture]:
    """The pictures of a part of a data set, one after the other; panels of figures are left out.

    A pair whose texts cannot be read has no caption, and says why when its picture is asked for.
    """
    if isinstance(part, BuildShard):
        for record in part.features():
            if not record.get("panel"):
                yield CaptionedPicture(_Encoded(record["image"], _text(record["pair_id"])), _text(record["caption"]))
    elif isinstance(part, SomePairs):
        from biomedclip_jax.data.sources import open_pairs

        pairs = open_pairs(part.source, *part.columns)
        for index in range(part.start, part.stop):
            try:
                caption = pairs.texts(index).captions[0]
            except UserError:
                caption = ""
            yield CaptionedPicture(ImageOf(pairs, index), caption)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@dataclass
class TypesSeen:
    """Types of figures by a model's look at their pictures, beside those that the words of their captions tell.

    model: its name, and the fingerprint of its weights. pairs: (type by words, type by picture) -> pictures. unreadable:
    pictures that could not be read, which are in no count; the first of them says why.
    """

    model: str
    fingerprint: str
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: str = ""

    def by_picture(self) -> dict[str, int]:
        """The pictures of each type that the model sees, most frequent first."""
        found: Counter[str] = Counter()
        for (_, seen), n in self.pairs.items():
            found[seen] += n
        return dict(found.most_common())

    def by_words(self) -> dict[str, dict[str, int]]:
        """For each type by words, how often the model sees which."""
        found: dict[str, Counter[str]] = {}
        for (told, seen), n in self.pairs.items():
            found.setdefault(told, Counter())[seen] += n
        order = sorted(found, key=lambda told: (-found[told].total(), told))
        return {told: dict(found[told].most_common()) for told in order}

    def agreement(self) -> tuple[int, int]:
        """(pictures of which words and model tell the same type, pictures of which both tell one type)."""
        both = {pair: n for pair, n in self.pairs.items() if pair[0] not in (MIXED, UNKNOWN) and pair[1] != UNKNOWN}
        return sum(n for (told, seen), n in both.items() if told == seen), sum(both.values())

    def to_json(self) -> dict[str, Any]:
        """The JSON object of it."""
        same, both = self.agreement()
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "pictures": self.pairs.total(),
            "unreadable": self.unreadable,
            "by picture": self.by_picture(),
            "both tell one type": both,
            "and the same": same,
            "by words, then by picture": self.by_words(),
        }
