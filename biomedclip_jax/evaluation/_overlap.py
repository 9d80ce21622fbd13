"""Images that are in the training data and in the test data, too: what is learned from them is no measure of anything."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.errors import UserError


def images_in_both(train: Labelled, test: Labelled) -> list[tuple[str, str]]:
    """(name in the test data, name in the training data) of the images that both hold, by path or byte by byte.

    Files are read where both sides have one of the same size; members of tars and builds are all read. Images that are
    neither, such as rows of an array, are not compared. What cannot be read is left to those who decode it.
    """
    sides = [list(_encoded(data)) for data in (train, test)]
    in_train, in_test = ({_size(image) for _, image in side} for side in sides)
    shared = in_train & in_test
    found: dict[str, str] = {}
    for name, image in sides[0]:
        if _size(image) in shared:
            found.setdefault(_digest(image), name)
    return [(name, found[mark]) for name, image in sides[1] if _size(image) in shared and (mark := _digest(image)) in found]


def _encoded(data: Labelled) -> Iterable[tuple[str, Path | bytes]]:
    """The name of each image, with its file or its content as it is encoded."""
    for name, image in zip(data.names, data.images, strict=True):
        try:
            if isinstance(image, ImageOf):
                yield name, image.pairs[image.index].image
            elif isinstance(image, str | Path) and Path(image).is_file():
                yield name, Path(image)
        except UserError:
            continue


def _size(image: Path | bytes) -> int:
    return len(image) if isinstance(image, bytes) else image.stat().st_size


def _digest(image: Path | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
