"""A table of image files and their classes: CSV, TSV, JSON lines or Parquet."""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.labelled.classes import classes_of
from biomedclip_jax.data.labelled.types import Labelled, files_there, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.split_names import require_whole, split_there
from biomedclip_jax.data.tables import SPLIT_COLUMN, image_file, table_rows, text_of


def open_labelled_table(
    path: Path, split: str, image_column: str, label_column: str, classes: Sequence[str] | None = None
) -> Labelled:
    """The rows of a table, in its order.

    image_column: paths relative to the table. label_column: texts, or numbers. A column "split" says which rows are which
    (train, validation or valid or val or dev, test); without it all rows are "test". The classes are those of all rows.
    Rows without a label or an image file that is there are in `rejects`. Raises UserError for a table that cannot be read, a
    column or split that is not there, fewer than two classes, and a table of which nothing is left.
    """
    rows: list[tuple[str, Path, str, str]] = []
    rejects: list[Reject] = []
    for number, row in enumerate(table_rows(path, [image_column, label_column], [SPLIT_COLUMN]), 1):
        image, label = image_file(path, row, image_column), text_of(row[label_column])
        if label:
            rows.append((str(number), image, label, text_of(row.get(SPLIT_COLUMN))))
        else:
            rejects.append({"row": str(number), "image": str(image), "reason": "label is empty"})
    splits = {name: None for *_, name in rows if name}
    if splits:
        wanted = split_there(path, split, splits)
    else:
        require_whole(path, split, f"add a column {SPLIT_COLUMN!r} with train, validation or test")
        wanted = ""
    names = classes_of(path, (label for _, _, label, _ in rows), classes)
    found, gone = files_there((number, image, names.index(label)) for number, image, label, own in rows if own == wanted)
    return labelled_files(str(path), names, found, rejects + gone)
