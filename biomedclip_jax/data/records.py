"""Every image of a source with all that its record says, such as licence and patient, and not its caption alone.

`sources` gives what training needs, images with texts; this is for those who look things up. A record without a
caption is one, too.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np

from biomedclip_jax.data._picture_pairs import PicturePairs
from biomedclip_jax.data._picture_sources import PICTURE_FILES, PICTURE_FOLDERS, is_picture_table, picture_pairs
from biomedclip_jax.data._source_kinds import Found, Wanted, find_folder
from biomedclip_jax.data._table_rows import image_file, is_table, not_there, table_rows, text_of, texts_of
from biomedclip_jax.data._tfds_read import BuildPairs, build_splits, is_build, open_build, open_tfds
from biomedclip_jax.data._webdataset import TarPairs, find_shards, open_shards
from biomedclip_jax.data.images.headers import dicom_ids
from biomedclip_jax.data.images.search import find_images, say_left_out, stream_images
from biomedclip_jax.data.images.views.find import View, find_views
from biomedclip_jax.data.images.views.options import ViewOptions
from biomedclip_jax.data.names import names_of, split_of
from biomedclip_jax.data.pairs import Pairs, Reject
from biomedclip_jax.data.tables import REFERENCES, SPLIT_COLUMN
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

FORMS = (
    "a folder of images, a table (.csv, .tsv, .jsonl, .parquet), tars (shards/*.tar), a build (FOLDER or FOLDER:train), "
    "Parquet with pictures"
)
_IDS = ("id", "pair_id")  # columns that name a record, the first that there is


@dataclass(frozen=True)
class Record:
    """An image and what is known of it.

    number: of the record in its source, from 0. id: what it is called there. file: where the image is a file of its own.
    name: what messages call the image. cells: column -> text, "" where there is none. view: which of the images in the
    file, where files are taken apart.
    """

    number: int
    id: str
    name: str
    cells: Mapping[str, str]
    file: Path | None = None
    view: View | None = None


class Records:
    """The records of a source. count: how many there are, None where that shows only at the end.

    rejects: records that cannot be used, complete when all have been read.
    """

    def __init__(self, read: Callable[[list[Reject]], Iterator[Record]], pairs: Pairs | None = None, count: int | None = None):
        self._read, self._pairs = read, pairs
        self.count = count
        self.rejects: list[Reject] = list(pairs.rejects) if pairs is not None else []

    def __iter__(self) -> Iterator[Record]:
        return self._read(self.rejects)

    def content(self, number: int) -> bytes:
        """The encoded image of a record that has no file of its own. UserError, which names it, if it cannot be read."""
        if self._pairs is None:
            raise UserError(f"record {number + 1}: its image is a file")
        image = self._pairs[number].image
        try:
            return image if isinstance(image, bytes) else image.read_bytes()
        except OSError as error:
            raise UserError(f"{image}: cannot be read: {error.strerror or error}") from error


def open_records(source: str, image_column: str = "image", views: ViewOptions | None = None) -> list[Records]:
    """The records of a source, in parts, such as the splits of a build; `FORMS` says what a source may be.

    image_column: of tables; of builds the feature. views: how files in folders are taken apart; None: each is one image.
    UserError, one line, for what is missing or no source, and for views of what is no folder of files.
    """
    for find in (_pictures, _table, _tars, _tfds, _builds):
        if (found := find(source, image_column)) is not None:
            if views is not None:
                raise UserError(f"{source}: --every takes the files of folders apart, and this is a table, tars or a build")
            return found
    if (folder := find_folder(source)) is not None:
        if folder.split is not None:
            raise UserError(f"{source}: a folder of images has no splits; name the folder of the split")
        return [_images(folder.path, views)]
    if Path(source).is_file():
        return [_images(Path(source), views)]
    raise UserError(f"{source}: no such file or folder, or no source of images; expected {FORMS}")


def cell(value: object) -> str:
    """What a cell says, as one text: the texts of a list on lines of their own, "" for what is no text or number."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return "\n".join(texts_of([text_of(each) if isinstance(each, bytes) else each for each in value]))
    return text_of(value)


# --- folders of images ----------------------------------------------------------------------------------------------


def _images(root: Path, views: ViewOptions | None) -> Records:
    """Image files, called by their names from the folder on; the column `folder` says where in it they are, `view` which
    of the images in the file one is, and `patient`, `study` and `series` what DICOM files say.
    """
    base = root if root.is_dir() else root.parent

    def read(rejects: list[Reject]) -> Iterator[Record]:
        left_out: Counter[str] = Counter()
        ids = lru_cache(maxsize=1)(dicom_ids)
        for number, image in enumerate(
            stream_images([root], left_out) if views is None else find_views([root], views, left_out)
        ):
            view = image if isinstance(image, View) else None
            path = image.path if isinstance(image, View) else image
            inside = path.relative_to(base)
            folder = "" if inside.parent == Path() else inside.parent.as_posix()
            cells, name = {"folder": folder, **ids(path)}, inside.as_posix()
            if view is not None and view.place:
                cells, name = cells | {"view": view.place}, f"{name}#{view.place}"
            yield Record(number, name, str(image), cells, path, view)
        if left_out:
            say_some(f"{root}: {say_left_out(left_out)}")

    if not root.is_dir():
        find_images(root)
    return Records(read)


