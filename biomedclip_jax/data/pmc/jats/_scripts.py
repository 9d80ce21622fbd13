"""Superscripts, subscripts and reference numbers in a line of plain text, so that 10 to the power of 5 is not 105.

The text of an element is a list of pieces: strings, and the classes here for what is raised or lowered. `joined` makes
one text of them by what stands before and after each:

- a power keeps its sign: 10^5, cm^2, 10^−3, x^(n+1); so does a name's superscript: Halo^ligand;
- what is read without any stays as it is: CD8+, Ca2+, 37°, 25th, 18F, ™; a subscript too: H2O, CO2, log2, Vmax;
- a subscript that would be read as something else gets a sign: x_i, x_−1, 10_2, x_(i,j);
- raised numbers of references are no part of a word, nor of a number: they are left out.
"""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import re
from collections.abc import Sequence


class Raised(str):
    """The text of a superscript, read in itself."""


class Lowered(str):
    """The text of a subscript, read in itself."""


class Power(Raised):
    """A superscript in a formula: never a reference."""


class Index(Lowered):
    """A subscript in a formula: letters are set apart, as two letters side by side are a product there."""


class Reference(str):
    """The text of a reference to the literature, on the line."""


class RaisedReference(Reference):
    """Numbers of references, raised."""


_SIGNS = re.compile(r"[+\-−–±/*∗⁎†‡§¶#®™′″'\"°]+")
_CHARGE = re.compile(r"\d{0,2}[+\-−–]")
_MARKS = r"[+\-−–*′¯ˆ˜˙¨ˇ˘\u0300-\u036f\u20d0-\u20ff]*"
_SIMPLE = re.compile(rf"[+\-−–±√∂∇]?\w+{_MARKS}(?:[.·]\w+)*{_MARKS}|.")
_SIMPLE_SCRIPT = re.compile(rf"[+\-−–±√∂∇]?[^\W_]+{_MARKS}(?:[.·][^\W_]+)*{_MARKS}|.")
_NUMBERS = re.compile(r"\d{1,3}[a-z]?(?:\s*[,;–—‐‑-]\s*\d{1,3}[a-z]?)*")
_NUMBER = re.compile(r"[+\-−–]?\d+(?:[.·]\d+)?")
_MASS_NUMBER = re.compile(r"\d{1,3}\s?m?\d?")
_BETWEEN_REFERENCES = re.compile(r"\s*[,;–—‐‑-]\s*|\s+")
_AROUND_REFERENCES = re.compile(r"(?:[\s,;.–—‐‑\-−\[\]()]|and|to|&)*")
_ORDINAL = re.compile(r"st|nd|rd|th")
_ORDINAL_LETTER = re.compile(r"\b[nijk]th\Z")
_ENDS_WITH_A_NUMBER = re.compile(r"\d\s+\Z")
_SCALE = re.compile(r"\s?[CF](?![^\W_])")
_WORD_START = re.compile(r"[A-Z][a-z]{2}")
_ENDS_A_SENTENCE = re.compile(r"[^\W\d][)\]\"”]?[.,;:]\Z")
_ENDS_A_WORD = re.compile(r"[a-z]{3}\Z")
_ENDS_A_NAME = re.compile(r"[^\W\d_]\w+\Z")
_ENDS_WITH_A_BASE = re.compile(r"(?:\d|\)|\b(?:[kcmµμn]?m|[kKmMnµμ]?[gGlLsMNVAW]|min|mol|h|d))\s+\Z")
_ENDS_WITH_A_LETTER = re.compile(r"\b[A-Za-z]{1,4}\s+\Z")
_TAIL = 40  # characters before a script that decide how it is written
_DEGREES = ("o", "O", "º", "∘", "◦", "○")


