"""A formula in MathML as a line of text that keeps its sense: 1/2, 10^5, x_i, √(a+b), 8^(1/3), ∑_(i=1)^n.

What is drawn one above the other, under a root or raised is written with signs and, where it is more than a number or
a word, in parentheses. Annotations (the same again, as TeX for one) and phantoms count for nothing.
"""

from dataclasses import dataclass

from lxml import etree

from biomedclip_jax.data.pmc.jats._elements import characters, local_name
from biomedclip_jax.data.pmc.jats._scripts import Index, Power, grouped, joined

_NOTHING = frozenset({"mphantom", "annotation", "annotation-xml", "none", "mprescripts", "malignmark", "maligngroup"})
_FIRST_ONLY = frozenset({"semantics", "maction"})
_ACCENTS = {
    "^": "\u02c6", "~": "\u02dc", "\u00af": "\u00af", "\u203e": "\u00af", "_": "\u00af", "\u0304": "\u0304",
    "\u02c6": "\u02c6", "\u0302": "\u0302", "\u02dc": "\u02dc", "\u0303": "\u0303", "\u02d9": "\u02d9", ".": "\u02d9",
    "\u00a8": "\u00a8", "\u02c7": "\u02c7", "\u02d8": "\u02d8", "\u2192": "\u2192", "\u20d7": "\u20d7", "\u0305": "\u00af",
    "\u2015": "\u00af", "\u2014": "\u00af", "\u2013": "\u00af", "-": "\u00af", "\u2212": "\u00af", "\u23de": "", "\u23df": "",
    "\ufe37": "", "\ufe38": "", "\u0332": "",
}  # fmt: skip
_UNDERLINES = frozenset({"_", "\u0332", "\u00af", "\u203e", "\u2015", "\u23df", "\ufe38"})


class Name(str):
    """A function's name, or an operator with limits: a letter or digit that follows is set apart by a space."""


def math_pieces(element: etree._Element) -> list[str]:
    """The pieces of a <math>, as `_scripts.joined` takes them."""
    pieces: list[str] = []
    _node(element, pieces)
    return pieces


def put(pieces: list[str], text: str) -> None:
    """Add a text, with a space after a name."""
    if text:
        if pieces and isinstance(pieces[-1], Name) and text[:1].isalnum() and not isinstance(text, Power | Index):
            pieces.append(" ")
        pieces.append(text)


def fraction(numerator: str, denominator: str, alone: bool) -> str:
    """A fraction on one line. alone: whether nothing beside it could be read as a part of it."""
    text = f"{grouped(numerator)}/{grouped(denominator)}" if numerator or denominator else ""
    return text if alone or not text else f"({text})"


def root(base: str, index: str) -> str:
    """A root on one line; of another than the second degree as a power."""
    if not base:
        return ""
    return f"{grouped(base)}^(1/{grouped(index)})" if index and index != "2" else f"√{grouped(base)}"


def accented(base: str, accent: str) -> str | None:
    """A letter with an accent over it; None if it is no accent."""
    if accent.strip() not in _ACCENTS:
        return None
    return grouped(base) + _ACCENTS[accent.strip()]


def _node(element: etree._Element, pieces: list[str]) -> None:
    """Add what an element says. Alone in calling itself: formulas are as deep as the parser lets them be."""
    if not isinstance(element.tag, str):
        return
    name = local_name(element.tag)
    if name in _NOTHING:
        return
    if name in ("mi", "mn", "mtext", "ms", "mo", "ci", "cn"):
        _token(element, name, pieces)
    elif name == "mspace":
        if not (element.get("width") or "1").startswith(("0", "-")):
            pieces.append(" ")
    elif (write := _LAYOUTS.get(name)) is not None and (name != "menclose" or "radical" in element.get("notation", "")):
        parts = [_Part(local_name(child.tag), child) for child in element if isinstance(child.tag, str)]
        for part in parts:
            inner: list[str] = []
            _node(part.element, inner)
            part.text = joined(inner).strip()
        write(element, parts, pieces)
    else:  # mrow, mstyle, mpadded, merror, math and all that is unknown
        put(pieces, " ".join((element.text or "").split()))
        for child in element:
            _node(child, pieces)
            put(pieces, " ".join((child.tail or "").split()))
            if name in _FIRST_ONLY:
                break


@dataclass
class _Part:
    """A child of an element with a layout of its own."""

    name: str
    element: etree._Element
    text: str = ""


def _token(element: etree._Element, name: str, pieces: list[str]) -> None:
    text = characters(element)
    if name == "mtext":
        text = " ".join(f"|{text}|".split())[1:-1]  # spaces at its ends stay
    else:
        text = "".join(text.split()) if name == "mn" else " ".join(text.split())
    if name == "mo":
        _operator(element, text, pieces)
    elif name in ("mi", "ci") and len(text) > 1 and text.isalpha():
        if pieces and pieces[-1][-1:].isalpha():
            pieces.append(" ")
        put(pieces, Name(text))
    else:
        put(pieces, text)


