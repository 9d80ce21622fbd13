"""Which dict of a PyTorch checkpoint holds the weights: it may be the whole file, or stand beside epoch and optimizer."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError

# what training scripts call them; one of these counts before a dict of another name
_NAMES = (
    *("state_dict", "model_state_dict", "model_state", "model_weights", "weights", "params"),
    *("model", "net", "network", "module", "clip", "clip_model"),
)
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loops|hyper_?param|hparam|config|args|rng|epoch|loss|criterion")


def say(line: str) -> None:
    """Tell the user, on stderr, how a file was read that can be read in more than one way."""
    print(line, file=sys.stderr)


def is_average(name: str) -> bool:
    """Whether a name says that what it holds is an average of weights over training."""
    words = re.split(r"[._\-\s]+", name.lower())
    return bool({"ema", "swa", "averaged", "shadow"} & set(words))


def state_dict_in(content: Mapping[Any, Any], path: Path, is_tensor: Callable[[Any], bool]) -> dict[str, Any]:
    """The names and tensors of the weights in a checkpoint's content.

    Of weights and their average the weights themselves are taken, which is said. UserError, with what is there, where
    nothing or several could be meant.
    """

    def tensors(given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            return {}
        return {name: x for name, x in given.items() if isinstance(name, str) and is_tensor(x)}

    found: dict[str, Mapping[Any, Any]] = {}
    for key, value in content.items():
        inner = isinstance(value, Mapping) and any(tensors(each) for each in value.values())
        if isinstance(key, str) and (tensors(value) or inner) and not _NO_WEIGHTS.search(key.lower()):
            found[key] = value
    if not found:
        if not tensors(content):
            there = ", ".join(f"{key} ({type(value).__name__})" for key, value in list(content.items())[:8]) or "nothing"
            raise UserError(f"{path}: no tensors by name in it, but {there}; expected a state dict (names to tensors)")
        return tensors(content)
    averages = [key for key in found if is_average(key)]
    plain = [key for key in found if key not in averages] or averages
    named = [key for key in plain if key in _NAMES] or plain
    if len(named) > 1:
        listed = ", ".join(f"{key} ({len(found[key])} entries)" for key in named)
        raise UserError(f"{path}: several could be the weights: {listed}; save the one that is meant alone, with torch.save")
    others = [key for key in found if key not in named]
    if others:
        said = ", ".join(f"{key}{' (an average of weights)' if key in averages else ''}" for key in others)
        say(f"{path}: the weights under {named[0]!r} are read; beside them is {said}: to use that, save it alone")
    elif named == averages:
        say(f"{path}: the weights under {named[0]!r}, an average, are read: there are no others")
    inside = found[named[0]]
    return state_dict_in(inside, path, is_tensor) if not tensors(inside) else tensors(inside)
