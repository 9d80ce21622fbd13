"""Names of classes: their order, and which one a label is."""

from collections.abc import Iterable, Sequence

from biomedclip_jax.errors import UserError

_MOST = 1_000  # classes; a column with more different values holds something else


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by number where all are whole numbers, else by letter."""
    different = set(names)
    return tuple(sorted(different, key=int) if all(name.isdecimal() for name in different) else sorted(different))


def classes_of(source: object, names: Iterable[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """The classes of a source: the known ones, else the names in order.

    UserError for fewer than two, for more than any classification has, and for a name that is not among the known ones.
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
