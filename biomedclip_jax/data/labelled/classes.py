"""Names of classes: their order, which of them a label means, and the labels of a batch as numbers."""

from collections.abc import Iterable, Sequence

import numpy as np

from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError

_MOST = 1_000  # classes; a column with more different values holds something else


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: sorted by number where all are whole numbers, else by letter."""
    different = set(names)
    return tuple(sorted(different, key=int) if all(name.isdecimal() for name in different) else sorted(different))


def classes_of(source: object, names: Iterable[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """The classes of a source: the known ones, else the names in order.

    UserError for fewer than two, for more than any classification has, and for a name that is not among the known
    ones.
    """
    found = in_order(names)
    if known is not None:
        if unknown := [name for name in found if name not in known]:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UserError(f"{source}: unknown class {unknown[0]!r}{more}; expected {', '.join(known)}")
        return tuple(known)
    if len(found) < 2:
        raise UserError(
            f"{source}: {len(found)} class{'es' * (not found)}{': ' * bool(found)}{''.join(found)}; expected at least two"
        )
    if len(found) > _MOST:
        raise UserError(
            f"{source}: {len(found)} different labels, the first {found[0]!r}; are these classes? at most {_MOST:,}"
        )
    return found


def names_in(label: str, separator: str | None) -> list[str]:
    """The labels of one image, from the text that a data set has for them."""
    names = [label] if separator is None else label.split(separator)
    return [name.strip() for name in names if name.strip()]


def classes_in(pairs: Pairs, separator: str | None = None) -> tuple[str, ...]:
    """All labels of a data set, sorted; every record is looked at. UserError if there are fewer than two."""
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
    """The labels of n images as bool [n, C], true where an image is of that class. UserError for a label that is no
    class.
    """
    indices = {name: index for index, name in enumerate(classes)}
    rows = np.zeros((len(labels), len(classes)), bool)
    for row, label in zip(rows, labels, strict=True):
        for name in names_in(label or "", separator):
            if name not in indices:
                raise UserError(f"label {name!r}: not among the training data's: {', '.join(classes)}")
            row[indices[name]] = True
    return rows


def some_of_each(labels: Sequence[object], per_class: int, seed: int = 0) -> list[int]:
    """Positions, in order, of `per_class` randomly drawn items of each label, or of all items of a label with fewer."""
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(set(labels), key=str):
        own = [position for position, each in enumerate(labels) if each == label]
        chosen += own if len(own) <= per_class else generator.choice(own, per_class, replace=False).tolist()
    return sorted(chosen)
