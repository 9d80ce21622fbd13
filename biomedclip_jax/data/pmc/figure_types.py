"""What kind of picture a figure is, told from its caption: the 30 types of García Seco de Herrera et al. (2015), of
ImageCLEF.

The types and their keywords are in `figure_types.toml`. Keywords of one or more words are looked for among the
caption's words; hyphens, slashes and the like only part words ("X-ray" is "x ray", "PET/CT" is "PET CT"). The longest
keyword wins: "CT angiography" is no "CT", "Table 3" no "table". Pictures that have no type of their own in that
taxonomy stand with the nearest: protein structures with 3D, phylogenetic trees and maps with charts, fundus pictures
and OCT with photographs of organs.
"""

import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from biomedclip_jax.errors import UserError

UNKNOWN = "unknown"
_TABLE = Path(__file__).with_suffix(".toml")
_TITLE_WORDS = 14  # what stands first says most
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"[sS]?\d+[a-zA-Z]?\Z")
_ROMAN = frozenset(("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"))
_STRONG, _WEAK = 3, 1


@dataclass(frozen=True)
class FigureType:
    """A type of figures, such as CT. code: of the taxonomy ("DRCT"). name: what users type and records say ("CT")."""

    code: str
    name: str


@dataclass(frozen=True)
class _Keywords:
    """kinds: keyword -> numbers of its types and weights; of none for words that only look like a keyword.

    lengths: first word of keywords -> their numbers of words, longest first. capitals: words with capital letters.
    """

    kinds: dict[str, tuple[tuple[int, int], ...]]
    lengths: dict[str, tuple[int, ...]]
    capitals: frozenset[str]


@cache
def _table() -> tuple[tuple[FigureType, ...], _Keywords]:
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    found: dict[str, dict[int, int]] = {form: {} for keyword in _listed(table.pop("no_type")) for form in _forms(keyword)}
    for kind, entry in enumerate(table.values()):
        for weight, name in ((_WEAK, "weak"), (_STRONG, "strong")):
            for form in (form for keyword in _listed(entry.get(name, "")) for form in _forms(keyword)):
                found.setdefault(form, {})[kind] = weight
    lengths: dict[str, set[int]] = defaultdict(set)
    for form in found:
        lengths[form.partition(" ")[0]].add(form.count(" ") + 1)
    keywords = _Keywords(
        {form: tuple(kinds.items()) for form, kinds in found.items()},
        {first: tuple(sorted(numbers, reverse=True)) for first, numbers in lengths.items()},
        frozenset(word for form in found for word in form.split() if word != word.lower()),
    )
    return tuple(FigureType(code, entry["name"]) for code, entry in table.items()), keywords


def _listed(text: str) -> list[str]:
    return [" ".join(keyword.split()) for keyword in text.split(",") if keyword.strip()]


def _forms(keyword: str) -> tuple[str, ...]:
    """The keyword, and its plural."""
    if keyword.endswith(("s", "#")):
        return (keyword,)
    if keyword.endswith("y") and keyword[-2] not in "aeiou":
        return keyword, f"{keyword[:-1]}ies"
    return keyword, f"{keyword}es" if keyword.endswith(("x", "ch", "sh")) else f"{keyword}s"


def all_types() -> tuple[FigureType, ...]:
    """The taxonomy, in its own order: radiology, photographs, signals, microscopy, then illustrations."""
    return _table()[0]


def figure_types(caption: str) -> tuple[str, ...]:
    """Names of all types that the caption's keywords name, best first; () if none. About 0.1 ms for 200 words."""
    types, keywords = _table()
    words = [_normal(word, keywords.capitals) for word in _WORD.findall(caption)]
    scores: dict[int, int] = defaultdict(int)
    end = 0
    for i, word in enumerate(words):
        if i < end or word not in keywords.lengths:
            continue
        for length in keywords.lengths[word]:
            kinds = keywords.kinds.get(" ".join(words[i : i + length]))
            if kinds is not None:
                for kind, weight in kinds:
                    scores[kind] += weight * (2 if i < _TITLE_WORDS else 1)
                end = i + length
                break
    return tuple(types[kind].name for kind in sorted(scores, key=lambda kind: (-scores[kind], kind)))


def _normal(word: str, capitals: frozenset[str]) -> str:
    if word in capitals:
        return word
    if word in _ROMAN or (not word.isalpha() and _NUMBER.match(word)):
        return "#"
    return word.lower()


def figure_type(caption: str) -> str:
    """The type that the caption's keywords name most, or "unknown"."""
    return next(iter(figure_types(caption)), UNKNOWN)


def type_named(text: str) -> str:
    """The name of a type given as name or code in any case ("ct", "GFIG"). Raises UserError for another one."""
    names = [entry.name for entry in all_types()] + [UNKNOWN]
    for name, code in zip(names, [*(entry.code for entry in all_types()), UNKNOWN], strict=True):
        if text.lower() in (name.lower(), code.lower()):
            return name
    raise UserError(f"figure type {text!r}: no such type; expected one of {', '.join(names)}")
