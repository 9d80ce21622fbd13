"""Images that are in the training data and in the test data, too: what is learned from them is no measure of anything."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import ImageOf
from biomedclip_jax.errors import UserError


def images_in_both(train: Labelled | MultiLabelled, test: Labelled | MultiLabelled) -> list[tuple[str, str]]:
    """(name in the test data, name in the training data) of the images that both hold, by path or byte by byte.

    Files are read where both sides have one of the same size; members of tars and builds are all read. Images that are
    neither, such as rows of an array, are not compared. What cannot be read is left to those who decode it.
    """
    learned, tested = list(_encoded(train)), list(_encoded(test))
    shared = {size for _, _, size in learned} & {size for _, _, size in tested}
    found: dict[str, str] = {}
    for name, image, size in learned:
        if size in shared:
            found.setdefault(_digest(image), name)
    marks = ((name, _digest(image)) for name, image, size in tested if size in shared)
    return [(name, found[mark]) for name, mark in marks if mark in found]


def _encoded(data: Labelled | MultiLabelled) -> Iterator[tuple[str, Path | bytes, int]]:
    """The name of each image, its file or its content as it is encoded, and the size of that in bytes."""
    for name, image in zip(data.names, data.images, strict=True):
        if isinstance(image, ImageOf):
            try:
                image = image.pairs[image.index].image
            except UserError:
                continue
        if isinstance(image, bytes):
            yield name, image, len(image)
        elif isinstance(image, str | Path) and (path := Path(image)).is_file():
            yield name, path, path.stat().st_size


def _digest(image: Path | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
