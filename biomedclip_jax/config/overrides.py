"""Typed flags for every field of a config, at any depth: `--optimizer.learning-rate 1e-4 --stages.0.batch-size 64`.

A flag is the path to the field; what it takes follows from the field's annotation, and its help from the docstring
below the field. docs/decisions.md says which libraries were tried in place of this.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import math
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from biomedclip_jax.errors import UserError

Config = TypeVar("Config")
_WIDEST = 112  # columns of the help: longer lines are hard to read


@dataclass(frozen=True)
class Field:
    """A field of a config that is no dataclass itself."""

    path: str
    """As in Python, such as `stages.0.batch_size`."""
    owner: type
    """The dataclass that has the field."""
    kind: Any
    """Its annotation."""
    value: Any
    """What the config has there."""
    default: Any
    """What its dataclass has there, or `dataclasses.MISSING`."""

    @property
    def flag(self) -> str:
        """The flag as it is spelled on the command line."""
        return _flag(self.path)

    @property
    def text(self) -> str:
        """The docstring below the field, in one line; "" where there is none."""
        return field_texts(self.owner).get(self.path.rpartition(".")[2], "")

    @property
    def words(self) -> list[str]:
        """The value as the words that would be given after the flag."""
        return _words(self.value)


def fields(config: Any) -> list[Field]:
    """Every field that a flag can set, in the order of the source; those of a dataclass inside come after its owner's own."""
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
            raise UserError(f"{flag}: {_why_unknown(config, path, list(known), other_flags)}")
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
    """The help of all flags, by the dataclass that they belong to: value, ready to be copied, type, default, meaning."""
    width = min(shutil.get_terminal_size().columns, _WIDEST) - 2

    def wrapped(text: str, first: str = " " * 6, then: str = " " * 6) -> list[str]:
        filled = textwrap.TextWrapper(width, first, then, break_on_hyphens=False, break_long_words=False)
        return filled.wrap(text)

    lines: list[str] = []
    before: str | None = None
    for field in fields(config):
        path = field.path.rpartition(".")[0]
        if path != before:
            name = f"{path} ({field.owner.__name__})" if path else field.owner.__name__
            summary = " ".join((inspect.getdoc(field.owner) or "").partition("\n\n")[0].split())
            lines += ["", *wrapped(f"{name}: {summary}", "", "")]
            before = path
        about = _phrase(field.kind)
        if field.default is not dataclasses.MISSING and field.default != field.value:
            about += f"; default: {shlex.join(_words(field.default)) or 'nothing'}"
        lines += wrapped(f"({about})", f"  {shlex.join([field.flag, *field.words]):44s}  ")
        lines += wrapped(field.text)
    others = [field.path for field in _walk(config, "") if not _settable(field.kind)]
    others.append("which kind of loss, tower or adapter it is")
    lines += ["", *wrapped(f"Only in the config file: {', '.join(others)}.", "", "")]
    return "\n".join(lines[1:])


@cache  # reading the source takes milliseconds, and only the help needs it
def field_texts(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, each in one line; {} for a class installed without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except OSError:
        return {}
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    texts = {}
    for node, below in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            texts[ast.unparse(node.target)] = " ".join(str(below.value.value).split())
    return texts


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


def _node(config: Any, path: str) -> Any:
    """What stands at a path of the config; None where nothing does."""
    for name in path.split("."):
        config = (_children(config) or {}).get(name)
    return config


def _walk(node: Any, prefix: str) -> Iterator[Field]:
    children = _children(node) or {}
    if dataclasses.is_dataclass(node):
        owner, kinds = type(node), _hints(type(node))
        for field in dataclasses.fields(node):
            value = children[field.name]
            if _children(value) is None:
                yield Field(prefix + field.name, owner, kinds[field.name], value, field.default)
    for name, child in children.items():
        if _children(child) is not None:
            yield from _walk(child, f"{prefix}{name}.")


_hints = cache(get_type_hints)


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
        if len(members) > 1 and len(set(members)) == 1:
            return f"{_phrase(members[0])}, {len(members)} times"
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


def _why_unknown(config: Any, path: str, known: list[str], other_flags: Sequence[str]) -> str:
    place = path.removesuffix(".kind")  # as `config.json` calls it
    below = [other for other in known if other.startswith(f"{place}.")]
    fields = f"has fields of its own; give one of them, such as {_flag(below[0])}" if below else "has no fields"
    if dataclasses.is_dataclass(node := _node(config, place)):
        return f"is a {type(node).__name__}, which only the config file can change; it {fields}"
    if below:
        return fields
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
