"""What can be wrong with data as a whole: labels that are no classes, splits that contradict, parts that tell nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.names import classes_of
from biomedclip_jax.data.own_rows import OwnData, Row
from biomedclip_jax.errors import UserError
from biomedclip_jax.prompts.templates import check_words, in_words


def check_labels(data: Sequence[OwnData], lines: list[str]) -> None:
    """UserError for labels that are several in one, numbers, or two that say the same.

    data: the user's own and the held-out ones. Where they have captions, such labels are taken away instead, with a line.
    """
    names = {row.label for each in data for row in each.rows if row.label is not None}
    captioned = all(each.captioned for each in data)
    if captioned and len(names) < 2:
        return
    source = data[0].source
    try:
        if len(names) > 1:
            _check_names(source, classes_of(source, names, None))
    except UserError as error:
        if not captioned:
            raise
        lines.append(f"only the captions are used, because {error}")
        for each in data:
            each.rows[:] = [dataclasses.replace(row, label=None) for row in each.rows]


def _check_names(source: str, classes: Sequence[str]) -> None:
    check_words(source, classes, "write words into the label column: the model reads them")
    said: dict[str, str] = {}
    for name in classes:
        if (other := said.setdefault(in_words(name).casefold(), name)) != name:
            raise UserError(f"{source}: labels {other!r} and {name!r} say the same; write it in one way")


def tell_group_columns_apart(data: Sequence[OwnData], lines: list[str]) -> None:
    """A line where groups of the training data cannot be looked for among the held-out ones.

    Values of columns of different meaning are no longer equal then.
    """
    if len({_spelled(each.group_column) for each in data}) < 2:
        return
    named = [f"{each.source} has {each.group_column or 'no such column'}" for each in data]
    lines.append(f"nothing shows whether a patient is in both: {', '.join(named)}")
    for each in data:
        for i, row in enumerate(each.rows):
            if row.group is not None:
                each.rows[i] = dataclasses.replace(row, group=f"{each.group_column} {row.group}")


def _spelled(column: str | None) -> str:
    return "".join(filter(str.isalnum, (column or "").lower()))


def check_splits(data: OwnData, held_out: OwnData) -> None:
    """UserError for training rows that their own data call test rows, and for held-out rows that are called training rows."""
    for each, wrong, name in ((data, ("validation", "test"), "train"), (held_out, ("train",), "test")):
        if not any(row.split in wrong for row in each.rows):
            continue
        where = Path(each.source)
        asked = f"{where / name}" if where.is_dir() else f"{each.source}:{name}"
        raise UserError(
            f"{each.source}: some of its rows are of the split {' or '.join(wrong)}; with --held-out take one split of it, "
            f"such as {asked}, or leave --held-out out"
        )


def check_judged(source: str, part: str, learned: Sequence[Row], judged: Sequence[Row]) -> None:
    """UserError for rows to judge by that all say the same, or whose labels are none of those that were learned."""
    said = {row.captions[:1] or row.label for row in judged}
    if len(said) < 2:
        what = judged[0].captions[0] if judged[0].captions else judged[0].label
        raise UserError(
            f"{source}: all {len(judged)} pictures of the part {part} are {what!r}; expected two or more different "
            "captions or labels to judge by"
        )
    if judged[0].captions:
        return
    names = [sorted({row.label or "" for row in rows}) for rows in (judged, learned)]
    if not set(names[0]) & set(names[1]):
        told = [", ".join(each[:5]) for each in names]
        raise UserError(f"{source}: its labels ({told[0]}) are none of the training data's ({told[1]})")
