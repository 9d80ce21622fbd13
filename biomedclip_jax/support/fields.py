"""The fields of somebody else's JSON: every one is used, known to be harmless, or refused.

A config of another library says what a model computes. A field that nobody looks at is a model that computes
something else, and no number shows it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from biomedclip_jax.errors import UserError


@dataclass(frozen=True)
class Fields:
    """What the fields of one JSON object mean here.

    used: what the caller reads. harmless: {what changes nothing here: why}. only: {what has one meaning here: the values
    that have it}; a field that is not there has it, too.
    """

    used: Iterable[str] = ()
    harmless: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, given: Any, where: str) -> None:
        """UserError, beginning with `where`, for what is no object, an unknown field or a value that has no meaning here."""
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: found {shown(given)}; expected an object with fields")
        for name, value in given.items():
            if name in self.only and not any(same(value, allowed) for allowed in self.only[name]):
                allowed = ", ".join(map(shown, self.only[name]))
                raise UserError(
                    f"{where}: {name} = {shown(value)} is not supported; supported: {allowed}: this would be another model here"
                )
            if name not in self.only and name not in self.harmless and name not in self.used:
                raise UserError(
                    f"{where}: unknown or unsupported field {name!r} = {shown(value)}: it could change what the model "
                    "computes; if it does not, remove it from the file"
                )


def same(value: Any, other: Any) -> bool:
    """Whether two values of JSON are the same: 1 is 1.0, but not true."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def shown(value: Any) -> str:
    """A value for an error message, as Python writes it, and not long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def number(given: Mapping[str, Any], name: str, default: Any, where: str, *, least: float | None = None) -> Any:
    """The number in a field, `default` if it is not there. UserError for what is none, or is below `least`.

    A `default` that is a whole number asks for a whole number.
    """
    value = given.get(name, default)
    kinds = int if isinstance(default, int) else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not float("-inf") < value < float("inf"):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UserError(f"{where}: {name} = {shown(value)}: expected {kind}")
    if least is not None and value < least:
        raise UserError(f"{where}: {name} = {shown(value)}: expected a number from {least:g} on")
    return value


def choice(given: Mapping[str, Any], name: str, default: Any, known: Mapping[Any, Any], where: str) -> Any:
    """What `known` has for the value of a field, or for `default` if the field is not there. UserError for other values."""
    value = given.get(name, default)
    if isinstance(value, list | dict) or value not in known:
        raise UserError(f"{where}: {name} = {shown(value)} is not supported; supported: {', '.join(map(shown, known))}")
    return known[value]


def flag(given: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    """The truth in a field, `default` if it is not there. UserError for what is neither true nor false."""
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"{where}: {name} = {shown(value)}: expected true or false")
    return value
