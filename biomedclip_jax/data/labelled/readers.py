"""Readers of labelled images: class folders, tables, WebDataset tars, TFDS builds; `sources` chooses among them.

Folders are `FOLDER/[train|validation|test/]CLASS/**/image`; a table is CSV, TSV, JSON lines or Parquet.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from biomedclip_jax.data._table_rows import absent, image_file, table_rows, text_of, texts_of
from biomedclip_jax.data._webdataset import FROM_CLS, have_classes, open_shards
from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.data.images.search import MACHINE_FOLDERS, by_ending, images_in, say_left_out
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.names import (
    SPLITS,
    classes_of,
    matching_split,
    names_of,
    no_known_split,
    require_whole,
    several_classes,
)
from biomedclip_jax.data.pairs import ImageOf, Pairs, Reject, fingerprint, reject
from biomedclip_jax.data.tables import SPLIT_COLUMN
from biomedclip_jax.errors import UserError

CLASS_NAMES = "classnames.txt"  # of CLIP_benchmark: a class a line, in order
_DEFAULT_LABEL = "label"
_FEW = 10  # images with two labels that are mistakes; more, and a tenth of all, are data of another kind
_NO_CLASS = "lies outside the class folders"


def open_class_folders(folder: Path, split: str = "test", classes: Sequence[str] | None = None) -> Labelled:
    """The images below each class folder, class by class, sorted by path.

    With folders train, validation (or valid, val, dev) and test in it, those of `split`; the classes are then those of
    all splits. Without, everything is "test". classes: their names in order; by default those of the folders, sorted.
    Images outside class folders are in `rejects`. Raises UserError for a folder without images or with fewer than two
    classes, for a split that does not exist, and for a class that is not in `classes`.
    """
    known = {name for split_name in SPLITS for name in names_of(split_name)}
    splits = [path for path in _folders(folder) if path.name.lower() in known and _folders(path)]
    if splits:
        root = folder / matching_split(folder, split, [path.name for path in splits])
    else:
        require_whole(folder, split, f"put the class folders into {folder / 'train'} and {folder / 'test'}")
        root = folder
    roots = splits or [folder]
    others: list[Path] = []
    images = sorted(images_in(root, others.append))
    in_root = {path.relative_to(root).parts[0] for path in images}
    folders = [path for each in roots for path in _folders(each)]
    full = [path for path in folders if (path.name in in_root if path.parent == root else any(images_in(path)))]
    rejects: list[Reject] = []
    for path in (path for path in folders if path.parent == root and full):
        if path not in full:
            rejects.append(Reject("", str(path), "no image in this class folder"))
        elif own := by_ending(each for each in others if path in each.parents):
            rejects.append(Reject("", str(path), say_left_out(own)))
    names = classes_of(folder, (path.name for path in full or folders), classes)
    found: list[tuple[Path, int]] = []
    for number, path in enumerate(images, 1):
        inside = path.relative_to(root).parts
        if len(inside) > 1 and inside[0] in names:
            found.append((path, names.index(inside[0])))
        else:
            rejects.append(Reject(str(number), str(path), _NO_CLASS))
    if not found and not rejects:
        raise UserError(f"{root}: no image in its class folders; looked for {' '.join(IMAGE_SUFFIXES)} and more")
    found.sort(key=lambda each: (each[1], each[0]))
    return labelled_files(str(folder), names, found, rejects)


def has_class_folders(folder: Path) -> bool:
    """Whether a folder has folders in it, which may be classes."""
    return bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    own = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in own if path.name not in MACHINE_FOLDERS)


def open_labelled_table(
    path: Path, split: str, image_column: str, label_column: str, classes: Sequence[str] | None = None
) -> Labelled:
    """The rows of a table that belong to a split, in the table's order.

    image_column: paths relative to the table. label_column: texts, or numbers. A column "split" says which rows are
    which (train, validation or valid or val or dev, test); without it all rows are "test". The classes are those of
    all rows. Rows without a label or without an existing image file are in `rejects`, and so are those whose image has
    another label in another row. Raises UserError for a table that cannot be read, a column or split that does not
    exist, fewer than two classes, labels that name several, and a table of which nothing is left.
    """
    rows: list[tuple[str, Path, str, str]] = []
    rejects: list[Reject] = []
    for number, row in table_rows(path, [image_column, label_column], [SPLIT_COLUMN], rejects):
        image, label = image_file(path, row, image_column), text_of(row[label_column])
        if label:
            rows.append((str(number), image, label, text_of(row.get(SPLIT_COLUMN))))
        elif isinstance(row[label_column], list) and len(texts := texts_of(row[label_column])) > 1:
            raise several_classes(f"{path}, row {number}", list(texts))
        else:
            rejects.append(Reject(str(number), str(image), absent("label", row[label_column])))
    splits = {name: None for *_, name in rows if name}
    if splits:
        matching_split(path, split, splits)
        wanted = {name.lower() for name in names_of(split)}
        unknown = ((number, image, no_known_split(own, split)) for number, image, _, own in rows if own.lower() not in wanted)
        rejects += [Reject(number, str(image), reason) for number, image, reason in unknown if reason]
    else:
        require_whole(path, split, f"add a column {SPLIT_COLUMN!r} with train, validation or test")
        wanted = {""}
    names = classes_of(path, (label for _, _, label, _ in rows), classes)
    own_rows = [(number, image, label) for number, image, label, own in rows if own.lower() in wanted]
    labels_of: dict[Path, dict[str, None]] = {}
    for _, image, label in own_rows:
        labels_of.setdefault(image, {})[label] = None
    several = {image for image, own in labels_of.items() if len(own) > 1 and os.path.isfile(image)}
    if len(several) > max(_FEW, len(labels_of) // 10):
        raise several_classes(path, " and ".join(labels_of[min(several)]), f"of {len(several):,} images, in rows of their own")
    rejects += [
        Reject(number, str(image), "the image has another label in another row")
        for number, image, _ in own_rows
        if image in several
    ]
    index = {name: number for number, name in enumerate(names)}
    found, missing = existing_files((number, image, index[label]) for number, image, label in own_rows if image not in several)
    return labelled_files(str(path), names, found, rejects + missing)


def open_labelled_shards(name: str, tars: Sequence[str], label_field: str, classes: Sequence[str] | None) -> Labelled:
    """The samples of some tars whose class is known.

    label_field: "label", the default, means the .cls where there is one; "cls" always does; else a field of the .json.
    The numbers in .cls are positions in `classnames.txt`, beside the tars or a folder up, where CLIP_benchmark writes
    it.
    UserError as of `open_shards`, and for a number that is no position in `classnames.txt`.
    """
    from_cls = label_field == FROM_CLS or (label_field == _DEFAULT_LABEL and have_classes(tars[0]))
    pairs = open_shards(tars, None, FROM_CLS if from_cls else label_field)
    names = _class_names(Path(tars[0])) if from_cls else None
    if names is None:
        return labelled_pairs(name, pairs, classes)
    if classes is not None and tuple(classes) != names:
        raise UserError(f"{name}: {CLASS_NAMES} says {', '.join(names)}; expected {', '.join(classes)}")
    numbers = [str(number) for number in range(len(names))]
    return replace(labelled_pairs(name, pairs, numbers), classes=names)


class ClassPairs(Pairs, Protocol):
    """Pairs whose source may have an order of classes of its own."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in order, where the source says them."""
        ...


