"""Rows of a table, read strictly: CSV, TSV, JSON lines or Parquet.

A row that is not what the header says is handed to `rejects`, with its line; what puts the whole table in doubt, such
as a quote that is never closed, is an error that names the line. Nothing is joined, cut or dropped without a word.
"""

import csv
import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError, first_line

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Row = dict[str, Any]

# cells that say that there is no value, as pandas has them: in any case, and exactly so ("none" can be a class)
_MISSING = frozenset(
    ["#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "-nan", "<na>", "n/a", "nan", "null"]
)
_MISSING_AS_WRITTEN = frozenset(["NA", "None"])
_DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
_FEWEST_MERGED = 3  # lines in one cell that each look like a row


def is_table(name: str | Path) -> bool:
    """Whether a name has the ending of a table, in upper or lower case."""
    return Path(name).suffix.lower() in TABLE_SUFFIXES


def table_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), rejects: list[Reject] | None = None
) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their numbers, from 1; each has `columns`, and those of `optional` that exist.

    rejects: takes the rows that do not fit the header; None: the first of them is an error. Raises UserError for a
    missing file, a missing column (naming those that exist, and the likely reason), a column that is there twice, an
    encoding other than UTF-8, quotes that do not close, and whatever else cannot be read as a table.
    """
    try:
        for number, row in enumerate(_rows(path, columns, optional), 1):
            if isinstance(row, dict):
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
    name = row[column]
    if not isinstance(name, str | int | float | None):
        raise UserError(f"{path}: column {column!r} holds no paths of image files but {type(name).__name__}")
    return path.parent / str(name)


def text_of(value: object) -> str:
    """The text of a cell without spaces round it; "" for None, NaN and words for no value (N/A, nan ...).

    A float that is a whole number, as pandas writes labels into Parquet, is that number: 1.0 is "1".
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if text.lower() in _MISSING or text in _MISSING_AS_WRITTEN else text


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of a cell, which may hold a list, without the empty ones."""
    return tuple(filter(None, map(text_of, value if isinstance(value, list) else [value])))


def absent(what: str, value: object) -> str:
    """Why a cell is no caption or label: "label is empty", or "label is missing ('N/A')"."""
    found = "" if value is None or isinstance(value, list) else str(value).strip()
    return f"{what} is missing ({found!r})" if found else f"{what} is empty"


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
            return _parquet_rows(path, columns, optional)
    kinds = ", ".join(TABLE_SUFFIXES[:-1])
    raise UserError(f"{path}: unknown kind of table; expected a name that ends in {kinds} or {TABLE_SUFFIXES[-1]}")


def _csv_rows(path: Path, columns: Sequence[str], delimiter: str, quoting: Any) -> Iterator[Row | str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_without_nul(path, file), delimiter=delimiter, quoting=quoting, strict=True)
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
                header = [cell.strip() for cell in cells]
                _check_header(path, columns, header, delimiter)
            else:
                yield _csv_row(header, cells, first, delimiter)


def _csv_row(header: Sequence[str], cells: list[str], line: int, delimiter: str) -> Row | str:
    while len(cells) > len(header) and not cells[-1].strip():
        cells = cells[:-1]  # delimiters at the end of a line hold nothing
    if len(cells) != len(header):
        hint = f"; a text with {_DELIMITERS[delimiter]} in it must stand in quotes" if len(cells) > len(header) else ""
        return f"line {line}: {len(cells)} cells where the header has {len(header)} columns{hint}"
    for cell in cells:
        if (lines := _merged_lines(cell, len(header), delimiter)) > 0:
            return f"line {line}: one cell holds {lines} lines that look like rows; a quote in it seems to be never closed"
    return dict(zip(header, cells, strict=True))


def _merged_lines(cell: str, columns: int, delimiter: str) -> int:
    """Lines of a cell, after its first, that look like rows of the table; 0 where a text may well have such lines."""
    inner = cell.replace("\r\n", "\n").split("\n")[1:] if "\n" in cell else []
    alike = sum(line.count(delimiter) == columns - 1 for line in inner)
    return alike if columns > 1 and alike >= max(_FEWEST_MERGED, 0.8 * len(inner)) else 0


def _without_nul(path: Path, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(f"{path}, line {number}: a NUL byte; the file is damaged, or not UTF-8: save the table as UTF-8")
        yield line


def _csv_fault(error: csv.Error, first: int, last: int) -> str:
    if "expected after" in str(error):
        since = f", or the quote that opens on line {first} is not closed where it should be" if last > first else ""
        return f'text after a closing quote on line {last}; a quote inside a text is written twice (""){since}'
    if "end of data" in str(error) or "field larger" in str(error):
        return "a quote that opens here is never closed"
    return str(error)


def _quotes_balance(path: Path) -> bool:
    """Whether a file of tabs reads as one whose cells may be quoted; most programs write tabs without any quoting."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.reader((line.replace("\0", "") for line in file), delimiter="\t", strict=True)
            widths = {len(row) for row in rows if row}
        except csv.Error:
            return False
    return len(widths) <= 1


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row | str]:
    known = False
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected one object a line, found {type(row).__name__}")
            if missing := [column for column in columns if column not in row]:
                if not known:
                    _check_columns(path, columns, list(row))
                yield f"line {number}: no {missing[0]!r} in it"
                continue
            known = True
            yield row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found


def _parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row | str]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'") from None
    try:
        with path.open("rb") as content, ParquetFile(content) as file:
            names = file.schema_arrow.names
            _check_twice(path, names)
            _check_columns(path, columns, names)
            for batch in file.iter_batches(columns=[name for name in names if name in (*columns, *optional)]):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise UserError(f"{path}: not readable as Parquet ({first_line(error)}); write it again") from error


# --- headers --------------------------------------------------------------------------------------------------------


def _check_header(path: Path, columns: Sequence[str], names: list[str], delimiter: str) -> None:
    _check_twice(path, names)
    if all(column in names for column in columns):
        return
    for other, called in _DELIMITERS.items():
        parts = [part.strip().strip('"') for part in delimiter.join(names).split(other)]
        if other != delimiter and all(column in parts for column in columns):
            advice = {"\t": "name it .tsv", ",": "name it .csv"}.get(other, "save it with commas between them")
            raise UserError(f"{path}: its cells are separated by {called}, not {_DELIMITERS[delimiter]}; {advice}")
    if data := next((name for name in names if _looks_like_an_image(path, name)), None):
        raise UserError(
            f"{path}: no header: its first line has {data!r}, which is an image; write a first line with the names of the "
            f"columns, {', '.join(map(repr, columns))} among them"
        )
    _check_columns(path, columns, names)


def _looks_like_an_image(path: Path, cell: str) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES) or ("." in cell and len(cell) < 200 and (path.parent / cell).is_file())


def _check_twice(path: Path, names: Sequence[str]) -> None:
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            where = ", ".join(str(number) for number, each in enumerate(names, 1) if each == name)
            raise UserError(f"{path}: column {name!r} is there {count} times (columns {where}); rename all but one")


def _check_columns(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    for column in columns:
        if column not in names:
            nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise UserError(f"{path}: no column {column!r}; there are {', '.join(map(repr, names))}{hint}")


def _begins_as_utf16(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\xff\xfe", b"\xfe\xff")
