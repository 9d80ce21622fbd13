"""Image files and their classes: told by the folders that they are in, or by a table.

Folders are `FOLDER/[train|validation|test/]CLASS/**/image`; a table is CSV, TSV, JSON lines or Parquet.
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES, images_below
from biomedclip_jax.data.labelled.classes import classes_of
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.split_names import SPLITS, matching_split, names_of, require_whole
from biomedclip_jax.data.tables import SPLIT_COLUMN, image_file, table_rows, text_of
from biomedclip_jax.errors import UserError

_NO_CLASS = "lies outside the class folders"


def open_class_folders(folder: Path, split: str = "test", classes: Sequence[str] | None = None) -> Labelled:
    """The images below each class folder, class by class, sorted by path.

    With folders train, validation (or valid, val, dev) and test in it, those of `split`; the classes are then those of all
    splits. Without, everything is "test". classes: their names in order; by default those of the folders, sorted.
    Images outside class folders are in `rejects`. Raises UserError for a folder without images or with fewer than two classes,
    for a split that does not exist, and for a class that is not in `classes`.
    """
    known = {name for split_name in SPLITS for name in names_of(split_name)}
    splits = [path for path in _folders(folder) if path.name.lower() in known and _folders(path)]
    if splits:
        root = folder / matching_split(folder, split, [path.name for path in splits])
    else:
        require_whole(folder, split, f"put the class folders into {folder / 'train'} and {folder / 'test'}")
        root = folder
    roots = splits or [folder]
    names = classes_of(folder, (path.name for each in roots for path in _folders(each)), classes)
    found: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for number, path in enumerate(images_below(root), 1):
        inside = path.relative_to(root).parts
        if len(inside) > 1:
            found.append((path, names.index(inside[0])))
        else:
            rejects.append(Reject(str(number), str(path), _NO_CLASS))
    if not found and not rejects:
        raise UserError(f"{root}: no image in its class folders; looked for {' '.join(IMAGE_SUFFIXES)}")
    found.sort(key=lambda each: (each[1], each[0]))
    return labelled_files(str(folder), names, found, rejects)


def has_class_folders(folder: Path) -> bool:
    """Whether a folder has folders in it, which may be classes."""
    return bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def open_labelled_table(
    path: Path, split: str, image_column: str, label_column: str, classes: Sequence[str] | None = None
) -> Labelled:
    """The rows of a table that belong to a split, in the table's order.

    image_column: paths relative to the table. label_column: texts, or numbers. A column "split" says which rows are which
    (train, validation or valid or val or dev, test); without it all rows are "test". The classes are those of all rows.
    Rows without a label or without an existing image file are in `rejects`. Raises UserError for a table that cannot be read, a
    column or split that does not exist, fewer than two classes, and a table of which nothing is left.
    """
    rows: list[tuple[str, Path, str, str]] = []
    rejects: list[Reject] = []
    for number, row in enumerate(table_rows(path, [image_column, label_column], [SPLIT_COLUMN]), 1):
        image, label = image_file(path, row, image_column), text_of(row[label_column])
        if label:
            rows.append((str(number), image, label, text_of(row.get(SPLIT_COLUMN))))
        else:
            rejects.append(Reject(str(number), str(image), "label is empty"))
    splits = {name: None for *_, name in rows if name}
    if splits:
        wanted = matching_split(path, split, splits)
    else:
        require_whole(path, split, f"add a column {SPLIT_COLUMN!r} with train, validation or test")
        wanted = ""
    names = classes_of(path, (label for _, _, label, _ in rows), classes)
    found, missing = existing_files((number, image, names.index(label)) for number, image, label, own in rows if own == wanted)
    return labelled_files(str(path), names, found, rejects + missing)
