"""What an element of JATS says, as one line of text.

The rule: the character data of all descendants in document order, where

1. what is not running text is dropped with everything in it (what follows is kept): TeX, images, files, ids,
   descriptions, figures and tables inside; the text of MathML is kept (a caption is worth more with its α and its
   p-values), but not its annotations: they say the same again, as TeX for one;
2. comments and processing instructions count for nothing;
3. a block element has a space before and after it, and a dropped block leaves one; inline elements have none:
   `log<sub>2</sub>` is "log2";
4. white space of any kind and length (Python's `str.split`) becomes one space, none at the ends. Nothing else changes.
"""

from functools import lru_cache

from lxml import etree

# fmt: off
_DROPPED_BLOCKS = frozenset({"supplementary-material", "media", "fig", "fig-group", "table-wrap", "table-wrap-group"})
_DROPPED = _DROPPED_BLOCKS | {
    "tex-math", "annotation", "annotation-xml", "object-id", "graphic", "inline-graphic", "alt-text", "long-desc",
}
_BLOCKS = frozenset({
    "title", "p", "list", "list-item", "def-list", "def-item", "term", "def", "disp-quote", "disp-formula", "sec", "break",
    "label", "caption", "attrib", "preformat", "statement", "speech", "boxed-text", "verse-group", "verse-line",
})
# fmt: on


@lru_cache(maxsize=4096)
def local_name(tag: str) -> str:
    """ "fig" of "fig" and "{https://jats.nlm.nih.gov/ns/archiving/1.4/}fig"."""
    return tag[tag.rfind("}") + 1 :]


def text_of(element: etree._Element, *, formulas: bool = True) -> str:
    """The element's text by the rule above; "" if it has none. The element itself is never dropped.

    Without `formulas` MathML is dropped, too.
    """
    pieces: list[str] = []
    _gather(element, pieces, formulas)
    return one_line("".join(pieces))


def one_line(text: str) -> str:
    """A text with each run of white space made one space."""
    return " ".join(text.split())


def caption_parts(caption: etree._Element) -> tuple[str | None, tuple[str, ...]]:
    """(title, paragraphs) of a <caption>; joined by spaces they are its whole text.

    Paragraphs without text are left out; what stands outside <title> and <p> (a bare text, a list) is a paragraph
    of its own.
    """
    title: str | None = None
    paragraphs: list[str] = []
    loose = [caption.text or ""]

    def close_loose() -> None:
        paragraphs.append(one_line("".join(loose)))
        loose.clear()

    for child in caption:
        name = local_name(child.tag) if isinstance(child.tag, str) else None
        if name == "title" or name == "p":
            close_loose()
            if name == "title" and title is None and not any(paragraphs):
                title = text_of(child)
            else:
                paragraphs.append(text_of(child))
        else:
            _add(child, loose, formulas=True)
        loose.append(child.tail or "")
    close_loose()
    return title, tuple(p for p in paragraphs if p)


def _gather(element: etree._Element, pieces: list[str], formulas: bool) -> None:
    if element.text:
        pieces.append(element.text)
    for child in element:
        _add(child, pieces, formulas)
        if child.tail:
            pieces.append(child.tail)


def _add(element: etree._Element, pieces: list[str], formulas: bool) -> None:
    if not isinstance(element.tag, str):
        return  # a comment or a processing instruction
    name = local_name(element.tag)
    if name in _DROPPED or (name == "math" and not formulas):
        if name in _DROPPED_BLOCKS:
            pieces.append(" ")
    elif name in _BLOCKS:
        pieces.append(" ")
        _gather(element, pieces, formulas)
        pieces.append(" ")
    else:
        _gather(element, pieces, formulas)
