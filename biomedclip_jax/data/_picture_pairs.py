"""Pairs in files that hold the pictures themselves (`_picture_files`), with random access.

The texts are in memory, as those of any table. A picture is read with its group when it is asked for, and the last
groups are kept: what reads in order, such as an evaluation, reads each group once.
"""

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedclip_jax.data._picture_files import PictureFile, class_names, is_picture, named_class
from biomedclip_jax.data._table_header import check_columns, check_twice, spelled
from biomedclip_jax.data._table_rows import absent, not_there, text_of, texts_of
from biomedclip_jax.data.identity import Identity, digest, image_mark, spread, table_step
from biomedclip_jax.data.names import names_of, no_known_split
from biomedclip_jax.data.pairs import Pair, Reject, Texts, file_state, fingerprint, first_reject
from biomedclip_jax.data.tables import REFERENCES, SPLIT_COLUMN, TextBlock
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

if TYPE_CHECKING:
    import pyarrow

_KEPT_BYTES = 64 * 2**20  # of groups of pictures, in each process
_LOCKS = 16


@dataclass(frozen=True)
class PictureColumns:
    """Names of columns; None asks for no captions or labels."""

    image: str
    caption: str | None = None
    label: str | None = None

    @property
    def texts(self) -> list[str]:
        """The columns besides that of the pictures."""
        return [name for name in (self.caption, self.label) if name is not None]


@dataclass(frozen=True)
class _Row:
    """A row that can be used. number: of all rows of all files, from 0. path: beside the bytes; inside: whether there are
    bytes.
    """

    number: int
    path: str
    inside: bool
    texts: Texts


class PicturePairs:
    """The usable rows of some files as pairs. classes: names of the label column in order, where the files say them."""

    def __init__(
        self, files: Sequence[PictureFile], image: str, rows: Sequence[_Row], rejects: list[Reject], classes: tuple[str, ...]
    ):
        self.rejects = rejects
        self.classes = classes or None
        self._files = list(files)
        self._image = image
        self._groups = [(file, group) for file, own in enumerate(files) for group in range(len(own.group_sizes))]
        self._starts = [0, *accumulate(size for file in files for size in file.group_sizes)]
        self._file_starts = [0, *accumulate(sum(file.group_sizes) for file in files)]
        self._numbers = np.array([row.number for row in rows], np.int64)
        self._inside = np.array([row.inside for row in rows], bool)
        self._paths = TextBlock([row.path] for row in rows)
        self._captions = TextBlock(row.texts.captions for row in rows)
        self._references = TextBlock(row.texts.references for row in rows)
        self._labels = TextBlock([] if row.texts.label is None else [row.texts.label] for row in rows)
        self._kept = _Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _kept=_Kept())

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Pair:
        number = int(self._numbers[index])
        name, texts = self.name(index), vars(self.texts(index))
        if not self._inside[index]:
            file = self._files[bisect_right(self._file_starts, number) - 1].path
            return Pair(image=file.parent / self._paths[index][0], name=name, **texts)
        position = bisect_right(self._starts, number) - 1
        pictures = self._kept.get(position, lambda: self._read(position))
        content = pictures[number - self._starts[position]].as_py()
        return Pair(image=content, name=name, **texts)

    def _read(self, position: int) -> "pyarrow.ChunkedArray":
        file, group = self._groups[position]
        return self._files[file].pictures(group, self._image)

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        label = self._labels[index]
        return Texts(captions=self._captions[index], references=self._references[index], label=label[0] if label else None)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        number = int(self._numbers[index])
        file = bisect_right(self._file_starts, number) - 1
        return row_name(self._files[file].path, number - self._file_starts[file], self._paths[index][0])

    def names_of(self, column: str) -> tuple[str, ...]:
        """The names of the classes of another column in order, where the schema says them; else none."""
        return class_names(self._files[0].schema).get(column, ())

    @property
    def text_columns(self) -> list[str]:
        """The columns that hold no pictures and no objects."""
        from pyarrow import types

        return [field.name for field in self._files[0].schema if not (is_picture(field.type) or types.is_struct(field.type))]

    def cells(self, column: str) -> list[Any]:
        """What another column says of each pair; numbers of classes become their names. NoColumn if it is not there."""
        found: list[Any] = []
        for file in self._files:
            check_columns(file.path, [column], file.schema.names)
            names = class_names(file.schema).get(column)
            for group in range(len(file.group_sizes)):
                own = (row[column] for row in file.rows(group, [column]))
                found += own if names is None else (named_class(each, names) for each in own)
        return [found[number] for number in self._numbers.tolist()]

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"PicturePairs {len(self)} {self._image}"
        yield from (file_state(str(file.path)) for file in self._files)
        yield digest([self._numbers.tobytes()])
        beside = [index for index in range(len(self)) if not self._inside[index]]
        yield fingerprint(file_state(str(self[index].image)) for index in beside)

    def identities(self) -> tuple[Identity, ...]:
        """What the pairs are, however they are divided into files: of every row the text, of a sample the image."""
        columns = (self._paths, self._captions, self._references, self._labels)
        step = table_step(len(self))
        blocks = [(first, min(first + step, len(self))) for first in range(0, len(self), step)]
        marks = tuple(digest(part for column in columns for part in column.parts(*block)) for block in blocks)
        images = tuple(image_mark(self[index].image) for index in spread(len(self)))
        return (Identity(len(self), step, marks, images),)


