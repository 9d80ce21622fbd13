"""Pictures that are the same or nearly so: copies of one file, and one picture stored smaller, brighter or otherwise.

Nearly the same are two pictures whose differences between neighbouring areas, of 16 x 16, correlate by 0.95 or more.
docs/decisions.md says what this was measured on.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import ImageSource, load_image
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead
from biomedclip_jax.support.terminal import progress_bar

MOST = 20_000  # pictures: all are compared with all
_SIDE = 16
NEAR = 0.95  # correlation
_FLAT = 16.0  # length of the differences, in gray values; blank pictures are no near duplicates of each other
_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of a picture. size: width and height in pixels. digest: of the file; b"" where there is none.

    differences: between neighbouring areas, float32 [512], of unit length, or 0 where there is next to none.
    """

    size: tuple[int, int]
    digest: bytes
    differences: np.ndarray


def look_at(images: Sequence[ImageSource]) -> list[Look | UserError]:
    """Look at each picture, on threads; a UserError in the place of one that cannot be read."""
    return list(looks(images, "picture"))


def looks(images: Sequence[ImageSource], unit: str) -> Iterator[Look | UserError]:
    """The same one after the other, for more pictures than one can hold. unit: what a bar calls them."""
    with progress_bar(len(images), unit) as bar:
        for each in read_ahead(_look, images, 16):
            bar.update()
            yield each


def content_digest(image: str | Path | bytes) -> bytes:
    """SHA-256 of an image file, or of an image as it is encoded. OSError for a file that cannot be read."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _look(image: ImageSource) -> Look:
    if isinstance(image, ImageOf):
        pair = image.pairs[image.index]
        picture, image = load_image(pair.image, pair.name), pair.image
    else:
        picture = load_image(image)
    try:
        digest = content_digest(image) if isinstance(image, bytes | str | Path) else b""
    except OSError as error:
        raise UserError(f"{image}: cannot be read ({error.strerror})") from error
    side = _SIDE + 1
    gray = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BICUBIC), np.float32)
    across, down = gray[:-1, 1:] - gray[:-1, :-1], gray[1:, :-1] - gray[:-1, :-1]
    differences = np.concatenate([across.ravel(), down.ravel()])
    length = np.linalg.norm(differences)
    return Look(picture.size, digest, differences / length if length > _FLAT else np.zeros_like(differences))


class Groups:
    """Things that belong together, joined one pair at a time (union by the smaller number)."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def join(self, first: int, second: int) -> None:
        """Put the groups of two things together."""
        first, second = self.of(first), self.of(second)
        self._parent[max(first, second)] = min(first, second)

    def join_equal(self, keys: Iterable[object]) -> None:
        """Put together what has the same key; None is no key."""
        first: dict[object, int] = {}
        for index, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, index), index)

    def of(self, index: int) -> int:
        """The smallest member of the group that a thing is in."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index


def near_pairs(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of pictures that are the same or nearly so. UserError for more than `MOST`."""
    if len(looks) > MOST:
        raise UserError(f"{len(looks):,} pictures: expected at most {MOST:,}, because each is compared with all others")
    found: list[tuple[int, int]] = []
    first: dict[bytes, int] = {}
    for index, look in enumerate(looks):
        if look.digest and (other := first.setdefault(look.digest, index)) != index:
            found.append((other, index))
    for start in range(0, len(looks), _AT_ONCE):
        alike = alike_as(looks[start : start + _AT_ONCE], looks)
        found += [(start + i, j) for i, j in np.argwhere(alike >= NEAR).tolist() if start + i < j]
    return found


def alike_as(some: Sequence[Look], others: Sequence[Look]) -> np.ndarray:
    """How nearly each of some pictures is each of the others, float32 [some, others], 1 for the same; see `NEAR`."""
    if not some or not others:
        return np.zeros((len(some), len(others)), np.float32)
    return np.stack([look.differences for look in some]) @ np.stack([look.differences for look in others]).T
