"""The labels of an image as numbers: which of the classes they are."""

from collections.abc import Sequence

import numpy as np

from biomedclip_jax.data.class_names import in_order
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError


def names_in(label: str, separator: str | None) -> list[str]:
    """The labels of one image, from the text that a data set has for them."""
    names = [label] if separator is None else label.split(separator)
    return [name.strip() for name in names if name.strip()]


def classes_of(pairs: Pairs, separator: str | None = None) -> tuple[str, ...]:
    """All labels of a data set, in order; every record is looked at. UserError if there are fewer than two."""
    found: set[str] = set()
    for index in range(len(pairs)):
        try:
            label = pairs.texts(index).label
        except UserError:  # it is listed when its turn comes
            continue
        found.update(names_in(label or "", separator))
    if len(found) < 2:
        raise UserError(f"the training data have the labels {sorted(found)}; expected two or more to tell apart")
    return in_order(found)


def multi_hot(labels: Sequence[str | None], classes: Sequence[str], separator: str | None = None) -> np.ndarray:
    """bool [n, C] of n images. UserError for a label that is none of the classes."""
    places = {name: place for place, name in enumerate(classes)}
    rows = np.zeros((len(labels), len(classes)), bool)
    for row, label in zip(rows, labels, strict=True):
        for name in names_in(label or "", separator):
            if name not in places:
                raise UserError(f"label {name!r}: not among the training data's: {', '.join(classes)}")
            row[places[name]] = True
    return rows
