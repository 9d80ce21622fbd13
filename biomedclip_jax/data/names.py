"""Names of splits (`FOLDER:train`; "val" and "dev" mean "validation") and of classes (their order, which a label means)."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError

SPLITS: dict[str, tuple[str, ...]] = {  # the first is what we call it
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_SIGNS = "|;,/"  # that join the labels of one image, most likely first
_RARE_SIGNS = ("+", "&", "\\", "\n", " and ", "_")
_MOST = 1_000  # classes; a column with more different values holds something else
_WITH_SPLIT = re.compile(r"(?P<source>.+?):(?P<split>[A-Za-z_]\w*(\[[^\]]*\])?)")  # of 10 %: train[:10%]


def split_of(text: str) -> tuple[str, str | None]:
    """Divide `SOURCE:train` or `SOURCE:train[:10%]` into source and split; the split is None where none is written."""
    found = _WITH_SPLIT.fullmatch(text)
    return (found["source"], found["split"]) if found else (text, None)


def names_of(split: str) -> tuple[str, ...]:
    """All names that a split may have in a data set ("validation": also "valid", "val", "dev"), the given one first."""
    known = next((names for names in SPLITS.values() if split.lower() in names), ())
    return (split, *(name for name in known if name != split))


def no_known_split(own: str, wanted: str) -> str | None:
    """Why a row belongs to no split: what its cell says is empty, or no name of a split; None if it is another split.

    wanted: the split that is asked for. Where its name is one's own (fold1), the others may be, too.
    """
    if not own:
        return "split is empty"
    known = {name for names in SPLITS.values() for name in names}
    if wanted.lower() in known and own.lower() not in known:
        return f"split {own!r} is none of train, validation and test"
    return None


def matching_split(source: object, split: str, existing: Iterable[str]) -> str:
    """The name that `split` has among the existing splits of a source. UserError, which lists them, if none is meant."""
    by_name = {name.lower(): name for name in existing}
    found = next((by_name[name] for name in names_of(split) if name in by_name), None)
    if found is None:
        raise UserError(f"{source}: no split {split!r}; there are: {', '.join(by_name.values()) or 'none'}")
    return found


class NoSplits(UserError):
    """The source is one whole: there is no split of it to ask for."""


def require_whole(source: object, split: str, hint: str) -> None:
    """`NoSplits` unless `split` is "test": a source without splits is something to evaluate on, nothing to train on."""
    if split != "test":
        raise NoSplits(f"{source}: has no splits, so there is no {split!r}; {hint}")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names: sorted by number where all are whole numbers, else by letter."""
    different = set(names)
    return tuple(sorted(different, key=int) if all(name.isdecimal() for name in different) else sorted(different))


def several_classes(source: object, label: object, where: str = "") -> UserError:
    """The error of a label that names several classes, where an image is expected to have one.

    where: which label is meant, if it is in many rows.
    """
    about = f" ({where})" if where else ""
    return UserError(
        f"{source}: label {label!r}{about} names several classes, and an image is expected to have one; if images have "
        "several, say --multi-label (of biomedclip finetune, and of evaluate zero-shot and probe) and --separator SIGN, else "
        "another name"
    )


def combination(names: Sequence[str], signs: str = _SIGNS, rare: Sequence[str] = _RARE_SIGNS) -> str | None:
    """The first name that puts others together, as labels of images that have several do; None where there is none.

    Such are the text of a list, a name with a bar in it, names of the same parts in another order, and a name whose parts,
    at another sign, stand alone in other rows, or of which one does (or "No Finding" stands in one) and all others are
    parts of other names, too. "A/B" is one name where neither A nor B is. Case does not matter.
    signs, rare: that may join names; between rare ones all parts must stand alone.
    """
    alone = {_caseless(name) for name in names}
    says_none = not alone.isdisjoint(("no finding", "no findings"))
    for name in names:
        if name.startswith(("['", '["')) and name.endswith("]"):
            return name
    for sign in (*signs, *rare):
        parts_of = {name: [_caseless(part) for part in name.split(sign)] for name in names if sign in name}
        of_names = Counter(part for parts in parts_of.values() for part in set(parts) - {""})
        orders = Counter(tuple(sorted(parts)) for parts in parts_of.values())
        for name, parts in parts_of.items():
            known = [part in alone for part in parts]
            if sign == "|" or all(known) or (sign in signs and orders[tuple(sorted(parts))] > 1):
                return name
            others = all(found or of_names[part] > 1 for part, found in zip(parts, known, strict=True))
            if sign in signs and (any(known) or says_none) and others:
                return name
    return None


def _caseless(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _number(name: str) -> float | None:
    """The number that a name is, as 1, 01 and 1.0 are."""
    try:
        return float(name) if name[-1:].isdigit() or name.endswith(".") else None
    except ValueError:
        return None


def _seen(name: str) -> str:
    """A name as it is seen: accents composed, without zero-width signs, blanks of any kind and number as one."""
    composed = unicodedata.normalize("NFC", name)
    return " ".join("".join(sign for sign in composed if unicodedata.category(sign) != "Cf").split())


def classes_of(source: object, names: Iterable[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """The classes of a source: the known ones, else the names in order.

    UserError for fewer than two, for more than any classification has, for two names of one number (1 and 01), for two
    that look the same, for a name that puts several together, and for one that is not among the known ones.
    """
    found = in_order(names)
    if known is None and (several := combination(found)) is not None:
        raise several_classes(source, several)
    check_names(source, found)
    if known is not None:
        if unknown := [name for name in found if name not in known]:
            if (several := combination([*found, *known])) in unknown:
                raise several_classes(source, several)
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UserError(f"{source}: unknown class {unknown[0]!r}{more}; expected {', '.join(known)}")
        return tuple(known)
    if len(found) < 2:
        raise UserError(
            f"{source}: {len(found)} class{'es' * (not found)}{': ' * bool(found)}{''.join(found)}; expected at least two"
        )
    return found


def check_names(source: object, found: Sequence[str]) -> None:
    """UserError for more different names than classes or findings ever are, and for two that are one: the same number
    (1 and 01), or alike to look at.
    """
    by_number: dict[float, str] = {}
    for name in found:
        if (number := _number(name)) is not None and (other := by_number.setdefault(number, name)) != name:
            raise UserError(f"{source}: labels {other!r} and {name!r} are the same number; write it in one way")
    by_looks: dict[str, str] = {}
    for name in found:
        if (other := by_looks.setdefault(_seen(name), name)) != name:
            raise UserError(
                f"{source}: labels {other!a} and {name!a} look the same: they differ in blanks, in signs that nobody sees, or "
                "in how an accent is stored; write it in one way"
            )
    if len(found) > _MOST:
        raise UserError(
            f"{source}: {len(found)} different labels, the first {found[0]!r}; are these classes? at most {_MOST:,}"
        )


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
