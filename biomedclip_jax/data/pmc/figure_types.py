"""What kinds of pictures a figure shows, told from its caption by keywords.

The types are those of García Seco de Herrera et al. (2015), of ImageCLEF, where captions tell them apart; those
that they do not tell apart are one type here (photographs of skin, organs and all else; transmission and scanning
electron microscopy), and OCT is added. `figure_types.toml` has them, with their keywords. Keywords of one
or more words are looked for among the caption's words; hyphens, slashes and the like only part words ("X-ray" is "x
ray", "PET/CT" is "PET CT"). The longest keyword wins: "CT angiography" is no "CT", "heat map" no "map".

A caption of several panels may name several types: the figure is "mixed". One that names none is "unknown".
"""

import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from biomedclip_jax.errors import UserError

UNKNOWN, MIXED = "unknown", "mixed"
_TABLE = Path(__file__).with_suffix(".toml")
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"[sS]?\d+[a-zA-Z]?\Z")
_ROMAN = frozenset(("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"))


@dataclass(frozen=True)
class FigureType:
    """A kind of picture that figures show, such as CT.

    name: what users type and records say ("CT"). codes: of ImageCLEF's types in it ("DRCT"). prompt: the sentence by
    which a model tells it from a picture. in_captions: whether captions tell it, too.
    """

    name: str
    codes: tuple[str, ...]
    prompt: str
    in_captions: bool


@dataclass(frozen=True)
class _Keywords:
    """named, hinted: keyword -> numbers of its types. pictures: words that say "no chart". known: all of these, and
    words that only look like a keyword. lengths: first words of all known -> their numbers of words, longest first.
    capitals: words with capital letters.
    """

    named: dict[str, set[int]]
    hinted: dict[str, set[int]]
    pictures: frozenset[str]
    known: frozenset[str]
    lengths: dict[str, tuple[int, ...]]
    capitals: frozenset[str]


@cache
def _table() -> tuple[tuple[FigureType, ...], _Keywords]:
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    pictures = frozenset(_forms(table.pop("picture")))
    known = {*_forms(table.pop("no_type")), *pictures}
    weights: dict[str, dict[str, set[int]]] = {"named": defaultdict(set), "hinted": defaultdict(set)}
    for kind, entry in enumerate(table.values()):
        for weight, found in weights.items():
            for form in _forms(entry.get(weight, "")):
                found[form].add(kind)
                known.add(form)
    lengths: dict[str, set[int]] = defaultdict(set)
    for form in known:
        lengths[form.partition(" ")[0]].add(form.count(" ") + 1)
    keywords = _Keywords(
        named=dict(weights["named"]),
        hinted=dict(weights["hinted"]),
        pictures=pictures,
        known=frozenset(known),
        lengths={first: tuple(sorted(numbers, reverse=True)) for first, numbers in lengths.items()},
        capitals=frozenset(word for form in known for word in form.split() if word != word.lower()),
    )
    types = (FigureType(name, tuple(one["codes"]), one["prompt"], "named" in one) for name, one in table.items())
    return tuple(types), keywords


def _forms(text: str) -> list[str]:
    """The keywords of a comma-separated list, each also as its plural."""
    keywords = [" ".join(keyword.split()) for keyword in text.split(",") if keyword.strip()]
    return [form for keyword in keywords for form in (keyword, _plural(keyword))]


def _plural(keyword: str) -> str:
    if keyword.endswith(("s", "#")):
        return keyword
    if keyword.endswith("y") and keyword[-2] not in "aeiou":
        return f"{keyword[:-1]}ies"
    return f"{keyword}es" if keyword.endswith(("x", "ch", "sh")) else f"{keyword}s"


def all_types() -> tuple[FigureType, ...]:
    """All types, in the order of ImageCLEF's taxonomy: radiology, photographs, microscopy, then illustrations."""
    return _table()[0]


def figure_types(caption: str) -> tuple[str, ...]:
    """Names of all types that the caption's keywords name, in the order of `all_types`; () if none.

    Keywords that only hint at a type count where none is named; hints at a chart and at pictures say nothing. About
    0.1 ms for 200 words.
    """
    types, keywords = _table()
    words = [_normal(word, keywords.capitals) for word in _WORD.findall(caption)]
    named: set[int] = set()
    hints: dict[int, set[str]] = defaultdict(set)
    is_picture = False
    end = 0
    for i, word in enumerate(words):
        if i < end or word not in keywords.lengths:
            continue
        for length in keywords.lengths[word]:
            keyword = " ".join(words[i : i + length])
            if keyword in keywords.known:
                named |= keywords.named.get(keyword, set())
                is_picture |= keyword in keywords.pictures
                for kind in keywords.hinted.get(keyword, ()):
                    hints[kind].add(keyword)
                end = i + length
                break
    if not named and len(hints) == 1:
        [(kind, found)] = hints.items()
        # words of statistics stand in many captions
        if types[kind].name != "chart" or (len(found) > 1 and not is_picture):
            named = {kind}
    return tuple(types[kind].name for kind in sorted(named))


def _normal(word: str, capitals: frozenset[str]) -> str:
    if word in capitals:
        return word
    if word in _ROMAN or (not word.isalpha() and _NUMBER.match(word)):
        return "#"
    return word.lower()


def figure_type(caption: str) -> str:
    """The type that the caption's keywords name; "mixed" if they name several, "unknown" if none."""
    return one_type(figure_types(caption))


def one_type(found: tuple[str, ...]) -> str:
    """The one word for what `figure_types` found: the only type, "mixed" or "unknown"."""
    return UNKNOWN if not found else found[0] if len(found) == 1 else MIXED


def type_named(text: str) -> str:
    """The name of a type that captions tell, or "mixed" or "unknown", given as name or code in any case ("ct", "GFIG").

    Raises UserError for another one.
    """
    types = [entry for entry in all_types() if entry.in_captions]
    names = {code.lower(): entry.name for entry in types for code in (entry.name, *entry.codes)}
    names |= {MIXED: MIXED, UNKNOWN: UNKNOWN}
    if text.lower() not in names:
        known = ", ".join([*(entry.name for entry in types), MIXED, UNKNOWN])
        raise UserError(f"figure type {text!r}: not one that captions tell; expected one of {known}")
    return names[text.lower()]
