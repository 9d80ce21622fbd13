"""The rows of a user's own data, whatever holds them: image file, captions, label, group (a patient or article), split.

Unlike `sources`, which opens pairs to be trained on or labelled images to be tested on, this reads everything that a
table says of an image, so that the data can be looked at and divided before anything is trained.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomedclip_jax.data._picture_folders import hub_folder, is_hub_address, is_picture_folder, picture_files
from biomedclip_jax.data._table_rows import absent, image_name, is_table, not_there, table_rows, text_of, texts_of
from biomedclip_jax.data.labelled.groups import one_spelling
from biomedclip_jax.data.labelled.multi_label import PRESENT, UNCERTAIN
from biomedclip_jax.data.labelled.multi_label_table import Declared, finding_rows, one_row_an_image
from biomedclip_jax.data.labelled.readers import has_class_folders, open_class_folders
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.names import SPLITS, names_of, no_known_split, split_of
from biomedclip_jax.data.pairs import Reject, first_reject
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.tables import SPLIT_COLUMN
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

# columns that say which rows belong together, in the order in which they are looked for
_GROUP_NAMES = ("patient_id", "patient", "subject_id", "subject", "study_id", "case_id", "article", "pmcid", "group")


def _spellings(name: str) -> list[str]:
    """patient_id, Patient_ID, patientId, Patient ID ... : as tables in the world have a name."""
    first, *more = name.split("_")
    firsts = (first, first.capitalize(), first.upper())
    seconds = [f"{sign}{end}" for sign in ("_", " ", "") for end in ("id", "Id", "ID")] if more else [""]
    return [begin + end for begin in firsts for end in seconds]


GROUP_COLUMNS = tuple(spelling for name in _GROUP_NAMES for spelling in _spellings(name))
_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a table, or of the features of builds.

    caption, label: None takes the column of that name if there is one. group: None takes the first of `GROUP_COLUMNS`
    that is there. findings: how a table says which findings an image has, where it may have several: they become its
    caption.
    """

    image: str = "image"
    caption: str | None = None
    label: str | None = None
    group: str | None = None
    findings: Declared | None = None


@dataclass(frozen=True)
class Row:
    """An image and what is known of it.

    image: absolute path of its file. captions: () where the data have labels alone. split: "train", "validation" or
    "test"; None where the data don't say. number: of the row in its table, where there is one.
    """

    image: str
    captions: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    split: str | None = None
    number: str = field(default="", compare=False)


@dataclass(frozen=True)
class OwnData:
    """Rows that can be used, what was left out and why, and the column that the groups are from, if any."""

    source: str
    rows: list[Row]
    rejects: list[Reject]
    group_column: str | None = None

    @property
    def captioned(self) -> bool:
        """Whether the rows have captions."""
        return all(row.captions for row in self.rows)

    @property
    def labelled(self) -> bool:
        """Whether there are labels; with captions, some rows may have none."""
        return any(row.label is not None for row in self.rows)


def read_own(source: str, columns: Columns, unpacked: Path) -> OwnData:
    """The rows of a table (`pairs.csv`, `pairs.csv:train`), of class folders, or of any source of pairs.

    unpacked: a folder that takes the images of tars and builds, as files. UserError for data that cannot be read, that
    have neither captions nor labels, and of which nothing is left.
    """
    name, split = source, None
    if not is_table(source) and not Path(source).is_dir():
        name, split = split_of(source)
    tables = _tables(name)
    if columns.group is not None and not tables:
        raise UserError(
            f"{source}: has no column {columns.group!r}, because it is no table; expected a table, or no --group-column"
        )
    if columns.findings is not None:
        found = _of_findings(source, tables, split, columns, columns.findings)
    elif tables:
        found = _of_tables(source, tables, split, columns, unpacked)
    elif Path(source).is_dir() and not (Path(source) / "features.json").is_file():
        found = _of_folders(source)
    else:
        found = _of_pairs(source, columns, unpacked)
    if not found.rows:
        raise UserError(f"{source}: no usable row, {len(found.rejects)} left out{first_reject(found.rejects)}")
    return _without_contradictions(found)


