"""The checks that the dataclasses make of their fields: a wrong value is a `UserError` that names class and field."""

from typing import Any, get_args

from biomedclip_jax.errors import UserError


def check(condition: bool, owner: object, field: str, expected: str) -> None:
    if not condition:
        raise UserError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: expected {expected}")


def check_choices(owner: Any, **choices: Any) -> None:
    for field, literal in choices.items():
        allowed = get_args(literal)
        check(getattr(owner, field) in allowed, owner, field, "one of " + ", ".join(map(repr, allowed)))


def check_positive(owner: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(owner, field)
        check(isinstance(value, int) and not isinstance(value, bool) and value > 0, owner, field, "a whole number above 0")


def check_patterns(owner: Any, field: str, patterns: Any) -> None:
    fits = isinstance(patterns, tuple) and all(isinstance(pattern, str) and pattern for pattern in patterns)
    check(fits, owner, field, 'a tuple of parameter paths, such as ("text", "*_head")')


def check_heads(owner: Any) -> None:
    check(owner.width % owner.heads == 0, owner, "heads", f"a divisor of width = {owner.width}")