class _Kept:
    """The groups of pictures that were read last, for several threads."""

    def __init__(self) -> None:
        self._groups: OrderedDict[int, pyarrow.ChunkedArray] = OrderedDict()
        self._own = threading.Lock()
        self._reading = [threading.Lock() for _ in range(_LOCKS)]

    def get(self, position: int, read: Any) -> "pyarrow.ChunkedArray":
        """The group at a position, read once for all threads that wait for it."""
        with self._reading[position % _LOCKS]:
            with self._own:
                if (found := self._groups.get(position)) is not None:
                    self._groups.move_to_end(position)
                    return found
            found = read()
            with self._own:
                self._groups[position] = found
                while len(self._groups) > 2 and sum(group.nbytes for group in self._groups.values()) > _KEPT_BYTES:
                    self._groups.popitem(last=False)
            return found


def row_name(file: Path, row: int, path: str) -> str:
    """What messages call the picture of a row, which is counted from 0."""
    return f"{file}, row {row + 1}" + (f" ({path})" if path else "")


def open_pictures(source: object, paths: Sequence[Path], columns: PictureColumns, split: str | None = None) -> PicturePairs:
    """Open the rows of some files, one after the other, as pairs; no picture is read.

    split: only the rows whose column `split` says so. Rows without a caption, a label or a picture are left out and
    listed in `rejects`. Class numbers become the names that the schema has for them (ClassLabel).
    Raises UserError for a file that cannot be read, a missing column, a column of another kind than is asked for, and if
    nothing is left.
    """
    files = [PictureFile(path) for path in paths]
    names = {_checked(file, columns, split) for file in files}
    if len(names) > 1:
        raise UserError(f"{source}: its files name the classes of {columns.label!r} differently; give those of one kind")
    rows: list[_Row] = []
    rejects: list[Reject] = []
    others: dict[str, None] = {}
    first = 0
    for file in files:
        for found in _rows(file, columns, split, others, first):
            (rows if isinstance(found, _Row) else rejects).append(found)  # type: ignore[arg-type]
        first += sum(file.group_sizes)
        if (largest := file.largest_group(columns.image)) > _KEPT_BYTES and max(file.group_sizes) > 1:
            say_some(
                f"{file.path}: up to {largest / 2**20:,.0f} MB are read for each picture out of order, because its row groups "
                "are large: training will be slow; `biomedclip data convert ... --to huggingface` writes small ones"
            )
    if not rows:
        if split and not any(name.lower() in names_of(split) for name in others):
            raise UserError(f"{source}: no split {split!r}; there are: {', '.join(filter(None, others)) or 'none'}")
        raise UserError(f"{source}: no usable pair in {first} rows{first_reject(rejects)}")
    return PicturePairs(files, columns.image, rows, rejects, names.pop())


def splits_of(paths: Sequence[Path], image: str) -> dict[str, None] | None:
    """What the column `split` of some files says, each name once; None where there is no such column."""
    found: dict[str, None] = {}
    for file in map(PictureFile, paths):
        own = dict(zip(spelled(file.schema.names, [image]), file.schema.names, strict=True)).get(SPLIT_COLUMN)
        if own is None:
            return None
        for group in range(len(file.group_sizes)):
            found |= {name: None for row in file.rows(group, [own]) if (name := text_of(row[own]))}
    return found


