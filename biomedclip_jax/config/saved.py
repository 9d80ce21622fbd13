"""Configs as JSON, for the run folder, and back."""

import dataclasses
import json
from typing import Any

from biomedclip_jax.config import adapters, data, losses, model, run, towers, training

_HOMES = (adapters, towers, model, losses, data, training, run)


def to_json(config: Any) -> str:
    """A config as indented JSON, for `config.json` in a run folder. Functions are written by name."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"kind": type(value).__name__} | fields
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if callable(value):
            return f"{value.__module__}.{value.__qualname__}"
        return value

    return json.dumps(plain(config), indent=2)


def from_json(text: str) -> Any:
    """The config that `to_json` wrote. `prepare` is a function and comes back as None: the data is there by then."""

    def build(value: Any) -> Any:
        if isinstance(value, dict):
            fields = {name: build(v) for name, v in value.items() if name not in ("kind", "prepare")}
            home = next(home for home in _HOMES if hasattr(home, value["kind"]))
            return getattr(home, value["kind"])(**fields)
        return tuple(build(v) for v in value) if isinstance(value, list) else value

    return build(json.loads(text))
