"""Held-out images that are training images, found by path or by content, in seconds also where there are millions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.identity import ENDS, UNREADABLE, image_mark
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError

_MOST = 20_000  # images of each side that are looked at
_MOST_BYTES = 1 << 28  # of each side that are read: contents in tars and builds, and ends of files of the same size


@dataclass(frozen=True)
class SameImages:
    """Held-out images that are training images, by the names of both, and how many were looked at on each side."""

    names: list[tuple[str, str]]
    compared: int
    looked: int
    complete: bool


@dataclass(frozen=True)
class _Encoded:
    """An image as it is encoded: a file that nobody has opened yet, or what is left of a content that was read."""

    name: str
    size: int
    path: Path | None
    mark: str | None = None


def held_out_in_training(pairs: Pairs, held_out: Pairs) -> SameImages:
    """Compare all images, or a sample of each side where there are many.

    A file is read where the other side has an image of the same size. What cannot be read is left to those who decode it.
    """
    learned, tested = list(_images(pairs)), list(_images(held_out))
    shared = {each.size for each in learned} & {each.size for each in tested}
    names: dict[str, str] = {}
    budget = _MOST_BYTES
    for each in learned:
        if each.path is not None:
            names.setdefault(str(each.path.resolve()), each.name)
        if each.size in shared and budget > 0:
            names.setdefault(_mark(each), each.name)
            budget -= 2 * ENDS
    found = []
    for each in tested:
        keys = [str(each.path.resolve())] if each.path is not None else []
        same = next((names[key] for key in keys if key in names), None)
        if same is None and each.size in shared:
            same = names.get(_mark(each))
        if same is not None:
            found.append((each.name, same))
    complete = budget > 0 and (len(learned), len(tested)) == (len(pairs), len(held_out))
    return SameImages(found, len(tested), len(learned), complete)


def _images(pairs: Pairs) -> Iterator[_Encoded]:
    """Images at random positions, the same ones each time."""
    chosen = range(len(pairs)) if len(pairs) <= _MOST else np.random.default_rng(0).choice(len(pairs), _MOST, replace=False)
    read = 0
    for index in chosen:
        try:
            pair = pairs[int(index)]
            image = pair.image
            if isinstance(image, Path):
                yield _Encoded(pair.name, image.stat().st_size, image)
                continue
        except (UserError, OSError):
            continue
        read += len(image)
        if read > _MOST_BYTES:
            return
        yield _Encoded(pair.name, len(image), None, image_mark(image))


def _mark(image: _Encoded) -> str:
    """The same for two images with the same content; a name of its own for a file that cannot be read."""
    mark = image.mark or image_mark(image.path or b"")
    return image.name if mark == UNREADABLE else mark