def _tables(name: str) -> list[tuple[Path, str]]:
    """The tables that a name means, each with its split, "" for none; [] for what is no table."""
    if is_hub_address(name):
        return _tables(str(hub_folder(name)))
    if is_picture_folder(Path(name)):
        return [(path, split) for split, paths in picture_files(Path(name)).items() for path in paths]
    return [(Path(name), "")] if is_table(name) and "://" not in name and not Path(name).is_dir() else []


# --- tables ---------------------------------------------------------------------------------------------------------


def _of_tables(
    source: str, tables: Sequence[tuple[Path, str]], wanted: str | None, columns: Columns, unpacked: Path
) -> OwnData:
    named = [name for name in (columns.caption, columns.label, columns.group) if name is not None]
    caption_column, label_column = columns.caption or "caption", columns.label or "label"
    optional = ("caption", "label", SPLIT_COLUMN, *GROUP_COLUMNS)
    rejects: list[Reject] = []
    # all of them first: of JSON lines, the last may have a column that the first has not
    told: list[tuple[Path, int, dict[str, Any]]] = []
    for path, split in tables:
        for number, row in table_rows(path, [columns.image, *dict.fromkeys(named)], optional, rejects):
            row = {SPLIT_COLUMN: split} | row if split else row
            told.append((path, number, row | {columns.image: _as_file(row[columns.image], unpacked, len(told))}))
    there = dict.fromkeys(name for _, _, row in told for name in row)
    captions_there = caption_column in there
    if told and not captions_there and label_column not in there:
        raise UserError(
            f"{source}: neither a column 'caption' nor a column 'label', only {', '.join(map(repr, there))}; name one with "
            "--caption-column or --label-column"
        )
    group_column = columns.group or next((name for name in GROUP_COLUMNS if name in there), None)
    rows: list[Row] = []
    for path, number, row in told:
        image = path.parent / image_name(path, row, columns.image)
        captions = texts_of(row.get(caption_column))
        label = text_of(row.get(label_column)) or None
        own_split = text_of(row.get(SPLIT_COLUMN))
        group = text_of(row.get(group_column)) if group_column else ""
        reason = None
        if captions_there and not captions:
            reason = absent("caption", row.get(caption_column))
        elif not captions and label is None:
            reason = absent("label", row.get(label_column))
        elif group_column and not group:
            reason = absent(group_column, row.get(group_column))
            reason += "; write one into each row, or name another column with --group-column"
        elif not os.path.isfile(image):
            reason = not_there(image)
        elif SPLIT_COLUMN in there:
            reason = no_known_split(own_split, "train")
        if reason:
            rejects.append(Reject(str(number), str(image), reason))
        else:
            rows.append(Row(os.path.abspath(image), captions, label, one_spelling(group), _split(own_split), str(number)))
    if wanted is not None:
        rows = _of_split(source, rows, wanted)
    return OwnData(source, rows, rejects, group_column)


def _of_findings(
    source: str, tables: Sequence[tuple[Path, str]], wanted: str | None, columns: Columns, declared: Declared
) -> OwnData:
    """Rows whose findings are their caption: "a photo of edema and mass", and of none of them "a photo of no finding"."""
    if len(tables) != 1 or is_picture_folder(tables[0][0].parent):
        raise UserError(f"{source}: images with several findings are read from one table with a column of image paths")
    path = tables[0][0]
    rejects: list[Reject] = []
    told, twice, _ = one_row_an_image(finding_rows(path, columns.image, declared, rejects))
    named = [columns.group] if columns.group is not None else []
    group_column, groups = columns.group, {}
    for number, row in table_rows(path, [columns.image, *named], GROUP_COLUMNS, []):
        group_column = group_column or next((name for name in GROUP_COLUMNS if name in row), None)
        groups[str(number)] = text_of(row.get(group_column)) if group_column else ""
    rows: list[Row] = []
    for each in told:
        names = [name for name, label in each.said.items() if label == PRESENT]
        clear = names or each.only_names or (each.said and UNCERTAIN not in each.said.values())
        reason = None if clear else "no finding is present, and some are uncertain, or nothing is said"
        if group_column and not groups[each.number]:
            reason = absent(group_column, "") + "; write one into each row, or name another column with --group-column"
        elif not os.path.isfile(each.image):
            reason = not_there(each.image)
        if reason:
            rejects.append(Reject(each.number, str(each.image), reason))
            continue
        caption = f"a photo of {_listed(names) if names else declared.no_finding.lower()}"
        group = one_spelling(groups[each.number])
        rows.append(Row(os.path.abspath(each.image), (caption,), None, group, _split(each.split), each.number))
    if wanted is not None:
        rows = _of_split(source, rows, wanted)
    return OwnData(source, rows, [*rejects, *twice], group_column)


