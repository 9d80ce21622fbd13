"""Rows of a table, read strictly: CSV, TSV, JSON lines or Parquet.

A row that is not what the header says is handed to `rejects`, with its line; what puts the whole table in doubt, such
as a quote that is never closed, is an error that names the line. Nothing is joined, cut or dropped without a word.
"""

import csv
import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data._parquet_rows import arrow_rows, parquet_rows
from biomedclip_jax.data._table_header import (
    DELIMITERS,
    check_columns,
    check_header,
    fields_of,
    is_header,
    put_together,
    spelled,
)
from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Row = dict[str, Any]

# cells that say that there is no value, as pandas has them: in any case, and exactly so ("none" can be a class)
_MISSING = frozenset(
    ["#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "-nan", "<na>", "n/a", "nan", "null"]
)
_MISSING_AS_WRITTEN = frozenset(["NA", "None"])
_ADDRESS = re.compile(r"\b[a-z0-9]{2,}:/")
_FEWEST_MERGED = 3  # lines in one cell that each look like a row


def is_table(name: str | Path) -> bool:
    """Whether a name has the ending of a table, in upper or lower case."""
    return Path(name).suffix.lower() in TABLE_SUFFIXES


def table_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), rejects: list[Reject] | None = None
) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their numbers, from 1; each has `columns`, and those of `optional` that exist.

    A column may also be a text with columns in it, "train/{ID}.jpg": then each row has that, put together.
    "split" and "references" are found in any case.

    rejects: takes the rows that do not fit the header; None: the first of them is an error. Raises UserError for a
    missing file, a missing column (naming those that exist, and the likely reason), a column that is there twice, an
    encoding other than UTF-8, quotes that do not close, and whatever else cannot be read as a table.
    """
    made = {column: fields for column in columns if (fields := fields_of(column))}
    columns = list(dict.fromkeys(field for column in columns for field in made.get(column, [column])))
    try:
        for number, row in enumerate(_rows(path, columns, optional), 1):
            if isinstance(row, dict):
                for column, fields in made.items():
                    row[column] = put_together(column, {field: text_of(row[field]) for field in fields})
                yield number, row
            elif rejects is None:
                raise UserError(f"{path}, {row}")
            else:
                rejects.append(Reject(str(number), str(path), row))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a table with {', '.join(map(repr, columns))}") from None
    except UnicodeDecodeError as error:
        hint = " (it begins as UTF-16 does)" if _begins_as_utf16(path) else ""
        raise UserError(f"{path}: not UTF-8{hint} ({error}); save the table as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: not readable as a table ({error})") from error


def image_file(path: Path, row: Row, column: str) -> Path:
    """The image file that a row of the table at `path` names. UserError for a column of something else."""
    return path.parent / image_name(path, row, column)


def image_name(path: Path, row: Row, column: str) -> str:
    """The path of an image as the table at `path` has it, or as its file is called: without the blanks round it, with /
    for the \\ of Windows, or with accents stored otherwise, as on a Mac. UserError as of `image_file`.
    """
    name = row[column]
    if not isinstance(name, str | int | float | None):
        raise UserError(f"{path}: column {column!r} holds no paths of image files but {type(name).__name__}")
    name = str(name)
    plain = name.strip().replace("\\", "/")
    others = {name.strip(): None, plain: None}
    if not plain.isascii():
        others |= {unicodedata.normalize(form, plain): None for form in ("NFC", "NFD")}
    if list(others) == [name] or os.path.isfile(path.parent / name):
        return name
    return next((other for other in others if os.path.isfile(path.parent / other)), name)


def not_there(image: Path) -> str:
    """Why an image file of a table cannot be used, and what to do where its path shows that."""
    reason = "image file is not there"
    if not image.suffix:
        return f"{reason}, and its name has no ending; name a folder and an ending in the image column: 'images/{{COLUMN}}.jpg'"
    if _ADDRESS.search(str(image)):
        return f"{reason}: it is an address; download it, and write where it is on this machine"
    return f"{reason}: a path of Windows; write it relative to the table" if "\\" in str(image) else reason


def text_of(value: object) -> str:
    """The text of a cell without spaces round it; "" for None, NaN and words for no value (N/A, nan ...).

    A float that is a whole number, as pandas writes labels into Parquet, is that number: 1.0 is "1". Bytes are UTF-8, and
    a list of one is that one. "" for what is no text: objects, other lists, bytes in another encoding.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = _decoded(value)
    if value is None or isinstance(value, list | tuple | dict) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if text.lower() in _MISSING or text in _MISSING_AS_WRITTEN else text


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of a cell, which may hold a list, without the empty ones; none where one is no text (see `text_of`)."""
    values = value if isinstance(value, list) else [value]
    return () if any(map(_kind_of_no_text, values)) else tuple(filter(None, map(text_of, values)))


def absent(what: str, value: object) -> str:
    """Why a cell is no caption or label: "label is empty", "label is missing ('N/A')", or "label holds dict, not text"."""
    values = value if isinstance(value, list) else [value]
    if kind := next(filter(None, map(_kind_of_no_text, values)), None):
        return f"{what} holds {kind}, not text"
    if len([each for each in values if text_of(each)]) > 1:
        return f"{what} holds {len(values)} values where one is expected"
    found = "" if value is None or isinstance(value, list | bytes) else str(value).strip()
    return f"{what} is missing ({found!r})" if found else f"{what} is empty"


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _kind_of_no_text(value: object) -> str | None:
    """What a value is that is no text, number or nothing, in a word."""
    if isinstance(value, bytes):
        return "bytes that are not UTF-8" if _decoded(value) is None else None
    return type(value).__name__ if isinstance(value, list | tuple | dict) else None


# --- kinds of table -------------------------------------------------------------------------------------------------


def _rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row | str]:
    """The rows in order; for one that cannot be used, the line and the reason."""
    match path.suffix.lower():
        case ".csv":
            return _csv_rows(path, columns, ",", csv.QUOTE_MINIMAL)
        case ".tsv":
            return _csv_rows(path, columns, "\t", csv.QUOTE_MINIMAL if _quotes_balance(path) else csv.QUOTE_NONE)
        case ".jsonl":
            return _json_rows(path, columns)
        case ".parquet":
            return parquet_rows(path, columns, optional)
        case ".arrow":
            return arrow_rows(path, columns, optional)
    kinds = ", ".join(TABLE_SUFFIXES[:-1])
    raise UserError(f"{path}: unknown kind of table; expected a name that ends in {kinds} or {TABLE_SUFFIXES[-1]}")


def _csv_rows(path: Path, columns: Sequence[str], delimiter: str, quoting: Any) -> Iterator[Row | str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _without_nul(path, file)
        # "a.png, "a text"" is how many write by hand; blanks round texts are nothing to us
        after_comma = delimiter == ","
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=after_comma)
        header: list[str] | None = None
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{path}, line {first}: {_csv_fault(error, first, reader.line_num)}") from error
            if cells is None:
                break
            if not any(cell.strip() for cell in cells) and len(cells) <= 1:
                continue  # an empty line
            if header is None:
                if _says_delimiter(cells):
                    continue
                header = spelled([cell.strip() for cell in cells], columns)
                check_header(path, columns, header, delimiter)
            else:
                yield _csv_row(header, cells, first, delimiter)


def _says_delimiter(cells: Sequence[str]) -> bool:
    """Whether this is the line "sep=;" that Excel writes above a header; whether it is right the header shows."""
    first = cells[0].strip().lower()
    return first.startswith("sep=") and len(first) <= len("sep=;") and not any(cells[1:])


def _without_end(cells: list[str], columns: int) -> list[str]:
    """The cells of a line without those that delimiters at its end make, which hold nothing."""
    while len(cells) > columns and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _csv_row(header: Sequence[str], cells: list[str], line: int, delimiter: str) -> Row | str:
    cells = _without_end(cells, len(header))
    if len(cells) != len(header):
        hint = f"; a text with {DELIMITERS[delimiter]} in it must stand in quotes" if len(cells) > len(header) else ""
        return f"line {line}: {len(cells)} cells where the header has {len(header)} columns{hint}"
    for cell in cells:
        if (lines := _merged_lines(cell, len(header), delimiter)) > 0:
            looks = "a line that looks like a row" if lines == 1 else f"{lines} lines that look like rows"
            return f"line {line}: one cell holds {looks}; a quote in it seems to be never closed"
    if cells[-1].strip().lower() == header[-1].lower() and is_header(cells, header):
        return f"line {line}: the header once more"  # of tables that were put together
    return dict(zip(header, cells, strict=True))


def _merged_lines(cell: str, columns: int, delimiter: str) -> int:
    """Lines of a cell, after its first, that look like rows of the table; 0 where a text may well have such lines."""
    inner = cell.replace("\r\n", "\n").split("\n")[1:] if "\n" in cell else []
    if with_image := sum(any(map(_names_image, line.split(delimiter)[:-1])) for line in inner):
        return with_image
    alike = sum(line.count(delimiter) == columns - 1 for line in inner)
    return alike if columns > 1 and alike >= max(_FEWEST_MERGED, 0.8 * len(inner)) else 0


def _names_image(cell: str) -> bool:
    return cell.strip().lower().endswith(IMAGE_SUFFIXES) and " " not in cell.strip()


def _without_nul(path: Path, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(f"{path}, line {number}: a NUL byte; the file is damaged, or not UTF-8: save the table as UTF-8")
        yield line


def _csv_fault(error: csv.Error, first: int, last: int) -> str:
    if "expected after" in str(error):
        since = f", or the quote that opens on line {first} is not closed where it should be" if last > first else ""
        return f'text after a closing quote on line {last}; a quote inside a text is written twice (""){since}'
    if "field larger" in str(error):
        return f"a quote that opens here is never closed, or a cell has more than {csv.field_size_limit():,} characters"
    if "end of data" in str(error):
        return "a quote that opens here is never closed"
    return str(error)


def _quotes_balance(path: Path) -> bool:
    """Whether a file of tabs reads as one whose cells may be quoted; most programs write tabs without any quoting.

    It does unless a quote is out of place, more lines fit the header as they stand, or all do and there are more of them.
    """
    try:
        quoted, plain = _fit(path, csv.QUOTE_MINIMAL), _fit(path, csv.QUOTE_NONE)
    except csv.Error:
        return False
    return quoted[0] < plain[0] or (quoted[0] == plain[0] and quoted[1] >= plain[1])


def _fit(path: Path, quoting: Any) -> tuple[int, int]:
    """How many rows of a file of tabs do not fit its header, and how many there are."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader((line.replace("\0", "") for line in file), delimiter="\t", quoting=quoting, strict=True)
        rows = (row for row in reader if row and not _says_delimiter(row))
        columns = len(next(rows, []))
        fits = [len(_without_end(row, columns)) == columns for row in rows]
    return fits.count(False), len(fits)


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row | str]:
    known = False
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=object_of)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected one object a line, found {type(row).__name__}")
            row = dict(zip(spelled(list(row), columns), row.values(), strict=True))
            for column in columns:
                if column not in row and (inner := _inside(row, column)):
                    row[column] = inner[0]
            if missing := [column for column in columns if column not in row]:
                if not known:
                    check_columns(path, columns, list(row))
                yield f"line {number}: no {missing[0]!r} in it"
                continue
            known = True
            yield row


def _inside(row: Row, column: str) -> list[Any]:
    """The value at a path such as "Description.Caption" in nested objects; [] where there is none."""
    first, dot, rest = column.partition(".")
    inner = row.get(first)
    if not dot or not isinstance(inner, dict):
        return []
    return [inner[rest]] if rest in inner else _inside(inner, rest)


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: an object. ValueError for a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found


def _begins_as_utf16(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\xff\xfe", b"\xfe\xff")
