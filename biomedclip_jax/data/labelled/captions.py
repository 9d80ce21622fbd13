"""From the labels of an image to its caption: sentences with marks for what a table says, of `captions.toml` or own.

In a sentence, {name} is a field of that name or, where there is none, the column; {name|unknown} says "unknown" where
the table says nothing; [what is in brackets] is left out where one of its fields is empty. A field is

    {column = "X"}                                what column X says
    {column = "X", words = {L = "left", ...}}     what a code means; another code counts as empty, or is `otherwise`
    {column = "X", contains = {diag = "...", ...}}  the first whose key is part of what X says, whatever its case
    {column = "X", whole = true}                  a number without its fraction
    {positive = ["A", "B", ...]}                  the names of those columns that are 1, in this order
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from biomedclip_jax.data._table_rows import text_of
from biomedclip_jax.errors import UserError

_PACKAGED = "captions.toml"
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_MARK = re.compile(r"\{([^{}|]+)(?:\|([^{}]*))?\}")
_POINT_ZERO = re.compile(r"(-?\d+)\.0+")  # how tables write a code that is a number, where a cell of the column is empty


class Empty(Exception):
    """A row says nothing where a sentence needs it; the argument is the field."""


@dataclass(frozen=True)
class Field:
    """What a mark in a sentence stands for; the docstring of this module shows the five forms."""

    column: str = ""
    words: Mapping[str, str] | None = None
    otherwise: str = ""
    contains: Mapping[str, str] | None = None
    whole: bool = False
    positive: Sequence[str] = ()

    def text(self, row: Mapping[str, Any]) -> str:
        """The text for a row of a table, by column; empty if the row does not say."""
        if self.positive:
            return " ".join(name for name in self.positive if code_of(row.get(name)) == "1")
        value = code_of(row.get(self.column))
        if self.contains is not None:
            return next((words for part, words in self.contains.items() if part in value.lower()), self.otherwise)
        if self.words is not None:
            return self.words.get(value, self.otherwise)
        if self.whole:
            try:
                return str(int(float(value)))
            except (ValueError, OverflowError):
                return self.otherwise
        return value or self.otherwise

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that the text is made of."""
        return tuple(self.positive) or (self.column,)


@dataclass(frozen=True)
class Sentence:
    """A sentence with marks. plain: lower case, of what is no letter, digit or underscore only the gaps stay."""

    template: str
    fields: Mapping[str, Field]
    plain: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that the sentence needs, each once."""
        names = [name for name, _ in _MARK.findall(self.template)]
        return tuple(dict.fromkeys(column for name in names for column in self._field(name).columns))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The sentence for a row. Raises `Empty` where it needs a field that is empty."""

        filled = []
        for number, part in enumerate(_BRACKETS.split(self.template)):
            try:
                filled.append(self._filled(part, row))
            except Empty:
                if number % 2 == 0:  # not in brackets
                    raise
        text = "".join(filled)
        return plain_words(text) if self.plain else " ".join(text.split())

    def _filled(self, part: str, row: Mapping[str, Any]) -> str:
        def value(mark: re.Match[str]) -> str:
            text = self._field(mark[1]).text(row) or mark[2]
            if not text:
                raise Empty(mark[1])
            return text

        return _MARK.sub(value, part)

    def _field(self, name: str) -> Field:
        return self.fields.get(name) or Field(column=name)


@dataclass(frozen=True)
class Captions:
    """The sentences of a file of captions by name.

    source: of messages. styles: to choose a caption from. labels: for a column of classes.
    """

    source: str
    styles: Mapping[str, Sentence]
    labels: Mapping[str, Sentence]

    def style(self, name: str) -> Sentence:
        """The caption sentence of a style. UserError, which lists the styles, for an unknown name."""
        return _one_of(self.source, "style", self.styles, name)

    def label(self, name: str) -> Sentence:
        """The label sentence of a name. UserError, which lists the labels, for an unknown name."""
        return _one_of(self.source, "label", self.labels, name)