def joined(pieces: Sequence[str], *, references: bool = False) -> str:
    """The pieces as one text. references: raised reference numbers stay, in brackets."""
    merged = _merged(pieces, references)
    out: list[str] = []
    tail = ""  # the end of what is written so far
    for position, piece in enumerate(merged):
        following = merged[position + 1] if position + 1 < len(merged) else ""
        after = "" if isinstance(following, Raised | Lowered) else str(following)
        if isinstance(piece, Raised):
            text, drop = _raised(piece, tail, after)
            text += _blank_at_the_end(piece, text, after)
        elif isinstance(piece, Lowered):
            text, drop = _lowered(piece, tail, after)
            text += _blank_at_the_end(piece, text, after)
        elif isinstance(piece, Reference):
            text = _reference(piece, tail, references)
            drop = not text and tail[-1:].isspace() and after[:1] in tuple(".,;:)")
        else:
            text, drop = str(piece), False
        if drop:  # the white space before it
            while out and not (kept := out.pop().rstrip()):
                pass
            if out or kept:
                out.append(kept)
            tail = tail.rstrip()
        out.append(text)
        tail = (tail + text)[-_TAIL:]
    return "".join(out)


def _merged(pieces: Sequence[str], references: bool) -> list[str]:
    """Without empty pieces, without what stands between two raised references, and with neighbours of one kind as one."""
    merged: list[str] = []
    for piece in pieces:
        if not piece:
            continue
        if isinstance(piece, Lowered) and piece.strip().isdigit() and _is_under_a_line(merged):
            above = merged[-2].strip()
            before = merged[-3] if len(merged) > 2 else ""
            merged[-2:] = [(" " if before[-1:].isdigit() else "") + f"{above}/{piece.strip()}"]
        elif merged and isinstance(piece, Raised | Lowered) and type(merged[-1]) is type(piece):
            merged[-1] = type(piece)(merged[-1] + piece)
        elif isinstance(piece, RaisedReference) and not references:
            if len(merged) > 1 and isinstance(merged[-2], RaisedReference) and _BETWEEN_REFERENCES.fullmatch(merged[-1]):
                merged.pop()
            else:
                merged.append(piece)
        else:
            merged.append(piece)
    return merged


def _is_under_a_line(pieces: Sequence[str]) -> bool:
    """Whether what is lowered next is below the line of a fraction: 1/2, written with a raised 1 and a lowered 2."""
    if len(pieces) < 2 or pieces[-1].strip() not in ("/", "\u2044", "\u2215"):
        return False
    above, before = pieces[-2], pieces[-3][-1:] if len(pieces) > 2 else ""
    if before and not (before.isdigit() or before.isspace() or before in tuple("(,;≤≥<>=~±–-")):
        return False
    return type(pieces[-1]) is str and type(above) is Raised and above.strip().isdigit() and len(above.strip()) < 3


def grouped(text: str, *, script: bool = False) -> str:
    """In parentheses, unless it is one number, word or bracket. script: of a script, in which an index is not one word."""
    whole = text.startswith("(") and text.endswith(")") and "(" not in text[1:] and ")" not in text[:-1]
    pattern = _SIMPLE_SCRIPT if script else _SIMPLE
    return text if not text or whole or pattern.fullmatch(text) else f"({text})"


def _raised(piece: Raised, tail: str, after: str) -> tuple[str, bool]:
    """(what is written of a superscript, whether the white space before it goes)."""
    text = " ".join(piece.split())
    before = tail[-1:]
    if not text:
        return " " if piece else "", False
    if text in (*_DEGREES, "0") and _ENDS_WITH_A_NUMBER.search(tail) and _SCALE.match(after):
        return "°", False
    if before.isdigit() and (text in _DEGREES or (text == "0" and after.lstrip()[:1] in ("C", "F"))):
        return "°", False
    text = text.replace("∘", "°")
    if text == "TM" and before.isalnum():
        return "™", False
    based = before.isalnum() or before in tuple(")]}|°′%")
    if not (based or (isinstance(piece, Power) and before and not before.isspace() and before not in "([{=+-−·×/,")):
        if not isinstance(piece, Power) and _NUMBERS.fullmatch(text) and _ENDS_A_SENTENCE.search(tail):
            return "", False
        return _at_the_start(text, tail, after)
    if _SIGNS.fullmatch(text) or (before.isdigit() and _ORDINAL.fullmatch(text)) or _ORDINAL_LETTER.search(tail + text):
        return text, False
    if _CHARGE.fullmatch(text) and not before.isdigit():
        return text, False
    several = _NUMBERS.fullmatch(text) and not text.isalnum()
    if several and not isinstance(piece, Power) and _ENDS_A_WORD.search(tail):
        return "", False
    of_a_name = " " not in text and _ENDS_A_NAME.search(tail) and re.search(r"[^\W\d_]", text)
    if isinstance(piece, Power) or not of_a_name:
        text = grouped(text, script=True)
    return f"^{text}{_gap(text, after, isinstance(piece, Power))}", False


