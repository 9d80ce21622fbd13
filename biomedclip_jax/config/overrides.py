"""Typed flags for every field of a config, at any depth: `--optimizer.learning-rate 1e-4 --stages.0.batch-size 64`.

A flag is the path to the field; what it takes follows from the field's annotation. Not a library: tyro understands our
dataclasses as well, but through its public interface a mistake is a drawn box of several lines, never one line.
"""

import dataclasses
import difflib
import inspect
import math
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from biomedclip_jax.errors import UserError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Field:
    """A field that is no dataclass itself. `path` is as in Python, such as `stages.0.batch_size`."""

    path: str
    kind: Any  # its annotation
    value: Any
    comment: str  # the one beside it in the source, or ""

    @property
    def flag(self) -> str:
        """How it is spelled on the command line."""
        return _flag(self.path)

    @property
    def words(self) -> list[str]:
        """Its value, as it would be given after the flag."""
        return _words(self.value)


def fields(config: Any) -> list[Field]:
    """Every field that a flag can set, in the order of the source."""
    return [field for field in _walk(config, "") if _settable(field.kind)]


def override(config: Config, arguments: Sequence[str], other_flags: Sequence[str] = ()) -> Config:
    """The config with the fields changed that `arguments` name: `["--seed", "3", "--data.crop-scale=0.5", "1.0"]`.

    Everything is changed at once, so that values that must fit each other are checked together; of a flag given twice the
    last counts. A value equal to the field's own changes nothing. UserError for an unknown flag, with the nearest (also
    among `other_flags`, which the command itself has), for a value of the wrong type, and for one that the config refuses.
    """
    known = {field.path: field for field in _walk(config, "")}
    values: dict[str, Any] = {}
    for flag, words in _grouped(arguments):
        path = flag.removeprefix("--").replace("-", "_")
        if path not in known:
            raise UserError(f"{flag}: {_why_unknown(path, list(known), other_flags)}")
        if not _settable(known[path].kind):
            raise UserError(f"{flag}: cannot be given on the command line; set {path} in the config file")
        rest = list(words)
        try:
            values[path] = _take(known[path].kind, rest)
            fits = not rest
        except ValueError:
            fits = False
        if not fits:
            raise UserError(f"{shlex.join([flag, *words])}: expected {_phrase(known[path].kind)}")
    return _rebuilt(config, "", values)


def describe(config: Any) -> str:
    """A line for each flag: its present value, ready to be copied, its type, and what it means."""
    lines: list[str] = []
    before = ""
    for field in fields(config):
        owner = field.path.rpartition(".")[0]
        if lines and owner != before:
            lines.append("")
        before = owner
        meaning = f"{_phrase(field.kind)}; {field.comment}" if field.comment else _phrase(field.kind)
        lines.append(f"  {shlex.join([field.flag, *field.words]):46s}  {meaning}")
    return "\n".join(lines)


# --- the tree of dataclasses ---------------------------------------------------------------------------------------


def _flag(path: str) -> str:
    return "--" + path.replace("_", "-")


def _children(node: Any) -> dict[str, Any] | None:
    """Names and values one step down; None for a value that has no fields below it."""
    if dataclasses.is_dataclass(node):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    if isinstance(node, tuple) and node and all(map(dataclasses.is_dataclass, node)):
        return {str(number): child for number, child in enumerate(node)}
    return None


def _walk(node: Any, prefix: str) -> Iterator[Field]:
    kinds, comments = _annotations(type(node)) if dataclasses.is_dataclass(node) else ({}, {})
    for name, child in (_children(node) or {}).items():
        if _children(child) is None:
            yield Field(prefix + name, kinds[name], child, comments.get(name, ""))
        else:
            yield from _walk(child, f"{prefix}{name}.")


@cache
def _annotations(kind: type) -> tuple[dict[str, Any], dict[str, str]]:
    """Types of the fields of a dataclass, and the comments beside them."""
    try:
        source = inspect.getsource(kind)
    except OSError:  # installed without its source
        source = ""
    return get_type_hints(kind), dict(re.findall(r"^    (\w+): [^#\n]*  # (.+)$", source, re.MULTILINE))