def packaged_captions(name: str) -> Captions:
    """The captions that come with the package for a data set: "chexpert", "rsna" or "embed"."""
    return _captions(name, _packaged()[name])


def read_captions(path: Path) -> Captions:
    """Read captions from a TOML file with [styles], perhaps [labels] and [fields], and plain = true or false.

    UserError for another content.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected TOML with [styles]") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML ({error}); expected [styles] with default = 'a photo of {{class}}'") from None
    return _captions(str(path), content)


def one_sentence(template: str) -> Sentence:
    """A sentence whose marks are columns. UserError if it has no mark, or marks that are not closed."""
    return _sentence("template", template, {}, False)


def plain_words(text: str) -> str:
    """Make of a text what CLEFT makes of a caption: words of ASCII letters, digits and _, lower case, no number before
    a stop.
    """
    words = (
        word.encode("ascii", "ignore").decode("ascii") for word in re.findall(r"\w+", re.sub(r"[0-9]+\.", " ", text.lower()))
    )
    return " ".join(filter(None, words))


def code_of(value: object) -> str:
    """The text of a cell that holds a code: of 2.0 "2", of "nan" nothing."""
    text = text_of(value)
    found = _POINT_ZERO.fullmatch(text)
    return found[1] if found else "" if text.lower() == "nan" else text


def _captions(source: str, content: Mapping[str, Any]) -> Captions:
    wrong = content.keys() - {"styles", "labels", "fields", "plain"}
    if wrong or not isinstance(content.get("styles"), dict) or not content["styles"]:
        found = ", ".join(map(repr, content)) or "nothing"
        raise UserError(f"{source}: expected [styles], and perhaps [labels], [fields] and plain; found {found}")
    fields = {name: _field(source, name, field) for name, field in content.get("fields", {}).items()}
    plain = content.get("plain", False)
    styles = {name: _sentence(f"{source}: {name}", text, fields, plain) for name, text in content["styles"].items()}
    # A label is a class's name, which keeps its look.
    labels = {name: _sentence(f"{source}: {name}", text, fields, False) for name, text in content.get("labels", {}).items()}
    return Captions(source, styles, labels)


def _field(source: str, name: str, content: Any) -> Field:
    known = Field.__dataclass_fields__
    if not isinstance(content, dict) or not content or not content.keys() <= known.keys():
        raise UserError(f"{source}: field {name!r}: {content!r}; expected a table of {', '.join(known)}")
    field = replace(Field(), **content)
    kinds = isinstance(field.column, str) and isinstance(field.otherwise, str) and isinstance(field.whole, bool)
    texts = all(
        each is None or (isinstance(each, dict) and all(isinstance(words, str) for words in each.values()))
        for each in (field.words, field.contains)
    )
    names = isinstance(field.positive, list | tuple) and all(isinstance(each, str) for each in field.positive)
    if not (kinds and texts and names) or bool(field.column) == bool(field.positive):
        raise UserError(f"{source}: field {name!r}: expected either column = '...' or positive = ['...'], and texts as words")
    return field


def _sentence(source: str, template: Any, fields: Mapping[str, Field], plain: bool) -> Sentence:
    if not isinstance(template, str) or not _MARK.search(template) or re.search(r"[{}]", _MARK.sub("", template)):
        raise UserError(f"{source}: {template!r}: expected a sentence with a {{column}} in it")
    if re.search(r"[\[\]]", _BRACKETS.sub("", template)):
        raise UserError(f"{source}: {template!r}: a bracket is not closed, or one is within another")
    return Sentence(template, fields, plain)


def _one_of(source: str, kind: str, there: Mapping[str, Sentence], name: str) -> Sentence:
    if name not in there:
        raise UserError(f"{source}: no {kind} {name!r}; there are: {', '.join(there) or 'none'}")
    return there[name]


@cache
def _packaged() -> dict[str, Any]:
    return tomllib.loads((files("biomedclip_jax.data.labelled") / _PACKAGED).read_text(encoding="utf-8"))