def _checked(file: PictureFile, columns: PictureColumns, split: str | None) -> tuple[str, ...]:
    """The names of the classes that the label column has, () for none. UserError for columns that do not fit."""
    from pyarrow import types

    schema, wanted = file.schema, [columns.image, *columns.texts, *([SPLIT_COLUMN] if split else [])]
    names = spelled(schema.names, wanted)
    check_twice(file.path, names)
    check_columns(file.path, wanted, names)
    kind = schema.field(columns.image).type
    if not is_picture(kind):
        raise UserError(f"{file.path}: column {columns.image!r} holds {kind}; expected pictures, as {{bytes, path}} or bytes")
    if columns.label is None:
        return ()
    kind = schema.field(columns.label).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_nested(kind) or is_picture(kind):
        advice = "; if pictures have several, say --multi-label" if types.is_list(kind) or types.is_large_list(kind) else ""
        several = "several classes a picture" if types.is_list(kind) or types.is_large_list(kind) else "no class"
        raise UserError(
            f"{file.path}: column {columns.label!r} holds {kind}, {several}; expected one name or number a picture: name "
            f"another column with --label-column{advice}"
        )
    return class_names(schema).get(columns.label, ())


def _rows(
    file: PictureFile, columns: PictureColumns, split: str | None, others: dict[str, None], first: int
) -> Iterator[_Row | Reject]:
    """The rows of a file. others: gets what the column `split` says. first: how many rows the files before have."""
    schema = file.schema
    called = dict(zip(spelled(schema.names, [columns.image, *columns.texts]), schema.names, strict=True))
    extra = [called[name] for name in (REFERENCES, *([SPLIT_COLUMN] if split else [])) if name in called]
    asked = list(dict.fromkeys([*columns.texts, *extra]))
    classes = class_names(schema)
    wanted = {name.lower() for name in names_of(split)} if split else set()
    row = -1
    for group in range(len(file.group_sizes)):
        paths, inside = file.paths(group, columns.image), file.have_bytes(group, columns.image)
        cells = file.rows(group, asked) if asked else [{}] * len(paths)
        for path, has_bytes, own in zip(paths, inside, cells, strict=True):
            row += 1
            name = row_name(file.path, row, path or "")
            if split:
                said = text_of(own[called[SPLIT_COLUMN]])
                others[said] = None
                if said.lower() not in wanted:
                    if reason := no_known_split(said, split):
                        yield Reject(str(first + row + 1), name, reason)
                    continue
            found = _texts(own, columns, classes, own.get(called.get(REFERENCES, "")))
            reason = found if isinstance(found, str) else None
            if reason is None and not has_bytes:
                reason = _not_beside(file.path, path)
            if reason is not None or isinstance(found, str):
                yield Reject(str(first + row + 1), name, reason or "")
            else:
                yield _Row(first + row, path or "", has_bytes, found)


def _texts(
    own: dict[str, Any], columns: PictureColumns, classes: dict[str, tuple[str, ...]], references: object
) -> Texts | str:
    """The texts of a row, or why it cannot be used."""

    def value(column: str) -> object:
        return named_class(own[column], classes[column]) if column in classes else own[column]

    captions = texts_of(value(columns.caption)) if columns.caption is not None else ()
    if columns.caption is not None and not captions:
        return absent("caption", value(columns.caption))
    label = None
    if columns.label is not None:
        found = value(columns.label)
        label = text_of(found)
        if not label:
            return absent("label", found)
        if columns.label in classes and isinstance(found, int):
            return f"label {found} is none of the {len(classes[columns.label])} classes that the schema names"
    more = texts_of(references) if isinstance(references, list) else ()
    return Texts(captions=captions, references=more, label=label)


def _not_beside(file: Path, path: str | None) -> str | None:
    """Why the picture of a row without bytes cannot be read; None where its file is there."""
    if not path:
        return "no picture: neither bytes nor a path"
    return None if os.path.isfile(file.parent / path) else f"no bytes, and its {not_there(Path(path))}"
