"""Configs in files: the Python of `configs/` that a user writes, and the JSON that a run folder keeps."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from biomedclip_jax.config import adapters, answering, data, losses, model, run, towers, training
from biomedclip_jax.config.run import TrainConfig
from biomedclip_jax.errors import UserError


def load_config(path: Path) -> TrainConfig:
    """Run the file and take its `config`. It may import its neighbours. UserError for a missing or broken file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a Python file that defines `config`, see configs/")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        config = runpy.run_path(str(path)).get("config")
    except UserError:
        raise
    except Exception as error:  # anything may go wrong in a file that somebody writes
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path}: expected it to define `config`, a biomedclip_jax.config.TrainConfig")
    return config


# every class that a saved config may name; no other one is ever made from a file
KINDS: dict[str, type] = {
    name: kind
    for home in (adapters, answering, towers, model, losses, data, training, run)
    for name, kind in vars(home).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def to_json(config: Any) -> str:
    """A config as indented JSON, for `config.json` in a run folder."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"kind": type(value).__name__} | fields
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return json.dumps(plain(config), indent=2)


def to_python(config: TrainConfig) -> str:
    """A config as a Python file that `load_config` reads: what differs from the defaults, to be edited and run again."""
    names: set[str] = set()

    def written(value: Any, indent: str) -> str:
        deeper = indent + "    "
        if isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
            return "(" + "".join(f"\n{deeper}{written(each, deeper)}," for each in value) + f"\n{indent})"
        if not dataclasses.is_dataclass(value):
            return repr(value)
        names.add(type(value).__name__)
        given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if getattr(value, f.name) != _default(f)}
        lines = "".join(f"\n{deeper}{name}={written(each, deeper)}," for name, each in given.items())
        return f"{type(value).__name__}({lines}\n{indent})" if lines else f"{type(value).__name__}()"

    content = written(config, "")
    imports = "".join(f"    {name},\n" for name in sorted(names))
    return f"from biomedclip_jax.config import (\n{imports})\n\nconfig = {content}\n"


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_json(text: str) -> Any:
    """The config that `to_json` wrote. UserError, one line, for what is no JSON, or no config of ours."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"not a config: expected an object with `kind`, found {type(value).__name__}")
    return _built(value)


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_built, value))
    if not isinstance(value, dict):
        return value
    name = value.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        found = "no kind" if name is None else f"kind {name!r}"
        raise UserError(f"{found}: expected one of {', '.join(sorted(KINDS))}")
    given = {field: _built(part) for field, part in value.items() if field != "kind"}
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := [field for field in given if field not in known]:
        raise UserError(f"{name}.{unknown[0]}: no such field; expected {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except (TypeError, AttributeError, ValueError) as error:  # a field that is missing, or whose value is of another type
        raise UserError(f"{name}: {error}") from error