def _operator(element: etree._Element, text: str, pieces: list[str]) -> None:
    after = element.getnext()
    follows = "" if after is None else characters(after).strip()[:1]
    if text == "\u2061":  # application of a function
        if pieces and not isinstance(pieces[-1], Power | Index):
            pieces[-1] = Name(pieces[-1])
    elif text == "\u2062":  # invisible times
        pieces.append("\u00b7" if follows.isdigit() else "")
    elif text == "\u2064":  # invisible plus, of a mixed number
        pieces.append(" ")
    else:
        pieces.append("," if text == "\u2063" else text)


def _fraction(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    above, below = ([part.text for part in parts] + ["", ""])[:2]
    if (element.get("linethickness") or "1").startswith("0"):
        put(pieces, f"({above} choose {below})")
        return
    after = element.getnext()
    beside = after is not None and local_name(str(after.tag)) not in ("mo", "mspace", "mtext")
    before = pieces[-1][-1:] if pieces else ""
    put(pieces, fraction(above, below, not (beside or before.isalnum() or before == ")")))


def _square_root(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    inner: list[str] = []
    put(inner, " ".join((element.text or "").split()))
    for part in parts:
        put(inner, Name(part.text) if part.name == "mi" and len(part.text) > 1 else part.text)
    put(pieces, root("".join(inner), ""))


def _root(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    base, index = ([part.text for part in parts] + ["", ""])[:2]
    put(pieces, root(base, index))


def _base(part: _Part, pieces: list[str]) -> None:
    """What a script belongs to; in parentheses where it would else belong to the last piece of it only."""
    token = part.name in ("mi", "mn", "mtext", "mo", "mfenced")
    put(pieces, part.text if token or part.text[-1:] in tuple(")]|}") else grouped(part.text))


def _scripts(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    if parts:
        _base(parts[0], pieces)
    kinds = {"msub": (Index,), "msup": (Power,)}.get(local_name(str(element.tag)), (Index, Power))
    for kind, part in zip(kinds, parts[1:], strict=False):
        pieces.append(kind(part.text))


def _limits(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    """<munder>, <mover>, <munderover>: an accent, or limits."""
    name = local_name(str(element.tag))
    base, *others = [part.text for part in parts] or [""]
    over = others[-1] if name != "munder" and others else ""
    under = others[0] if name != "mover" and others else ""
    if over and (text := accented(base, over)) is not None:
        base, over = text, ""
    if under in _UNDERLINES:
        under = ""
    text = base + (f"_{grouped(under, script=True)}" if under else "") + (f"^{grouped(over, script=True)}" if over else "")
    put(pieces, Name(text) if over or under else text)


def _before_and_after(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    """<mmultiscripts>: 18F, say, whose mass number stands before it."""
    if not parts:
        return
    after: list[tuple[bool, str]] = []  # (raised, text)
    before: list[tuple[bool, str]] = []
    scripts = after
    for part in parts[1:]:
        if part.name == "mprescripts":
            scripts = before
        else:
            scripts.append((len(scripts) % 2 == 1, part.text))
    for raised, text in sorted(before):  # what is lowered first, so that the mass number stands beside the symbol
        if text:
            put(pieces, text if raised else f"_{grouped(text)} ")
    _base(parts[0], pieces)
    pieces += [Power(text) if raised else Index(text) for raised, text in after if text]


def _fenced(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    separators = "".join(element.get("separators", ",").split())
    text = element.get("open", "(")
    for number, part in enumerate(parts):
        if number and separators:
            text += separators[min(number, len(separators)) - 1]
        text += part.text
    put(pieces, text + element.get("close", ")"))


def _table(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    put(pieces, "; ".join(part.text for part in parts if part.text))


def _table_row(element: etree._Element, parts: list[_Part], pieces: list[str]) -> None:
    cells = parts[1:] if local_name(str(element.tag)) == "mlabeledtr" else parts
    put(pieces, ", ".join(part.text for part in cells if part.text))


_LAYOUTS = {
    "mfrac": _fraction,
    "msqrt": _square_root,
    "menclose": _square_root,
    "mroot": _root,
    "msub": _scripts,
    "msup": _scripts,
    "msubsup": _scripts,
    "munder": _limits,
    "mover": _limits,
    "munderover": _limits,
    "mmultiscripts": _before_and_after,
    "mfenced": _fenced,
    "mtable": _table,
    "mtr": _table_row,
    "mlabeledtr": _table_row,
}