def _rebuilt(node: Any, path: str, values: dict[str, Any]) -> Any:
    """`node` with new values, from the leaves up; the object itself where nothing changes."""
    children = _children(node)
    if children is None:
        return values[path] if path in values and values[path] != node else node
    below = f"{path}." if path else ""
    new = {name: _rebuilt(child, below + name, values) for name, child in children.items()}
    if all(new[name] is child for name, child in children.items()):
        return node
    return tuple(new.values()) if isinstance(node, tuple) else dataclasses.replace(node, **new)


# --- words to values and back --------------------------------------------------------------------------------------


def _number(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError
    return value


def _choice(kind: Any) -> Callable[[str], Any]:
    choices = {str(value): value for value in get_args(kind)}

    def read(word: str) -> Any:
        if word not in choices:
            raise ValueError
        return choices[word]

    return read


# how one word is read, and what to call it in a message
_SINGLE: dict[Any, tuple[Callable[[str], Any], str]] = {
    NoneType: (_choice(Literal[None]), "None"),
    bool: (_choice(Literal[True, False]), "True or False"),
    int: (int, "a whole number"),
    float: (_number, "a number"),
    str: (str, "a text"),
}


def _members(kind: Any) -> list[Any]:
    """The types of a union, in the order to try them: None before all others, text, which takes everything, last."""
    return sorted(get_args(kind), key=lambda member: (member is str) - (member is NoneType))


def _settable(kind: Any) -> bool:
    if get_origin(kind) in (tuple, Union, UnionType):
        return all(member is Ellipsis or _settable(member) for member in get_args(kind))
    return kind in _SINGLE or get_origin(kind) is Literal


def _take(kind: Any, words: list[str]) -> Any:
    """A value of that type from the front of `words`, which are used up; ValueError if they do not fit."""
    members = get_args(kind)
    if get_origin(kind) is tuple:
        if members[-1] is not Ellipsis:
            return tuple([_take(member, words) for member in members])
        items = []
        while words:
            items.append(_take(members[0], words))
        return tuple(items)
    if get_origin(kind) in (Union, UnionType):
        for member in _members(kind):
            rest = list(words)
            try:
                value = _take(member, rest)
            except ValueError:
                continue
            words[:] = rest
            return value
        raise ValueError
    if not words:
        raise ValueError
    read = _choice(kind) if get_origin(kind) is Literal else _SINGLE[kind][0]
    return read(words.pop(0))


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [word for item in value for word in _words(item)]
    return [str(value)]


def _phrase(kind: Any) -> str:
    """What is expected, in words."""
    members = get_args(kind)
    if get_origin(kind) is tuple:
        if members[-1] is Ellipsis:
            return f"{_phrase(members[0])}, any number of times"
        return " and ".join(map(_phrase, members))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_phrase, reversed(_members(kind))))
    return "one of " + ", ".join(map(str, members)) if get_origin(kind) is Literal else _SINGLE[kind][1]


# --- arguments -----------------------------------------------------------------------------------------------------


def _grouped(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the words up to the next; a word with one dash is a value, because numbers may be negative."""
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, word = argument.partition("=")
            groups.append((flag, [word] if equals else []))
        elif groups:
            groups[-1][1].append(argument)
        else:
            raise UserError(f"{argument}: expected a flag, such as --seed 3")
    yield from groups


def _why_unknown(path: str, known: list[str], other_flags: Sequence[str]) -> str:
    if below := [other for other in known if other.startswith(f"{path}.")]:
        return f"has fields of its own; give one of them, such as {_flag(below[0])}"
    if numbered := re.match(r"(.+?)\.(\d+)(\.|$)", path):
        owner, index = numbered[1], numbered[2]
        present = {found[1] for other in known if (found := re.match(rf"{re.escape(owner)}\.(\d+)\.", other))}
        if present and index not in present:
            return f"the config has {len(present)} {owner.rpartition('.')[2]}, counted from 0"
    # a flag may be misspelled, or lack its beginning: compare with every ending of every path
    endings: dict[str, list[str]] = {}
    for other in [*known, *(flag.removeprefix("--").replace("-", "_") for flag in other_flags)]:
        parts = other.split(".")
        for start in range(len(parts)):
            endings.setdefault(".".join(parts[start:]), []).append(other)
    nearest = difflib.get_close_matches(path, endings, n=1)
    if not nearest:
        return "no such field of the config; CONFIG --help lists them all"
    return f"no such field of the config; did you mean {' or '.join(map(_flag, endings[nearest[0]][:3]))}?"