def labelled_classes(name: str, pairs: ClassPairs, classes: Sequence[str] | None = None) -> Labelled:
    """Pairs that were opened with a label: classes in the order of the source's `ClassLabel`, if it has one."""
    own = pairs.classes
    if own is not None and classes is not None and tuple(classes) != own:
        raise UserError(f"{name}: its classes are {', '.join(own)}; expected {', '.join(classes)}")
    return labelled_pairs(name, pairs, own or classes)


def labelled_pairs(name: str, pairs: Pairs, classes: Sequence[str] | None = None) -> Labelled:
    """The pairs whose label can be read, as labelled images; the others are in `rejects`.

    classes: names in order, by default the labels. UserError if no label can be read, and for a
    label that is none of the classes.
    """
    kept: list[int] = []
    labels: list[str] = []
    rejects = list(pairs.rejects)
    for index in range(len(pairs)):
        try:
            label = pairs.texts(index).label
        except UserError as error:
            rejects.append(reject(pairs, index, error))
            continue
        kept.append(index)
        labels.append(label or "")
    if not kept:
        first = f"; the first: {rejects[0].reason}" if rejects else ""
        raise UserError(f"{name}: no sample with a label, {len(rejects)} left out{first}")
    names = classes_of(name, labels, classes)
    position = {label: number for number, label in enumerate(names)}
    return Labelled(
        name=name,
        classes=names,
        images=[ImageOf(pairs, index) for index in kept],
        names=[pairs.name(index) for index in kept],
        labels=np.array([position[label] for label in labels], np.int64),
        fingerprint=fingerprint([*pairs.image_versions(), *map(str, kept)]),
        rejects=tuple(rejects),
    )


def _class_names(tar: Path) -> tuple[str, ...] | None:
    for folder in (tar.parent, tar.parent.parent):
        if (folder / CLASS_NAMES).is_file():
            lines = (folder / CLASS_NAMES).read_text(encoding="utf-8-sig").split("\n")
            return tuple(line.strip() for line in lines if line.strip())
    return None
