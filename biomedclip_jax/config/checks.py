"""What the dataclasses say of their fields: whether a value is right (else a `UserError` that names it), what may change."""

import dataclasses
from typing import Any, TypeVar, get_args

from biomedclip_jax.errors import UserError

Value = TypeVar("Value")


def operational(default: Value) -> Value:
    """A field, with its default, that changes the speed, memory or record of a run and never its result."""
    return dataclasses.field(default=default, metadata={"operational": True})  # type: ignore[no-any-return, call-overload]


def decisive(config: Any) -> Any:
    """The config with every operational field, at any depth, at its default: what is left decides the result."""
    if isinstance(config, tuple):
        return tuple(map(decisive, config))
    if not dataclasses.is_dataclass(config):
        return config
    fields = dataclasses.fields(config)
    return dataclasses.replace(
        config,  # type: ignore[type-var]
        **{f.name: f.default if f.metadata.get("operational") else decisive(getattr(config, f.name)) for f in fields},
    )


def check(condition: bool, owner: object, field: str, expected: str) -> None:
    """UserError, in one line with the field, its value and what was expected, unless the condition is true."""
    if not condition:
        raise UserError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: expected {expected}")


def check_choices(owner: Any, **choices: Any) -> None:
    """UserError for a field whose value its `Literal` does not list. choices: field=Literal[...]."""
    for field, literal in choices.items():
        allowed = get_args(literal)
        check(getattr(owner, field) in allowed, owner, field, "one of " + ", ".join(map(repr, allowed)))


def check_positive(owner: Any, *fields: str) -> None:
    """UserError for a field whose value is not a whole number above 0."""
    for field in fields:
        value = getattr(owner, field)
        check(isinstance(value, int) and not isinstance(value, bool) and value > 0, owner, field, "a whole number above 0")


def check_patterns(owner: Any, field: str, patterns: Any) -> None:
    """UserError unless the patterns are a tuple of texts, none of them empty."""
    fits = isinstance(patterns, tuple) and all(isinstance(pattern, str) and pattern for pattern in patterns)
    check(fits, owner, field, 'a tuple of parameter paths, such as ("text", "*_head")')


def check_heads(owner: Any) -> None:
    """UserError unless the width of a tower is a multiple of its attention heads."""
    check(owner.width % owner.heads == 0, owner, "heads", f"a divisor of width = {owner.width}")
