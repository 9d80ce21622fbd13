"""The splits of a data set, by the different names that they have."""

from collections.abc import Iterable

from biomedclip_jax.errors import UserError

SPLITS: dict[str, tuple[str, ...]] = {  # the first is what we call it
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def names_of(split: str) -> tuple[str, ...]:
    """What a split may be called, the given name first."""
    known = next((names for names in SPLITS.values() if split.lower() in names), ())
    return (split, *(name for name in known if name != split))


def split_there(source: object, split: str, there: Iterable[str]) -> str:
    """What `split` is called among the splits that are there. UserError, which lists them, if it is not."""
    by_name = {name.lower(): name for name in there}
    found = next((by_name[name] for name in names_of(split) if name in by_name), None)
    if found is None:
        raise UserError(f"{source}: no split {split!r}; there are: {', '.join(by_name.values()) or 'none'}")
    return found


def require_whole(source: object, split: str, hint: str) -> None:
    """UserError unless `split` is "test": a source without splits is something to evaluate on, nothing to train on."""
    if split != "test":
        raise UserError(f"{source}: has no splits, so there is no {split!r}; {hint}")