def _listed(names: Sequence[str]) -> str:
    """ "edema", "edema and mass", "edema, mass and nodule", whatever order a row has them in."""
    *first, last = sorted(name.replace("_", " ").lower() for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _as_file(image: object, unpacked: Path, number: int) -> object:
    """What a cell of images says: of a picture that is in the table itself the file that it becomes."""
    if isinstance(image, dict) and image.keys() <= {"bytes", "path"}:
        image = image.get("bytes") or image.get("path") or ""
    return str(_unpacked(image, unpacked, number).absolute()) if isinstance(image, bytes) else image


def _unpacked(content: bytes, unpacked: Path, number: int) -> Path:
    """An image file of this content in the folder `unpacked`."""
    ending = next((each for begin, each in _ENDINGS.items() if content.startswith(begin)), ".img")
    file = unpacked / f"{number:06d}{ending}"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, lambda partial: partial.write_bytes(content))
    return file


def _split(own: str) -> str | None:
    return next((name for name, others in SPLITS.items() if own.lower() in others), None)


def _of_split(source: str, rows: Sequence[Row], wanted: str) -> list[Row]:
    """The rows of the split that was asked for, which are then one whole."""
    own = [dataclasses.replace(row, split=None) for row in rows if row.split == _split(wanted)]
    if not own or _split(wanted) is None:
        there = ", ".join(dict.fromkeys(row.split for row in rows if row.split)) or "none"
        raise UserError(f"{source}: no split {wanted!r}; there are: {there}")
    return own


# --- class folders and other sources --------------------------------------------------------------------------------


def _of_folders(source: str) -> OwnData:
    folder = Path(source)
    if not has_class_folders(folder):
        raise UserError(
            f"{source}: no folders in it; expected a folder of pictures for each class, or a table that names the pictures "
            "(tars are named by a pattern, such as 'shards/*.tar')"
        )
    there = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    splits = [split for split in SPLITS if there & set(names_of(split))]
    rows: list[Row] = []
    rejects: list[Reject] = []
    for split in splits or [None]:
        own = open_class_folders(folder, split or "test")
        rows += list(_labelled_rows(own, split))
        rejects += own.rejects
    return OwnData(source, rows, rejects)


def _labelled_rows(data: Labelled, split: str | None) -> Iterator[Row]:
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        yield Row(os.path.abspath(str(image)), (), data.classes[label], None, split)


def _of_pairs(source: str, columns: Columns, unpacked: Path) -> OwnData:
    """Pairs of any kind; images that are no files of their own become such."""
    pairs = open_pairs(source, columns.image, columns.caption or "caption", columns.label)
    rows: list[Row] = []
    rejects = list(pairs.rejects)
    for index in range(len(pairs)):
        try:
            pair = pairs[index]
        except UserError as error:
            rejects.append(Reject(str(index + 1), pairs.name(index), str(error)))
            continue
        image = pair.image
        if isinstance(image, bytes):
            image = _unpacked(image, unpacked, index)
        rows.append(Row(os.path.abspath(image), pair.captions, pair.label, number=str(index + 1)))
    return OwnData(source, rows, rejects)


def _without_contradictions(data: OwnData) -> OwnData:
    """Without rows that say the same twice, and, where there are labels alone, without images of two labels."""
    labels: dict[str, set[str | None]] = {}
    for row in data.rows:
        labels.setdefault(row.image, set()).add(row.label)
    rows: list[Row] = []
    rejects = list(data.rejects)
    seen = Counter[Row]()
    for row in data.rows:
        seen[row] += 1
        if not row.captions and len(labels[row.image]) > 1:
            rejects.append(Reject(row.number, row.image, "the image has another label in another row"))
        elif seen[row] > 1:
            rejects.append(Reject(row.number, row.image, "the same row once more"))
        else:
            rows.append(row)
    if not rows:
        raise UserError(f"{data.source}: no usable row, {len(rejects)} left out{first_reject(rejects)}")
    return dataclasses.replace(data, rows=rows, rejects=rejects)
