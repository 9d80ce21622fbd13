"""What an element of JATS says, as one line of text.

The rule: the character data of all descendants in document order, where

1. what is not running text is dropped with everything in it (what follows is kept): images, files, ids, descriptions,
   entries of an index, struck-out words, figures and tables inside;
2. superscripts, subscripts and reference numbers keep their sense (`_scripts`): 10^5, CD8+, H2O, "tissue" of "tissue"
   with a raised 12;
3. a formula is a line of text, too (`_math`): of its forms MathML is read, else the one that is text, else TeX;
4. comments and processing instructions count for nothing;
5. a block element has a space before and after it, and a dropped block leaves one; other inline elements have none;
6. white space of any kind and length (Python's `str.split`) becomes one space, none at the ends. Control characters
   that are quotes and dashes in Windows' code page become these. Nothing else changes.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from lxml import etree

from biomedclip_jax.data.pmc.jats._elements import characters, local_name
from biomedclip_jax.data.pmc.jats._math import math_pieces
from biomedclip_jax.data.pmc.jats._scripts import Lowered, Raised, RaisedReference, Reference, joined, only_references
from biomedclip_jax.data.pmc.jats._tex import tex_pieces

# fmt: off
_DROPPED_BLOCKS = frozenset({"supplementary-material", "media", "fig", "fig-group", "table-wrap", "table-wrap-group"})
_DROPPED = _DROPPED_BLOCKS | {
    "annotation", "annotation-xml", "object-id", "graphic", "inline-graphic", "alt-text", "long-desc", "strike", "index-term",
    "glyph-data", "private-char", "inline-media",
}
_BLOCKS = frozenset({
    "title", "p", "list", "list-item", "def-list", "def-item", "term", "def", "disp-quote", "disp-formula", "sec", "break",
    "label", "caption", "attrib", "preformat", "statement", "speech", "boxed-text", "verse-group", "verse-line", "fn", "td",
    "th", "tr", "array",
})
_FORMULAS = frozenset({"inline-formula", "disp-formula", "alternatives"})
_CITATIONS = frozenset({"bibr", "ref", "bib"})
# fmt: on
# text of Windows that is declared as Latin-1, and references such as &#146;; U+0085 is white space already
_WINDOWS = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x85, 0x8D, 0x8F, 0x90, 0x9D)
}


@dataclass(frozen=True)
class _Reading:
    """How a text is read. plain: without formulas, and scripts as if they stood on the line. references: raised
    reference numbers are kept, in brackets.
    """

    plain: bool = False
    references: bool = False
    has_math: bool = False  # the formula round it comes in MathML
    has_words: bool = False  # ... or as a text


_FULL = _Reading()
_PLAIN = _Reading(plain=True)
_WITH_REFERENCES = _Reading(references=True)


def text_of(element: etree._Element, *, plain: bool = False, references: bool = False) -> str:
    """The element's text by the rule above; "" if it has none. The element itself is never dropped.

    plain: without formulas, with scripts and reference numbers as if they stood on the line: the characters of the
    XML and no others. references: raised reference numbers are kept, in brackets.
    """
    pieces: list[str] = []
    _gather(element, pieces, _PLAIN if plain else _WITH_REFERENCES if references else _FULL)
    return one_line(joined(pieces, references=references))


def one_line(text: str) -> str:
    """A text with each run of white space made one space, and what no text means (control characters where Windows has
    quotes and dashes) made what was meant.
    """
    return " ".join(text.translate(_WINDOWS).split())


def caption_parts(
    caption: etree._Element, leave_out: Collection[etree._Element] = (), *, references: bool = False
) -> tuple[str | None, tuple[str, ...]]:
    """(title, paragraphs) of a <caption>; joined by spaces they are its whole text.

    Paragraphs without text are left out; what stands outside <title> and <p> (a bare text, a list) is a paragraph
    of its own. leave_out: children that are not read. references: as for `text_of`.
    """
    title: str | None = None
    paragraphs: list[str] = []
    loose = [caption.text or ""]
    reading = _WITH_REFERENCES if references else _FULL

    def close_loose() -> None:
        paragraphs.append(one_line(joined(loose, references=references)))
        loose.clear()

    for child in caption:
        name = local_name(child.tag) if isinstance(child.tag, str) else None
        if child in leave_out:
            loose.append(" ")
        elif name == "title" or name == "p":
            close_loose()
            if name == "title" and title is None and not any(paragraphs):
                title = text_of(child, references=references)
            else:
                paragraphs.append(text_of(child, references=references))
        else:
            _add(child, loose, reading)
        loose.append(child.tail or "")
    close_loose()
    return title, tuple(p for p in paragraphs if p)


def _gather(element: etree._Element, pieces: list[str], reading: _Reading) -> None:
    if element.text:
        pieces.append(element.text)
    for child in element:
        _add(child, pieces, reading)
        if child.tail:
            pieces.append(child.tail)


def _add(element: etree._Element, pieces: list[str], reading: _Reading) -> None:
    if not isinstance(element.tag, str):
        return  # a comment or a processing instruction
    name = local_name(element.tag)
    if name in _DROPPED:
        if name in _DROPPED_BLOCKS:
            pieces.append(" ")
    elif name == "math":
        if not reading.plain:
            pieces += math_pieces(element)
    elif name == "tex-math":
        if not (reading.plain or reading.has_math or reading.has_words):
            pieces += tex_pieces(characters(element))
    elif name == "textual-form" and reading.has_math:
        pass
    elif name in _BLOCKS:
        pieces.append(" ")
        _gather(element, pieces, _in_formula(element, reading) if name == "disp-formula" else reading)
        pieces.append(" ")
    elif name in ("sup", "sub", "xref") and not reading.plain:
        inner: list[str] = []
        _gather(element, inner, reading)
        _add_script(element, name, inner, pieces, reading.references)
    elif name in _FORMULAS and not reading.plain:
        _gather(element, pieces, _in_formula(element, reading))
    else:
        _gather(element, pieces, reading)


def _in_formula(element: etree._Element, reading: _Reading) -> _Reading:
    """How the forms of one formula are read."""
    if reading.has_math or (reading.has_words and local_name(str(element.tag)) != "alternatives"):
        return reading
    has_math = next(element.iter("{*}math"), None) is not None
    return replace(reading, has_math=has_math, has_words=next(element.iter("{*}textual-form"), None) is not None)


def _add_script(element: etree._Element, name: str, inner: list[str], pieces: list[str], references: bool) -> None:
    """Add a <sup>, a <sub> or an <xref> with these pieces in it."""
    if name == "xref":
        if (element.get("ref-type") or "") not in _CITATIONS:
            pieces += inner
        elif inner and all(isinstance(piece, Raised) or not piece.strip() for piece in inner):
            pieces.append(RaisedReference("".join(inner)))
        else:
            pieces.append(Reference(joined(inner)))
    elif name == "sub":
        pieces.append(Lowered(joined(inner)))
    elif (numbers := only_references(inner)) is not None:
        pieces.append(RaisedReference(numbers))
    else:
        kept = [piece for piece in inner if references or not isinstance(piece, Reference)]
        left = len(kept) < len(inner)
        text = joined(kept)
        pieces.append(Raised(text.strip(" ,;[]()") if left else text))
