"""Labelled images with captions made of their labels, as a table with the columns image, caption, label and split.

Rows come from `benchmarks` (CheXpert, RSNA, EMBED, from their own files) or from any table with a column of images.
Training reads a split of the written table as `pairs.csv:train`, evaluation reads its column `split`.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.data._table_rows import Row, image_file, not_there, table_rows, text_of
from biomedclip_jax.data.labelled.captions import Empty, Sentence
from biomedclip_jax.data.names import some_of_each
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.tables import SPLIT_COLUMN
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

COLUMNS = ("image", "caption", "label", SPLIT_COLUMN)


@dataclass(frozen=True)
class LabelledRow:
    """An image and what its tables say of it, by column.

    split: "train", "validation" or "test", "" where there are none. skip: why the image is not to be used, or nothing.
    """

    image: Path
    row: Row
    split: str
    skip: str = ""


@dataclass(frozen=True)
class Written:
    """How many rows each split got, and how many were left out for which reason."""

    splits: Counter[str]
    skipped: Counter[str]


@dataclass(frozen=True)
class _Line:
    image: str
    caption: str
    label: str
    split: str


def write_captions(
    out: Path,
    rows: Iterable[LabelledRow],
    caption: Sentence,
    label: Sentence | None,
    per_class: int | None = None,
    seed: int = 0,
) -> Written:
    """Write a CSV of `COLUMNS`. Paths are relative to it where the image is in its folder or below, else absolute.

    per_class: of the test split only so many rows of each label, drawn with `seed`; of a label with fewer, all.
    Raises UserError if nothing is left; then there is no file.
    """
    kept: list[_Line] = []
    skipped: Counter[str] = Counter()
    for row in rows:
        line = _line(row, caption, label, out.parent.absolute())
        if isinstance(line, str):
            skipped[line] += 1
        else:
            kept.append(line)
    if per_class is not None:
        tests = [line for line in kept if line.split == "test" and line.label]
        chosen = {id(tests[i]) for i in some_of_each([line.label for line in tests], per_class, seed)}
        fewer = [line for line in kept if line.split != "test" or id(line) in chosen]
        if len(kept) > len(fewer):
            skipped["of the test split, not among those drawn"] += len(kept) - len(fewer)
        kept = fewer
    if not kept:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in skipped.most_common())
        raise UserError(f"{out}: no usable row{f' ({reasons})' if reasons else ''}")

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([line.image, line.caption, line.label, line.split] for line in kept)

    write_file(out, write)
    return Written(Counter(line.split for line in kept), skipped)


def _line(row: LabelledRow, caption: Sentence, label: Sentence | None, home: Path) -> _Line | str:
    """The line of a row in a table in the folder `home`, or the reason why it has none."""
    if row.skip:
        return row.skip
    try:
        text, name = caption.fill(row.row), label.fill(row.row) if label else ""
    except Empty as error:
        return f"{error} is empty, or a code without words"
    if not text:
        return "caption is empty"
    if not os.path.isfile(row.image):
        return not_there(row.image)
    image = row.image.absolute()
    shown = image.relative_to(home) if image.is_relative_to(home) else image
    return _Line(str(shown), text, name, row.split)


def rows_of_table(path: Path, image_column: str, sentences: Iterable[Sentence]) -> Iterator[LabelledRow]:
    """The rows of any table, with the columns that the sentences need and, if there is one, the column "split".

    UserError as of `table_rows`.
    """
    columns = dict.fromkeys([image_column, *(column for sentence in sentences for column in sentence.columns)])
    rejects: list[Reject] = []
    for _, row in table_rows(path, list(columns), [SPLIT_COLUMN], rejects):
        yield LabelledRow(image_file(path, row, image_column), row, text_of(row.get(SPLIT_COLUMN)))
    yield from (LabelledRow(path, {}, "", reject.reason) for reject in rejects)
