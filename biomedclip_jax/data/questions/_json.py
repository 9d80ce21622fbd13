"""JSON files that are one list of objects, read strictly."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data._table_rows import object_of
from biomedclip_jax.errors import UserError


def json_rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a list; each has `keys`. UserError, which names file and row, for anything else."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=object_of)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a list of questions as JSON") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected a list of questions, found {'an empty list' if rows == [] else type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: expected an object, found {type(row).__name__}")
        if missing := [key for key in keys if key not in row]:
            raise UserError(f"{path}, row {number}: no {missing[0]!r} in it; there are {', '.join(row)}")
    return rows


def text_in(row: Mapping[str, Any], key: str) -> str:
    """A text of a row with single blanks; "" where there is none, or "NULL"."""
    value = row.get(key)
    text = "" if value is None else " ".join(str(value).split())
    return "" if text == "NULL" else text


def below(folder: Path, names: Sequence[str]) -> str:
    """What to add to an error where a folder just below has a file of one of these names; "" where none has."""
    inside = sorted(each for each in folder.glob("*") if each.is_dir()) if folder.is_dir() else []
    found = next((each for each in inside if any((each / name).is_file() for name in names)), None)
    return f"; {found} has them: give that folder" if found else ""
