"""Where the running text of an article mentions a figure: by a reference to its id, or in a list or range of figures.

"Figs. 1-3" mentions Figure 2, "Figures 1A-C and 3" mentions Figures 1 and 3, whatever of it is marked up as a
reference. Lists in which nothing refers to a figure are left alone: they may be of another article.
"""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lxml import etree

from biomedclip_jax.data.pmc.jats._elements import child, local_name
from biomedclip_jax.data.pmc.jats._text import text_of
from biomedclip_jax.data.pmc.jats.article import Paragraph, References

SUB_ARTICLES = frozenset({"sub-article", "response"})
# fmt: off
# A mention in one of these is no running text, however deep it stands.
_NO_RUNNING_TEXT = frozenset({
    "caption", "fig", "fig-group", "table-wrap", "table-wrap-group", "table-wrap-foot", "supplementary-material",
    "ref-list", "ref", "author-notes",
})
_BEFORE_PARAGRAPH = _NO_RUNNING_TEXT | {"td", "th", "title", "label"}
_STARTS = 80  # characters
_SECTIONS = frozenset({
    "sec", "app", "app-group", "ack", "abstract", "trans-abstract", "boxed-text", "notes", "glossary", "bio", "fn-group",
})
_PARTS = {
    "abstract": "abstract", "trans-abstract": "abstract", "front": "front", "body": "body", "back": "back",
    "floats-group": "floats-group", "floats-wrap": "floats-group",
}
# fmt: on
_LABEL = re.compile(r"\W*(?:fig(?:ure|ura)?s?|abb(?:ildung)?)?\.?\s*(S?)\s?(\d{1,3})\s?[A-Za-z]?\s*[.:]?\s*", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_DASH = r"[-–—‐‑‒−]"
_PANELS = rf"(?:\s?\(?[A-Za-z](?![A-Za-z])(?:\s*(?:{_DASH}|,|&|and)\s*[A-Za-z](?![A-Za-z]))*\)?)?"
_FIGURE_WORD = r"(?:[Ff]ig(?:ure)?s?\.?|FIG(?:URE)?S?\.?)\s*"
_ITEM = re.compile(rf"({_FIGURE_WORD})?(S?)(\d{{1,3}})(?!\d|\.\d|[A-Za-z]{{2}}){_PANELS}")
_JOINT = re.compile(
    rf"\s*(?:(?P<range>{_DASH}|\b(?:to|through|thru|until)\b)|(?:,|;|&|/|\band\b|\bor\b|,\s*and\b|\bas well as\b))\s*"
    r"(?:and\s+)?"
)
_ENDS_A_LIST = re.compile(
    r"\s*(?:\Z|[.,;:)\]]|(?:show|is|are|was|were|in|for|and|illustrat|present|depict|demonstrat|display|"
    r"giv|summari[sz]|indicat|provid|respectively)\w*\b|(?:we|the)\b)"
)
_LIST_BEFORE = re.compile(rf"{_FIGURE_WORD}(?:S?\d[\w\s,;&–—‐‑-]{{0,40}})?\Z")
_LONGEST_RANGE = 200  # figures


@dataclass(frozen=True)
class Target:
    """A figure that may be mentioned. ids: its own, and those of the groups it is in."""

    index: int
    ids: tuple[str, ...]
    label: str | None
    part: etree._Element | None  # the <sub-article> it stands in


@dataclass
class _Found:
    """What is known of one figure."""

    xrefs: int = 0
    outside: int = 0
    paragraphs: dict[etree._Element, Paragraph] = field(default_factory=dict)


def references(
    targets: Sequence[Target], mentions: Iterable[etree._Element], order: Mapping[etree._Element, int]
) -> list[References]:
    """For each figure, by what it is mentioned. Every paragraph is read once, however often it is met.

    mentions: all <xref>. order: the position of each <p>.
    """
    by_id: dict[str, list[int]] = {}
    for target in targets:
        for identity in dict.fromkeys(target.ids):
            by_id.setdefault(identity, []).append(target.index)
    found = [_Found() for _ in targets]
    paragraphs: dict[etree._Element, Paragraph | None] = {}
    marked: dict[etree._Element, dict[etree._Element, set[int]]] = {}  # in each paragraph, what each <xref> means
    for mention in mentions:
        wanted = {index for identity in (mention.get("rid") or "").split() for index in by_id.get(identity, ())}
        if not wanted:
            continue
        element = _paragraph_round(mention)
        if element is not None and element not in paragraphs:
            paragraphs[element] = _paragraph(element)
        paragraph = None if element is None else paragraphs[element]
        for index in wanted:
            found[index].xrefs += 1
            if element is None or paragraph is None:
                found[index].outside += 1
            else:
                found[index].paragraphs[element] = paragraph
        if element is not None and paragraph is not None:
            marked.setdefault(element, {})[mention] = wanted
    numbers = _by_number(targets)
    for element, spans in marked.items():
        paragraph = paragraphs[element]
        for index in _in_lists(element, spans, numbers, targets):
            if paragraph is not None:
                found[index].paragraphs[element] = paragraph
    return [
        References(each.xrefs, each.outside, tuple(each.paragraphs[e] for e in sorted(each.paragraphs, key=order.__getitem__)))
        for each in found
    ]


def _by_number(targets: Sequence[Target]) -> dict[tuple[etree._Element | None, str, int], list[int]]:
    """Figures by (the part of the article, "S" of a supplementary figure, number)."""
    numbers: dict[tuple[etree._Element | None, str, int], list[int]] = {}
    for target in targets:
        if target.label and (match := _LABEL.fullmatch(target.label)):
            numbers.setdefault((target.part, match[1].upper(), int(match[2])), []).append(target.index)
    return numbers


def _in_lists(
    element: etree._Element,
    spans: Mapping[etree._Element, set[int]],
    numbers: Mapping[tuple[etree._Element | None, str, int], list[int]],
    targets: Sequence[Target],
) -> set[int]:
    """The figures of all lists of this paragraph in which an <xref> means a figure."""
    text, marks = _flat(element, spans)
    covered = bytearray(len(text))  # 1 within a reference, 2 at its first number: what that means, the reference says
    for start, end in marks:
        covered[start:end] = b"\1" * (end - start)
        if first := _DIGIT.search(text, start, end):
            covered[first.start()] = 2
    part = next((targets[index].part for wanted in spans.values() for index in wanted), None)
    found: set[int] = set()
    position = 0
    for start, _ in marks:
        if start < position:
            continue
        named, position = _list_round(text, start, covered)
        for supplement, low, high in named:
            for number in range(low, min(high, low + _LONGEST_RANGE) + 1):
                found.update(numbers.get((part, supplement, number), ()))
    return found


def _flat(element: etree._Element, spans: Mapping[etree._Element, set[int]]) -> tuple[str, list[tuple[int, int]]]:
    """The characters of a paragraph, and where in them the references to figures stand."""
    pieces: list[str] = []
    length = 0
    starts: dict[etree._Element, int] = {}
    marks: list[tuple[int, int]] = []
    for event, node in etree.iterwalk(element, events=("start", "end")):
        if event == "start":
            starts[node] = length
            text = node.text
        else:
            if node in spans:
                marks.append((starts[node], length))
            text = None if node is element else node.tail
        if text:
            pieces.append(text)
            length += len(text)
    return "".join(pieces), sorted(marks)


def _list_round(text: str, start: int, covered: bytearray) -> tuple[list[tuple[str, int, int]], int]:
    """The figures of the list round the reference that begins at `start`, and where the list ends.

    A figure or a range of them is ("S" of supplementary ones, first number, last number). What a reference names alone
    is not in it.
    """
    before = _LIST_BEFORE.search(text, max(0, start - 60), start)
    position = start - (len(before[0]) if before else 0)
    ranges: list[tuple[str, int, int]] = []
    is_range = ""  # "-" after a dash, "to" after a word
    supplement, last = "", 0
    while (item := _ITEM.match(text, position)) is not None:
        joint = _JOINT.match(text, item.end())
        sure = covered[item.start(3)] or is_range == "-" or item[1] or item.start() < start
        if not (sure or joint or _ENDS_A_LIST.match(text, item.end())):
            break  # "Fig. 2 and 4 mice", "Fig. 1 to 3 weeks"
        supplement = item[2] or supplement
        number = int(item[3])
        if is_range and last < number:
            ranges.append((supplement, last, number))
        elif covered[item.start(3)] < 2:
            ranges.append((supplement, number, number))
        last = number
        position = item.end()
        if joint is None:
            break
        is_range = "" if joint["range"] is None else "to" if joint["range"].isalpha() else "-"
        position = joint.end()
    return ranges, max(position, start + 1)


def _paragraph_round(mention: etree._Element) -> etree._Element | None:
    for outer in mention.iterancestors():
        kind = local_name(outer.tag)
        if kind == "p":
            return outer
        if kind in _BEFORE_PARAGRAPH:
            return None
    return None


def _paragraph(element: etree._Element) -> Paragraph | None:
    """None for a <p> that is no running text."""
    around = list(element.iterancestors())
    kinds = [local_name(outer.tag) for outer in around]
    if not _NO_RUNNING_TEXT.isdisjoint(kinds):
        return None
    in_sub_article = not SUB_ARTICLES.isdisjoint(kinds)
    where = "sub-article" if in_sub_article else next((_PARTS[kind] for kind in kinds if kind in _PARTS), "body")
    headings = (child(outer, "title") for outer, kind in zip(around, kinds, strict=True) if kind in _SECTIONS)
    section = next((text_of(heading) for heading in headings if heading is not None), None)
    return Paragraph(where, section, text_of(element), text_of(element, plain=True)[:_STARTS])
