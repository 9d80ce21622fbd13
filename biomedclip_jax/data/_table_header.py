"""The first line of a table: whether it has the columns that are asked for, and what is wrong where it has not."""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.errors import UserError

DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
# columns that no option renames: "Split" of a spreadsheet is meant, too
_ANY_CASE = ("split", "references", "answer_type", "question_type")


_FIELD = re.compile(r"\{([^{}]+)\}")


class NoColumn(UserError):
    """A column that is asked for and is not there."""


def fields_of(column: str) -> list[str]:
    """The columns that are put together where a text with columns in braces stands for one, "train/{ID}.jpg"; else [].

    UserError for braces that do not close.
    """
    if "{" not in column and "}" not in column:
        return []
    found = _FIELD.findall(column)
    if not found or set("{}") & set(_FIELD.sub("", column)):
        raise UserError(f"column {column!r}: expected a name, or a text with names in braces, such as 'images/{{ID}}.jpg'")
    return list(dict.fromkeys(found))


def put_together(column: str, texts: Mapping[str, str]) -> str:
    """What "train/{ID}.jpg" is for the texts of a row; "" where one of them is empty."""
    return _FIELD.sub(lambda field: texts[field[1]], column) if all(texts.values()) else ""


def spelled(names: list[str], columns: Sequence[str]) -> list[str]:
    """The names of the columns, with "split" and others written so where they differ in case or blanks.

    columns: those that are asked for by their exact names.
    """
    meant = {name: name.strip().lower() for name in names if name not in columns}
    return [own if (own := meant.get(name)) in _ANY_CASE and own not in names else name for name in names]


def check_header(path: Path, columns: Sequence[str], names: list[str], delimiter: str) -> None:
    """UserError for a header of CSV or TSV without the columns that are asked for, with the likely reason."""
    check_twice(path, names)
    if all(column in names for column in columns):
        return
    for other, called in DELIMITERS.items():
        parts = [part.strip().strip('"') for part in delimiter.join(names).split(other)]
        if other != delimiter and all(column in parts for column in columns):
            advice = {"\t": "name it .tsv", ",": "name it .csv"}.get(other, "save it with commas between them")
            raise UserError(f"{path}: its cells are separated by {called}, not {DELIMITERS[delimiter]}; {advice}")
    if data := next((name for name in names if _looks_like_an_image(path, name)), None):
        raise UserError(
            f"{path}: no header: its first line has {data!r}, which is an image; write a first line with the names of the "
            f"columns, {', '.join(map(repr, columns))} among them"
        )
    check_columns(path, columns, names)


def _looks_like_an_image(path: Path, cell: str) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES) or ("." in cell and len(cell) < 200 and (path.parent / cell).is_file())


def check_twice(path: Path, names: Sequence[str]) -> None:
    """UserError for a name that two columns have."""
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            where = ", ".join(str(number) for number, each in enumerate(names, 1) if each == name)
            raise UserError(f"{path}: column {name!r} is there {count} times (columns {where}); rename all but one")


def check_columns(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    """UserError for a column that is not there; it names those that are, and the nearest."""
    for column in columns:
        if column not in names:
            nearest = [name for name in names if name.strip().lower() == column.lower()]
            nearest = nearest or difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise NoColumn(f"{path}: no column {column!r}; there are {', '.join(map(repr, names))}{hint}")


def is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a line is the header once more, as in tables that were put together."""
    return [cell.strip("\ufeff \t").lower() for cell in cells] == [name.lower() for name in header]
