"""Images of known classes: the contract between readers of labelled data and the tasks that need labels."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images import ImageSource


@dataclass(frozen=True, eq=False)
class Labelled:
    """n images, each of one class.

    classes: names, in the order of the labels. images: decoded only when asked for (paths, `LazyImage`s, arrays ...).
    names: what messages and pictures call each image. labels: int64 [n], positions in `classes`.
    fingerprint: changes when an image, or their order, does; embeddings are cached under it.
    """

    name: str
    classes: tuple[str, ...]
    images: Sequence[ImageSource]
    names: Sequence[str]
    labels: np.ndarray
    fingerprint: str

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
