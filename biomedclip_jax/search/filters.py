"""Filters of a search, as they are written: "license=CC BY", "year>=2015", "patient!=P7"."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from biomedclip_jax.errors import UserError

_FORM = re.compile(r"\s*(?P<column>[^=!<>]+?)\s*(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)", re.S)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Filter:
    """What a column must say. sign: = or != of texts (exactly as written, "" for nothing), < <= > >= of numbers."""

    column: str
    sign: str
    value: str

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)

    def wants(self, text: str) -> bool:
        """Whether a row with this text is wanted. A text that is no number is neither above nor below one."""
        if self.sign in ("=", "!="):
            return (text == self.value) == (self.sign == "=")
        found = number_of(text)
        return found is not None and _ORDER[self.sign](found, self.number)

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"


def number_of(text: str) -> float | None:
    """The finite number that a text is, else None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def parse_filters(filters: Sequence["str | Filter"], columns: Sequence[str]) -> list[Filter]:
    """The filters that texts mean. UserError for another form, and for a column that is not there, which lists them.

    A value is what stands behind the sign, without blanks and one pair of quotes round it; nothing means: no value.
    """
    found = [each if isinstance(each, Filter) else _parsed(each) for each in filters]
    for each in found:
        if each.column not in columns:
            near = difflib.get_close_matches(each.column, columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"filter {str(each)!r}: no column {each.column!r}; there are {', '.join(columns)}{hint}")
    return found


def _parsed(text: str) -> Filter:
    form = _FORM.fullmatch(text)
    if form is None:
        raise UserError(f"filter {text!r}: expected COLUMN=VALUE, with =, != or, of numbers, <, <=, >, >=")
    value = form["value"].strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    if form["sign"] in _ORDER and number_of(value) is None:
        raise UserError(f"filter {text!r}: {form['sign']} compares numbers, and {value!r} is none")
    return Filter(form["column"], form["sign"], value)