def _at_the_start(text: str, tail: str, after: str) -> tuple[str, bool]:
    """A superscript with nothing before it: of an isotope, a power set apart by a space, a footnote's mark."""
    follows = after[:1]
    if _MASS_NUMBER.fullmatch(text) and follows.isalpha() and follows.isupper():
        return text.replace(" ", "") + (" " if _WORD_START.match(after) else ""), False
    if _NUMBER.fullmatch(text) and _ENDS_WITH_A_BASE.search(tail):
        return f"^{text}{_gap(text, after)}", True
    if _SIGNS.fullmatch(text):
        return text, bool(re.search(r"\w\s+\Z", tail)) and not follows.isalnum()
    if _MASS_NUMBER.fullmatch(text) and follows in tuple("[(") and follows:
        return text, False
    if not follows.isalnum() and tail.strip():
        return f"^{grouped(text, script=True)}", False
    return text + (" " if follows.isalnum() else ""), False


def _lowered(piece: Lowered, tail: str, after: str) -> tuple[str, bool]:
    """(what is written of a subscript, whether the white space before it goes)."""
    text = " ".join(piece.split())
    if not text:
        return " " if piece else "", False
    before = tail[-1:]
    if before.isspace() and text.isdigit() and _ENDS_WITH_A_LETTER.search(tail):
        return text + _gap(text, after), True
    formula = isinstance(piece, Index)
    if not (before.isalnum() or before in tuple(")]}")) and not (formula and before and not before.isspace()):
        return text + _gap(text, after), False
    one_letter = before.isalpha() and not tail[-2:-1].isalnum()
    apart = text[:1].isdigit() and before.isdigit()
    apart = apart or not re.fullmatch(r"\w+(?:\.\w+)*", text)
    apart = apart or (one_letter and len(text) == 1 and text.isalpha() and text.islower())
    apart = apart or (formula and not (text.isdigit() and before.isalpha()))
    if apart:
        text = f"_{grouped(text, script=True)}"
    return text + _gap(text, after, formula and (apart or tail[-2:].islower())), False


def _blank_at_the_end(piece: Raised | Lowered, text: str, after: str) -> str:
    """The space that stands within a script at its end, where the line goes on with a word: "10<sup>5 </sup>cells"."""
    stands_alone = isinstance(piece, Raised) and text.isdigit()  # of an isotope
    ends = piece[-1:].isspace() and bool(text) and not text[-1].isspace() and after[:1].isalnum()
    return " " if ends and not stands_alone else ""


def _gap(text: str, after: str, formula: bool = False) -> str:
    """A space where the script and what follows would be read as one number; in a formula, also as one word."""
    last, first = text[-1:], after[:1]
    return " " if (last.isdigit() and first.isdigit()) or (formula and last.isalnum() and first.isalnum()) else ""


def _reference(piece: Reference, tail: str, references: bool) -> str:
    text = " ".join(piece.split())
    if references:
        return f" [{text.strip('[]()')}] " if text and (text.strip("[]()")[:1].isdigit()) else str(piece)
    if isinstance(piece, RaisedReference):
        return ""
    glued = tail[-1:].isalnum() or bool(_ENDS_A_SENTENCE.search(tail))
    return "" if glued and _NUMBERS.fullmatch(text) else str(piece)


def only_references(pieces: Sequence[str]) -> str | None:
    """The text of pieces that are references and what stands between them; None if there is anything else."""
    if not any(isinstance(piece, Reference) for piece in pieces):
        return None
    others = "".join(piece for piece in pieces if not isinstance(piece, Reference))
    return "".join(pieces) if _AROUND_REFERENCES.fullmatch(others) else None
