"""Images of known classes: the contract between readers of labelled data and the tasks that need labels."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data._table_rows import not_there
from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject, file_fingerprint, fingerprint, first_reject
from biomedclip_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """n images, each of one class.

    name: of the data, for messages and tables. classes: C names, in the order of the class indices.
    images: decoded only when asked for (paths, `LazyImage`s, arrays ...). names: what messages and pictures call each
    image.
    labels: int64 [n], class indices from 0 to C - 1.
    fingerprint: changes when an image, or their order, does; embeddings are cached under it.
    rejects: what was left out when the data were opened, and why. whole: how many images there are where nothing is
    missing, None where that is not known. caveats: what has to be said beside every number of these data.
    groups: what each image belongs to, such as a patient, in one spelling; None where each stands for itself. grouped_by:
    what messages call a group.
    """

    name: str
    classes: tuple[str, ...]
    images: Sequence[ImageSource]
    names: Sequence[str]
    labels: np.ndarray
    fingerprint: str
    rejects: tuple[Reject, ...] = ()
    whole: int | None = None
    caveats: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    grouped_by: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: np.ndarray) -> "Labelled":
        """The images at these positions (int [m]), in this order; without rejects and caveats."""
        chosen = [int(i) for i in positions]
        return Labelled(
            name=self.name,
            classes=self.classes,
            images=[self.images[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            labels=self.labels[chosen],
            fingerprint=fingerprint([self.fingerprint, *map(str, chosen)]),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
            grouped_by=self.grouped_by,
        )


def labelled_files(
    name: str,
    classes: Sequence[str],
    found: Sequence[tuple[Path, int]],
    rejects: Sequence[Reject] = (),
    caveats: Sequence[str] = (),
) -> Labelled:
    """Labelled images from image files, each with its class index. UserError if there is none."""
    if not found:
        raise UserError(f"{name}: no usable image, {len(rejects)} left out{first_reject(rejects)}")
    paths = [path for path, _ in found]
    return Labelled(
        name=name,
        classes=tuple(classes),
        images=paths,
        names=[str(path) for path in paths],
        labels=np.array([label for _, label in found], np.int64),
        fingerprint=file_fingerprint(paths),
        rejects=tuple(rejects),
        caveats=tuple(caveats),
    )


def existing_files(rows: Iterable[tuple[str, Path, int]]) -> tuple[list[tuple[Path, int]], list[Reject]]:
    """Divide rows (number, image file, class index) into those for `labelled_files` and those whose file does not
    exist.
    """
    found: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for number, image, label in rows:
        if os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
            found.append((image, label))
        else:
            rejects.append(Reject(number, str(image), not_there(image)))
    return found, rejects


def labels_fingerprint(data: Labelled) -> str:
    """A hash that changes when an image, a label, the classes or the order of one of these does."""
    return fingerprint([data.fingerprint, *data.classes, *map(str, data.labels.tolist())])
