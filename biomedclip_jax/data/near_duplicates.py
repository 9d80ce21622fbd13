"""Pictures that are the same or nearly so: copies of one file, and one picture stored smaller, brighter or otherwise.

Nearly the same are two pictures whose differences between neighbouring areas, of 16 x 16, correlate by 0.95 or more.
docs/decisions.md says what this was measured on.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead
from biomedclip_jax.support.terminal import progress_bar

MOST = 20_000  # pictures: all are compared with all
_SIDE = 16
_NEAR = 0.95  # correlation
_FLAT = 16.0  # length of the differences, in gray values; blank pictures are no near duplicates of each other
_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of a picture. size: width and height in pixels. digest: of the file.

    differences: between neighbouring areas, float32 [512], of unit length, or 0 where there is next to none.
    """

    size: tuple[int, int]
    digest: bytes
    differences: np.ndarray


def look_at(paths: Sequence[str]) -> list[Look | UserError]:
    """Look at each picture, on threads; a UserError in the place of one that cannot be read."""
    found: list[Look | UserError] = []
    with progress_bar(len(paths), "picture") as bar:
        for each in read_ahead(_look, paths, 16):
            found.append(each)
            bar.update()
    return found


def _look(path: str) -> Look:
    picture = load_image(path)
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
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
    differences = np.stack([look.differences for look in looks]) if looks else np.zeros((0, 1), np.float32)
    found: list[tuple[int, int]] = []
    first: dict[bytes, int] = {}
    for index, look in enumerate(looks):
        if (other := first.setdefault(look.digest, index)) != index:
            found.append((other, index))
    for start in range(0, len(looks), _AT_ONCE):
        alike = differences[start : start + _AT_ONCE] @ differences.T
        found += [(start + i, j) for i, j in np.argwhere(alike >= _NEAR).tolist() if start + i < j]
    return found