# --- tables of files ------------------------------------------------------------------------------------------------


def _table(source: str, image: str) -> list[Records] | None:
    for name, split in ((source, None), split_of(source)):
        if is_table(name) and "://" not in name and not Path(name).is_dir():
            return [_table_records(Path(name), image, split)]
    return None


def _table_records(path: Path, image: str, split: str | None) -> Records:
    next(table_rows(path, [image, *([SPLIT_COLUMN] if split else [])], rejects=[]), None)  # complains at once
    return Records(lambda rejects: _rows(path, image, split, rejects))


def _rows(path: Path, image: str, split: str | None, rejects: list[Reject]) -> Iterator[Record]:
    columns, wanted = [image, *([SPLIT_COLUMN] if split else [])], names_of(split) if split else ()
    for number, row in table_rows(path, columns, _all_columns(path), rejects):
        if split and text_of(row[SPLIT_COLUMN]).lower() not in wanted:
            continue
        file = image_file(path, row, image)
        if not text_of(row[image]):
            rejects.append(Reject(str(number), str(path), f"column {image!r} is empty"))
        elif not os.path.isfile(file):
            rejects.append(Reject(str(number), str(file), not_there(file)))
        else:
            cells = {name: cell(value) for name, value in row.items() if name not in (image, REFERENCES)}
            yield Record(number - 1, _id(cells, text_of(row[image])), str(file), cells, file)


def _all_columns(path: Path) -> list[str]:
    """The columns of Parquet, which are read when they are named; other tables give all of them."""
    if path.suffix.lower() != ".parquet":
        return []
    from pyarrow.parquet import read_schema

    return read_schema(path).names


def _id(cells: Mapping[str, str], otherwise: str) -> str:
    return next((cells[name] for name in _IDS if cells.get(name)), otherwise)


# --- pictures in files: Parquet, tars, builds -----------------------------------------------------------------------


def _pictures(source: str, image: str) -> list[Records] | None:
    wanted = Wanted(image, cast(str, None))  # a picture without a caption is a record
    for kind in (PICTURE_FILES, PICTURE_FOLDERS):
        if kind.pairs is not None and (found := kind.find(source)) is not None:
            return [_of_pairs(cast(PicturePairs, kind.pairs(found, wanted)))]
    for name, split in ((source, None), split_of(source)):
        if is_table(name) and Path(name).is_file() and is_picture_table(found := Found(source, name, split), wanted):
            return [_of_pairs(picture_pairs(found, [found.path], wanted))]
    return None


def _of_pairs(pairs: PicturePairs) -> Records:
    columns = {name: pairs.cells(name) for name in pairs.text_columns if name != REFERENCES}

    def read(_: list[Reject]) -> Iterator[Record]:
        for number in range(len(pairs)):
            cells = {name: cell(values[number]) for name, values in columns.items()}
            yield Record(number, _id(cells, pairs.name(number)), pairs.name(number), cells)

    return Records(read, pairs, len(pairs))


def _tars(source: str, _: str) -> list[Records] | None:
    if not source.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        return None
    return [_fields_of(open_shards(find_shards(source), None))]


def _builds(source: str, image: str) -> list[Records] | None:
    found = find_folder(source)
    if found is None or not is_build(found.path):
        return None
    splits = [found.split] if found.split is not None else build_splits(found.path)
    return [_build(open_build(found.path, split, image, None, None), split) for split in splits]


def _build(pairs: BuildPairs, split: str | None) -> Records:
    return _fields_of(pairs, {"split": split.partition("[")[0]} if split else {})


def _fields_of(pairs: TarPairs | BuildPairs, more: Mapping[str, str] | None = None) -> Records:
    """Records whose fields are read one by one; one that cannot be read is a reject."""

    def read(rejects: list[Reject]) -> Iterator[Record]:
        for number in range(len(pairs)):
            try:
                fields = pairs.fields(number)
            except UserError as error:
                rejects.append(Reject(str(number + 1), pairs.name(number), str(error)))
                continue
            cells = {name: cell(value) for name, value in fields.items() if name != REFERENCES} | dict(more or {})
            yield Record(number, _id(cells, pairs.name(number)), pairs.name(number), cells)

    return Records(read, pairs, len(pairs))


def _tfds(source: str, image: str) -> list[Records] | None:
    if not source.startswith("tfds:"):
        return None
    name, split = split_of(source.removeprefix("tfds:"))
    return [_build(open_tfds(name, split, image, None, None), split)]
