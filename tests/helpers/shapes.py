"""The type checker that reads the shapes in signatures, `Float[Array, "B N D"]`, at each call; see `conftest.py`."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def checked(function: Callable) -> Callable:
    """The function, which now checks its arrays. Other arguments are not looked at."""
    arrays = {name: hint for name, hint in function.__annotations__.items() if _has_shape(hint)}
    if not arrays:
        return function
    function.__annotations__ = arrays
    return beartype(function)


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))
