"""A JATS article, whatever its DTD version, namespace or wrapper, as the figures it shows and what it says of them.

Elements are known by their local names. Every <fig> counts, wherever it stands: body, back matter, <floats-group>,
<fig-group>, in a paragraph, in another figure, in a <sub-article>; without id, label, caption or graphic it still
counts.
"""

from collections import Counter

from lxml import etree

from biomedclip_jax.data.pmc.jats._front import (
    article_ids,
    article_license,
    article_meta,
    child,
    children,
    is_retracted,
    journal,
    license_of,
    title,
    xlink,
    year,
)
from biomedclip_jax.data.pmc.jats._text import caption_parts, local_name, text_of
from biomedclip_jax.data.pmc.jats.article import Article, Figure, Graphic, Paragraph, References
from biomedclip_jax.data.pmc.jats.safe_xml import read_xml
from biomedclip_jax.errors import UserError

_SUB_ARTICLES = frozenset({"sub-article", "response"})
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
    "floats-group": "floats-group",
}
# fmt: on


def parse_article(xml: bytes, name: str) -> Article:
    """What an article's XML tells. `name` is its name in messages.

    Raises UserError for XML that cannot be read (see `safe_xml.read_xml`), and for what is not one article in JATS.
    """
    article = _one_article(read_xml(xml, name), name)
    meta = article_meta(article)
    ids = article_ids(meta)
    return Article(
        pmcid=ids.get("pmcid"),
        pmid=ids.get("pmid"),
        doi=ids.get("doi"),
        title=title(meta),
        journal=journal(article),
        year=year(meta),
        article_type=article.get("article-type"),
        is_retracted=is_retracted(article, meta),
        license=article_license(meta),
        figures=_figures(article),
    )


def _one_article(root: etree._Element, name: str) -> etree._Element:
    """The <article>: the root, or within a wrapper (OAI-PMH, pmc-articleset)."""
    kind = local_name(root.tag)
    articles = [root] if kind == "article" else [] if kind == "html" else list(root.iter("{*}article"))
    if not articles:
        raise UserError(f"{name}: no <article> in it, but <{kind}>; expected an article in JATS")
    if len(articles) > 1:
        raise UserError(f"{name}: {len(articles)} articles in one file; expected one: split it")
    return articles[0]


def _figures(article: etree._Element) -> tuple[Figure, ...]:
    """All figures, in one walk through the document."""
    elements: list[etree._Element] = []
    graphics: dict[etree._Element, list[etree._Element]] = {}
    groups: dict[etree._Element, int] = {}
    mentions: list[etree._Element] = []
    order: dict[etree._Element, int] = {}  # of the paragraphs
    for element in article.iter("{*}fig", "{*}fig-group", "{*}graphic", "{*}p", "{*}xref"):
        kind = local_name(element.tag)
        if kind == "p":
            order[element] = len(order)
        elif kind == "xref":
            mentions.append(element)
        elif kind == "fig":
            elements.append(element)
        elif kind == "fig-group":
            groups[element] = len(groups) + 1
        elif (figure := _figure_shown(element)) is not None:
            graphics.setdefault(figure, []).append(element)
    ids = {identity for element in elements if (identity := element.get("id"))}
    references = _references(mentions, ids, order)
    none = References(0, 0, ())
    return tuple(
        _figure(index, element, graphics.get(element, []), groups, references.get(element.get("id") or "", none))
        for index, element in enumerate(elements)
    )


def _figure_shown(graphic: etree._Element) -> etree._Element | None:
    """The nearest figure round an image, unless the image is a part of that figure's caption."""
    inner = graphic
    for outer in graphic.iterancestors():
        if local_name(outer.tag) == "fig":
            return None if local_name(inner.tag) == "caption" else outer
        inner = outer
    return None


def _figure(
    index: int,
    element: etree._Element,
    graphics: list[etree._Element],
    groups: dict[etree._Element, int],
    references: References,
) -> Figure:
    caption = child(element, "caption")
    caption_title, paragraphs = caption_parts(caption) if caption is not None else (None, ())
    around = list(element.iterancestors())
    kinds = [local_name(outer.tag) for outer in around]
    group = next((outer for outer in around if outer in groups), None)
    return Figure(
        index=index,
        id=element.get("id"),
        label=_own_text(element, "label"),
        caption=" ".join(filter(None, (caption_title, *paragraphs))) if caption is not None else None,
        caption_title=caption_title,
        caption_paragraphs=paragraphs,
        graphics=_graphics(graphics),
        references=references,
        attrib=_own_text(element, "attrib"),
        in_sub_article=not _SUB_ARTICLES.isdisjoint(kinds),
        in_floats_group="floats-group" in kinds,
        fig_group=groups[group] if group is not None else None,
        group_label=_own_text(group, "label"),
        group_caption=_own_text(group, "caption"),
        nested_in_fig=next((outer.get("id") for outer, kind in zip(around, kinds, strict=True) if kind == "fig"), None),
        license=license_of(permissions) if (permissions := children(element, "permissions")) else None,
    )


def _own_text(element: etree._Element | None, name: str) -> str | None:
    """The text of the child `name`; None where there is none."""
    part = child(element, name)
    return None if part is None else text_of(part)


def _graphics(elements: list[etree._Element]) -> tuple[Graphic, ...]:
    alternatives: dict[etree._Element, int] = {}
    graphics = []
    for element in elements:
        form = next(element.iterancestors("{*}alternatives", "{*}fig"), None)
        number = None
        if form is not None and local_name(form.tag) == "alternatives":
            number = alternatives.setdefault(form, len(alternatives))
        href = xlink(element, "href") or ""
        graphics.append(Graphic(href, number, element.get("specific-use"), element.get("content-type")))
    return tuple(graphics)


def _references(mentions: list[etree._Element], ids: set[str], order: dict[etree._Element, int]) -> dict[str, References]:
    """By what each figure's id is mentioned. Every paragraph is read once, however often it is met."""
    counts: Counter[str] = Counter()  # all mentions
    outside: Counter[str] = Counter()  # of these, outside paragraphs
    found: dict[str, dict[etree._Element, Paragraph]] = {}
    paragraphs: dict[etree._Element, Paragraph | None] = {}
    for mention in mentions:
        wanted = ids.intersection((mention.get("rid") or "").split())
        if not wanted:
            continue
        element = _paragraph_round(mention)
        paragraph = None
        if element is not None:
            if element not in paragraphs:
                paragraphs[element] = _paragraph(element)
            paragraph = paragraphs[element]
        for identity in wanted:
            counts[identity] += 1
            if element is None or paragraph is None:
                outside[identity] += 1
            else:
                found.setdefault(identity, {})[element] = paragraph
    in_order = {identity: sorted(by_element, key=order.__getitem__) for identity, by_element in found.items()}
    return {
        identity: References(counts[identity], outside[identity], tuple(found[identity][e] for e in in_order.get(identity, ())))
        for identity in counts
    }


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
    in_sub_article = not _SUB_ARTICLES.isdisjoint(kinds)
    where = "sub-article" if in_sub_article else next((_PARTS[kind] for kind in kinds if kind in _PARTS), "body")
    headings = (child(outer, "title") for outer, kind in zip(around, kinds, strict=True) if kind in _SECTIONS)
    section = next((text_of(heading) for heading in headings if heading is not None), None)
    return Paragraph(where, section, text_of(element), text_of(element, formulas=False)[:_STARTS])
