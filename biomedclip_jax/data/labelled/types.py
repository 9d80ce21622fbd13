"""Images of known classes: the contract between readers of labelled data and the tasks that need labels."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """n images, each of one class.

    classes: names, in the order of the labels. images: decoded only when asked for (paths, `LazyImage`s, arrays ...).
    names: what messages and pictures call each image. labels: int64 [n], positions in `classes`.
    fingerprint: changes when an image, or their order, does; embeddings are cached under it.
    rejects: what was left out when the data were opened, and why.
    """

    name: str
    classes: tuple[str, ...]
    images: Sequence[ImageSource]
    names: Sequence[str]
    labels: np.ndarray
    fingerprint: str
    rejects: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: np.ndarray) -> "Labelled":
        """The images at these positions, in this order."""
        chosen = [int(i) for i in positions]
        return Labelled(
            name=self.name,
            classes=self.classes,
            images=[self.images[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            labels=self.labels[chosen],
            fingerprint=fingerprint([self.fingerprint, *map(str, chosen)]),
        )


def labelled_files(
    name: str, classes: Sequence[str], found: Sequence[tuple[Path, int]], rejects: Sequence[Reject] = ()
) -> Labelled:
    """Image files, each with the position of its class. UserError if there is none."""
    if not found:
        first = f"; the first: {rejects[0]['image']}, {rejects[0]['reason']}" if rejects else ""
        raise UserError(f"{name}: no usable image, {len(rejects)} left out{first}")
    paths = [path for path, _ in found]
    return Labelled(
        name=name,
        classes=tuple(classes),
        images=paths,
        names=[str(path) for path in paths],
        labels=np.array([label for _, label in found], np.int64),
        fingerprint=file_fingerprint(paths),
        rejects=tuple(rejects),
    )


def files_there(
    rows: Iterable[tuple[str, Path, int]],
) -> tuple[list[tuple[Path, int]], list[Reject]]:
    """Rows (number, image file, position of its class) for `labelled_files`: the usable ones, and those without their file."""
    found: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for number, image, label in rows:
        if os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
            found.append((image, label))
        else:
            rejects.append({"row": number, "image": str(image), "reason": "image file is not there"})
    return found, rejects


def fingerprint(parts: Iterable[str]) -> str:
    """A hash of some strings, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


def file_fingerprint(paths: Iterable[Path]) -> str:
    """Of files, by name, size and time of last change: reading terabytes of images to hash them would take hours."""

    def parts() -> Iterable[str]:
        for path in paths:
            state = path.stat()
            yield f"{path.absolute()} {state.st_size} {state.st_mtime_ns}"

    return fingerprint(parts())
