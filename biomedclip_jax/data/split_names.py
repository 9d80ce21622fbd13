"""Splits: how a user writes one (`FOLDER:train`), and by which names data sets call the same one."""

import re
from collections.abc import Iterable

from biomedclip_jax.errors import UserError

SPLITS: dict[str, tuple[str, ...]] = {  # the first is what we call it
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_WITH_SPLIT = re.compile(r"(?P<source>.+?):(?P<split>[A-Za-z_]\w*(\[[^\]]*\])?)")  # of 10 %: train[:10%]


def split_of(text: str) -> tuple[str, str | None]:
    """Divide `SOURCE:train` or `SOURCE:train[:10%]` into source and split; the split is None where none is written."""
    found = _WITH_SPLIT.fullmatch(text)
    return (found["source"], found["split"]) if found else (text, None)


def names_of(split: str) -> tuple[str, ...]:
    """All names that a split may have in a data set ("validation": also "valid", "val", "dev"), the given one first."""
    known = next((names for names in SPLITS.values() if split.lower() in names), ())
    return (split, *(name for name in known if name != split))


def matching_split(source: object, split: str, existing: Iterable[str]) -> str:
    """The name that `split` has among the existing splits of a source. UserError, which lists them, if none is meant."""
    by_name = {name.lower(): name for name in existing}
    found = next((by_name[name] for name in names_of(split) if name in by_name), None)
    if found is None:
        raise UserError(f"{source}: no split {split!r}; there are: {', '.join(by_name.values()) or 'none'}")
    return found


def require_whole(source: object, split: str, hint: str) -> None:
    """UserError unless `split` is "test": a source without splits is something to evaluate on, nothing to train on."""
    if split != "test":
        raise UserError(f"{source}: has no splits, so there is no {split!r}; {hint}")
