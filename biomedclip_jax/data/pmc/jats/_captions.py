"""The label and the caption of a figure, of a group of figures, or of a single image, as publishers write them.

Of captions in several languages the English one is taken, where there is one. A label that stands in the caption, or
is said again at its beginning, is no part of it.
"""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lxml import etree

from biomedclip_jax.data.pmc.jats._elements import child, children, language, local_name
from biomedclip_jax.data.pmc.jats._text import caption_parts, one_line, text_of

_KIND = (
    r"(?:(?:supplement(?:ary|al)|suppl?\.?|extended data|appendix|online)\s+)?"
    r"(?:fig(?:ure|ura|uur)?s?|abb(?:ildung)?|scheme|plate|image|photo(?:graph)?|video|chart|graph|illustration)"
)
_NUMBERED = re.compile(rf"({_KIND})\.?\s*((?:S|A|E)?\s?\d+(?:\.\d+)*[A-Za-z]?)(?![\w])", re.IGNORECASE)
_END_OF_LABEL = re.compile(r"\s*(?:[.:|,;]+(?!\d)|[–—‒-](?!\s*\d))\s*|\s+(?=[A-Z(\[\"“‘])")
_CLEAR_END_OF_LABEL = re.compile(r"\s*(?:[.:|]+(?!\d)\s*|\s[–—-]\s+)")


@dataclass(frozen=True)
class Caption:
    """Label, title and paragraphs; None where there is no such element. whole: with reference numbers, in brackets."""

    label: str | None
    title: str | None
    paragraphs: tuple[str, ...]
    whole: str | None

    @property
    def text(self) -> str | None:
        """Title and paragraphs; None if there is no caption."""
        return None if self.whole is None else " ".join(filter(None, (self.title, *self.paragraphs)))


def read_caption(element: etree._Element | None) -> Caption:
    """What an element (<fig>, <fig-group>, <graphic>) has as its own label and caption.

    A <fig> without <caption> may have its words beside the image.
    """
    own = child(element, "label")
    label = None if own is None else text_of(own)
    captions = children(element, "caption")
    if element is None or not captions:
        said = _loose_words(element) if element is not None and local_name(element.tag) == "fig" else ""
        if not said:
            return Caption(label, None, (), None)
        label, parts = _divided(label, [said])
        return Caption(label, None, tuple(parts), said)
    title: str | None = None
    paragraphs: list[str] = []
    whole: list[str] = []
    for caption in _in_one_language(captions, element):
        leave_out = _other_languages(caption)
        inside = child(caption, "label")
        if inside is not None and (label in (None, "") or _same(label or "", text_of(inside))):
            label = label or text_of(inside)
            leave_out.add(inside)
        heading, texts = caption_parts(caption, leave_out)
        if title is None and not paragraphs:
            title = heading
        elif heading:
            paragraphs.append(heading)
        paragraphs += texts
        heading, texts = caption_parts(caption, leave_out, references=True)
        whole += [heading or "", *texts]
    label, parts = _divided(label, [title or "", *paragraphs])
    title = title if title is None else parts[0]
    return Caption(label, title, tuple(filter(None, parts[1:])), " ".join(filter(None, whole)))


def _loose_words(figure: etree._Element) -> str:
    words = [figure.text or ""]
    for part in figure:
        if local_name(str(part.tag)) in ("p", "title"):
            words.append(text_of(part))
        words.append(part.tail or "")
    return one_line(" ".join(words))


def _in_one_language(elements: Sequence[etree._Element], parent: etree._Element) -> list[etree._Element]:
    """Those in English, where there are any; else those in the article's language, or in that of the first.

    All of them, if none says what it is in.
    """
    own = [element.get(_LANG, "")[:2].lower() for element in elements]
    if not any(own):
        return list(elements)
    inherited = language(parent)
    stated = [code or inherited for code in own]
    wanted = next((code for code in ("en", inherited, stated[0]) if code in stated), stated[0])
    return [element for element, code in zip(elements, stated, strict=True) if code == wanted]


_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def _other_languages(caption: etree._Element) -> set[etree._Element]:
    """The children of a caption that say the same in another language than those that are taken."""
    parts = [part for part in caption if isinstance(part.tag, str)]
    titles = [part for part in parts if local_name(part.tag) == "title"]
    others = [part for part in parts if local_name(part.tag) not in ("title", "label")]
    taken = {*_in_one_language(titles, caption), *_in_one_language(others, caption)}
    if any(part.get(_LANG, "")[:2].lower() == "en" for part in taken):  # a title in one language, the text in English
        taken = {part for part in taken if part.get(_LANG, "en")[:2].lower() == "en"}
    return {*titles, *others} - taken


def _divided(label: str | None, parts: list[str]) -> tuple[str | None, list[str]]:
    """(label, parts) without the label at the beginning of the first part; it becomes the label where there is none."""
    first = next((number for number, part in enumerate(parts) if part), None)
    if first is None:
        return label, parts
    text = parts[first]
    found = _NUMBERED.match(text)
    if found is None or (label and not _same(label, found[0])):
        return label, parts
    end = (_END_OF_LABEL if label else _CLEAR_END_OF_LABEL).match(text, found.end())
    rest = text[end.end() :] if end else text[found.end() :]
    if (end is None and rest) or not any((rest, *parts[first + 1 :])):
        return label, parts
    parts[first] = rest
    return label or text[: found.end()], parts


def _same(label: str, other: str) -> bool:
    """Whether two labels have one number: "Fig. 1" and "Figure 1:"."""
    pair = [_NUMBERED.match(text) for text in (label, other)]
    if pair[0] is None or pair[1] is None:
        return label.strip(" .:").lower() == other.strip(" .:").lower()
    kinds = [match[1].lower()[:3] for match in pair if match]
    numbers = [re.sub(r"\s", "", match[2]).lower() for match in pair if match]
    return kinds[0] == kinds[1] and numbers[0] == numbers[1]


def is_panel_label(label: str | None) -> bool:
    """Whether a label is that of a part of a figure, "(a)" say, or missing."""
    return not label or re.fullmatch(r"[(\[]?\s*(?:[A-Za-z]|[ivx]{1,4}|\d)\s*[)\].:]{0,2}", label) is not None
