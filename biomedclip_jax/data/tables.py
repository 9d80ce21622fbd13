"""Pairs from a table: CSV, TSV, JSON lines or Parquet, with image paths relative to the file."""

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.names import names_of
from biomedclip_jax.data.pairs import Pair, Reject, Texts, file_state, fingerprint, first_reject
from biomedclip_jax.errors import UserError, first_line

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_COLUMN = "split"
REFERENCES = "references"  # the column, if there is one, of paragraphs that mention the figure

Row = dict[str, Any]


class TextBlock:
    """Some texts for each of n rows, in one piece of memory: worker processes get it as fast as it can be copied."""

    def __init__(self, rows: Iterable[Sequence[str]]):
        parts: list[bytes] = []
        ends, counts = [0], [0]
        for row in rows:
            for text in row:
                parts.append(text.encode("utf-8", "surrogatepass"))  # JSON may hold half a character
                ends.append(ends[-1] + len(parts[-1]))
            counts.append(len(parts))
        self._bytes = b"".join(parts)
        self._ends = np.array(ends, np.int64)
        self._counts = np.array(counts, np.int64)

    def __getitem__(self, index: int) -> tuple[str, ...]:
        first, last = self._counts[index], self._counts[index + 1]
        ends = self._ends[first : last + 1].tolist()
        return tuple(self._bytes[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(ends))


class TablePairs:
    """The usable rows of a table as pairs."""

    def __init__(self, folder: Path, images: Sequence[str], texts: Sequence[Texts], rejects: list[Reject]):
        self.rejects = rejects
        self._folder = folder
        self._count = len(images)
        self._images = TextBlock([image] for image in images)
        self._captions = TextBlock(text.captions for text in texts)
        self._references = TextBlock(text.references for text in texts)
        self._labels = TextBlock([] if text.label is None else [text.label] for text in texts)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Pair:
        path = self._folder / self._images[index][0]
        return Pair(image=path, name=str(path), **vars(self.texts(index)))

    def texts(self, index: int) -> Texts:
        """The texts of a pair; see `Pairs.texts`."""
        label = self._labels[index]
        return Texts(captions=self._captions[index], references=self._references[index], label=label[0] if label else None)

    def name(self, index: int) -> str:
        """The name that messages give to an image."""
        return str(self._folder / self._images[index][0])

    def image_versions(self) -> Iterator[str]:
        """Strings that change when an image, or the order of the images, does; no image is read for them."""
        yield f"TablePairs {len(self)}"
        yield fingerprint(file_state(self.name(index)) for index in range(len(self)))


def read_table(
    path: Path, image_column: str, caption_column: str, label_column: str | None = None, split: str | None = None
) -> TablePairs:
    """Read a table of images and captions.

    Rows without a caption, a label or an existing image file are left out and listed in `rejects`.
    A caption may be a text or, in JSON lines and Parquet, a list of texts. A column `references` that holds lists is
    read too.
    split: only the rows whose column `split` says so, under any of its names; without it all rows.
    Raises UserError for a missing file, a missing column (naming those that exist), an encoding other than UTF-8, and
    a table of which nothing is left.
    """
    columns = [image_column, caption_column, *([label_column] if label_column else []), *([SPLIT_COLUMN] if split else [])]
    wanted, others = names_of(split) if split else (), dict[str, None]()
    images: list[str] = []
    texts: list[Texts] = []
    rejects: list[Reject] = []
    for number, row in enumerate(table_rows(path, columns, [REFERENCES]), 1):
        if split and (own := text_of(row[SPLIT_COLUMN])).lower() not in wanted:
            others[own] = None
            continue
        image = image_file(path, row, image_column)
        captions = texts_of(row[caption_column])
        label = text_of(row[label_column]) if label_column else None
        if not captions:
            reason = "caption is empty"
        elif not os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
            reason = "image file is not there"
        else:
            reason = "label is empty" if label == "" else None
        if reason:
            rejects.append(Reject(str(number), str(image), reason))
            continue
        references = row.get(REFERENCES)
        images.append(str(row[image_column]))
        more = texts_of(references) if isinstance(references, list) else ()
        texts.append(Texts(captions=captions, references=more, label=label))
    if not images:
        if split and not rejects:
            raise UserError(f"{path}: no split {split!r}; there are: {', '.join(filter(None, others)) or 'none'}")
        raise UserError(f"{path}: no usable pair in {len(rejects)} rows{first_reject(rejects)}")
    return TablePairs(path.parent, images, texts, rejects)


def table_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a table by column name; each has `columns`, and those of `optional` that exist.

    Raises UserError for a missing file, a missing column (naming those that exist) and what cannot be read.
    """
    try:
        for row in _rows(path, columns, optional):
            _check_columns(path, columns, row)
            yield row
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a table with {', '.join(map(repr, columns))}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save the table as UTF-8") from error
    except (OSError, csv.Error) as error:  # csv.Error: a quote that is never closed
        raise UserError(f"{path}: not readable as a table ({error})") from error


def image_file(path: Path, row: Row, column: str) -> Path:
    """The image file that a row of the table at `path` names. UserError for a column of something else."""
    name = row[column]
    if not isinstance(name, str | int | float | None):
        raise UserError(f"{path}: column {column!r} holds no paths of image files but {type(name).__name__}")
    return path.parent / str(name)


def _rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise UserError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from error
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number}: expected one object a line, found {type(row).__name__}")
                    yield row
    elif path.suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path, columns, optional)
    else:
        kinds = ", ".join(TABLE_SUFFIXES[:-1])
        raise UserError(f"{path}: unknown kind of table; expected a name that ends in {kinds} or {TABLE_SUFFIXES[-1]}")


def _parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'") from None
    try:
        with path.open("rb") as content, ParquetFile(content) as file:
            there = dict.fromkeys(file.schema_arrow.names)
            _check_columns(path, columns, there)
            for batch in file.iter_batches(columns=[name for name in there if name in (*columns, *optional)]):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise UserError(f"{path}: not readable as Parquet ({first_line(error)}); write it again") from error


def _check_columns(path: Path, columns: Sequence[str], row: Row) -> None:
    for column in columns:
        if column not in row:
            names = [name for name in row if isinstance(name, str)]
            nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise UserError(f"{path}: no column {column!r}; there are {', '.join(map(repr, names))}{hint}")


def text_of(value: object) -> str:
    """The text of a cell without spaces round it; "" for None."""
    return "" if value is None else str(value).strip()


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of a cell, which may hold a list, without the empty ones."""
    return tuple(filter(None, map(text_of, value if isinstance(value, list) else [value])))
