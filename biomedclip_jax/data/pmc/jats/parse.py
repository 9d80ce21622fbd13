"""A JATS article, whatever its DTD version, namespace or wrapper, as the figures it shows and what it says of them.

Elements are known by their local names. Every <fig> counts, wherever it stands: body, back matter, <floats-group>,
<fig-group>, in a paragraph, in another figure, in a <sub-article>; without id, label, caption or graphic it still
counts.
"""

from dataclasses import dataclass, replace

from lxml import etree

from biomedclip_jax.data.pmc.jats._captions import Caption, is_panel_label, read_caption
from biomedclip_jax.data.pmc.jats._credits import taken_from
from biomedclip_jax.data.pmc.jats._elements import child, children, language, local_name
from biomedclip_jax.data.pmc.jats._front import (
    article_ids,
    article_license,
    article_meta,
    is_retracted,
    journal,
    license_of,
    title,
    xlink,
    year,
)
from biomedclip_jax.data.pmc.jats._mentions import SUB_ARTICLES, Target, references
from biomedclip_jax.data.pmc.jats._text import text_of
from biomedclip_jax.data.pmc.jats.article import Article, Figure, Graphic, References
from biomedclip_jax.data.pmc.jats.safe_xml import read_xml
from biomedclip_jax.errors import UserError

_FLOATS = frozenset({"floats-group", "floats-wrap"})
# an image in one of these is no figure, even if it has a caption
_NO_FIGURE = frozenset(
    {"table-wrap", "disp-formula", "inline-formula", "supplementary-material", "chem-struct-wrap", "caption"}
)


# what is shown in one of these is no picture of the article's text: a sign, a letter, a portrait, a logo
_NO_PICTURE = _NO_FIGURE | {
    "fig", "table", "array", "chem-struct", "bio", "contrib-group", "author-notes", "permissions", "license", "journal-meta",
    "sig-block", "ref-list", "custom-meta-group",
}  # fmt: skip


def parse_article(xml: bytes, name: str) -> Article:
    """What an article's XML tells. `name` is its name in messages.

    Raises UserError for XML that cannot be read (see `safe_xml.read_xml`), and for what is not one article in JATS.
    """
    article = _one_article(read_xml(xml, name), name)
    meta = article_meta(article)
    ids = article_ids(meta)
    figures, loose_images = _figures(article)
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
        figures=figures,
        loose_images=loose_images,
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


@dataclass
class _Shown:
    """What shows a figure: a <fig>, or an image with a caption of its own or in a group; and its images."""

    element: etree._Element
    graphics: list[etree._Element]


def _figures(article: etree._Element) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """All figures, and the hrefs of the images that are no figure's, in one walk through the document."""
    shown: dict[etree._Element, _Shown] = {}
    groups: dict[etree._Element, int] = {}
    mentions: list[etree._Element] = []
    order: dict[etree._Element, int] = {}  # of the paragraphs
    loose: dict[etree._Element, str] = {}
    with_caption: dict[etree._Element, etree._Element | None] = {}  # of several forms of an image, the one with a caption
    for element in article.iter("{*}fig", "{*}fig-group", "{*}graphic", "{*}p", "{*}xref"):
        kind = local_name(element.tag)
        if kind == "p":
            order[element] = len(order)
        elif kind == "xref":
            mentions.append(element)
        elif kind == "fig":
            shown[element] = _Shown(element, [])
        elif kind == "fig-group":
            groups[element] = len(groups) + 1
        elif (figure := _figure_shown(element, with_caption)) is not None:
            shown.setdefault(figure, _Shown(figure, [])).graphics.append(element)
        elif (place := _place_in_the_text(element)) is not None:
            loose.setdefault(place, xlink(element, "href") or "")
    captions = _Captions()
    figures = [_figure(index, each, groups, captions) for index, each in enumerate(shown.values())]
    targets = [
        Target(figure.index, _ids(each.element), figure.label, _sub_article(each.element))
        for figure, each in zip(figures, shown.values(), strict=True)
    ]
    found = references(targets, mentions, order)
    figures = [replace(figure, references=said) for figure, said in zip(figures, found, strict=True)]
    return tuple(_without_translations(figures, list(shown.values()))), tuple(loose.values())


def _figure_shown(graphic: etree._Element, with_caption: dict[etree._Element, etree._Element | None]) -> etree._Element | None:
    """What makes an image one of a figure: the nearest <fig> round it, unless the image is in that figure's caption.

    Outside, the image itself, or the first of its <alternatives>, if it has a caption or stands in a group of figures.
    """
    inner = graphic
    kinds: list[str] = []
    for outer in graphic.iterancestors():
        kinds.append(local_name(outer.tag))
        if kinds[-1] == "fig":
            return None if local_name(inner.tag) == "caption" else outer
        inner = outer
    if not _NO_FIGURE.isdisjoint(kinds):
        return None
    round_it = graphic.getparent()
    if kinds[:1] != ["alternatives"] or round_it is None:
        return graphic if kinds[:1] == ["fig-group"] or child(graphic, "caption") is not None else None
    if round_it not in with_caption:
        forms = children(round_it, "graphic")
        chosen = next((form for form in forms if child(form, "caption") is not None), None)
        with_caption[round_it] = forms[0] if chosen is None and kinds[1:2] == ["fig-group"] else chosen
    return with_caption[round_it]


def _place_in_the_text(graphic: etree._Element) -> etree._Element | None:
    """The image itself, or the <alternatives> that it is a form of; None if it is no picture of the article's text."""
    kinds = [local_name(outer.tag) for outer in graphic.iterancestors()]
    if not _NO_PICTURE.isdisjoint(kinds):
        return None
    if "logo" in (xlink(graphic, "href") or "").lower():
        return None
    return graphic.getparent() if kinds[:1] == ["alternatives"] else graphic


class _Captions:
    """What is said of figures, groups and images; each is read once, however many figures it is said of."""

    def __init__(self) -> None:
        self._read: dict[etree._Element, Caption] = {}
        self._taken_from: dict[etree._Element, str | None] = {}
        self._joined: dict[tuple[etree._Element, ...], str | None] = {}

    def of(self, element: etree._Element) -> Caption:
        """Its own label and caption."""
        if element not in self._read:
            self._read[element] = read_caption(element)
        return self._read[element]

    def joined(self, elements: tuple[etree._Element, ...]) -> str | None:
        """The captions of several elements as one text; None if none has any."""
        if elements not in self._joined:
            texts = [text for element in elements if (text := self.of(element).text) is not None]
            self._joined[elements] = " ".join(filter(None, texts)) if texts else None
        return self._joined[elements]

    def taken_from(self, element: etree._Element) -> str | None:
        """What an element's caption or credit line says of being taken over from elsewhere."""
        if element not in self._taken_from:
            attrib = child(element, "attrib")
            texts = (self.of(element).whole, None if attrib is None else text_of(attrib, references=True))
            self._taken_from[element] = next((found for text in texts if text and (found := taken_from(text))), None)
        return self._taken_from[element]


def _figure(index: int, shown: _Shown, groups: dict[etree._Element, int], captions: _Captions) -> Figure:
    element = shown.element
    own = captions.of(element)
    around = list(element.iterancestors())
    kinds = [local_name(outer.tag) for outer in around]
    group = next((outer for outer in around if outer in groups), None)
    outer_fig = next((outer for outer, kind in zip(around, kinds, strict=True) if kind == "fig"), None)
    above = tuple(outer for outer in reversed(around) if outer in groups)
    if outer_fig is not None and is_panel_label(own.label):
        above = (*above, outer_fig)
    said = (captions.taken_from(each) for each in (element, *above, *shown.graphics))
    return Figure(
        index=index,
        id=element.get("id"),
        label=own.label,
        caption=own.text,
        caption_title=own.title,
        caption_paragraphs=own.paragraphs,
        graphics=_graphics(shown, captions),
        references=References(0, 0, ()),
        attrib=_own_text(element, "attrib"),
        in_sub_article=not SUB_ARTICLES.isdisjoint(kinds),
        in_floats_group=not _FLOATS.isdisjoint(kinds),
        fig_group=groups[group] if group is not None else None,
        group_label=captions.of(group).label if group is not None else None,
        group_caption=captions.joined(above),
        nested_in_fig=outer_fig.get("id") if outer_fig is not None else None,
        license=license_of(permissions) if (permissions := _permissions(shown, around)) else None,
        taken_from=next(filter(None, said), None),
    )


def _permissions(shown: _Shown, around: list[etree._Element]) -> list[etree._Element]:
    """The <permissions> nearest to a figure: its own, its image's, its group's, its sub-article's."""
    for element in (shown.element, *shown.graphics, *around):
        kind = local_name(element.tag)
        if kind in ("fig", "graphic", "fig-group"):
            found = children(element, "permissions")
        elif kind in SUB_ARTICLES:
            found = children(child(element, "front-stub"), "permissions")
            found += children(child(child(element, "front"), "article-meta"), "permissions")
            found = [each for each in found if children(each, "license", "license_ref")]
        else:
            continue
        if found:
            return found
    return []


def _own_text(element: etree._Element | None, name: str) -> str | None:
    """The text of the child `name`; None where there is none."""
    part = child(element, name)
    return None if part is None else text_of(part)


def _graphics(shown: _Shown, captions: _Captions) -> tuple[Graphic, ...]:
    alternatives: dict[etree._Element, int] = {}
    graphics = []
    for element in shown.graphics:
        form = next(element.iterancestors("{*}alternatives", "{*}fig"), None)
        number = None
        if form is not None and local_name(form.tag) == "alternatives":
            number = alternatives.setdefault(form, len(alternatives))
        href = xlink(element, "href") or ""
        said = None if element is shown.element else captions.of(element).text or None
        graphics.append(Graphic(href, number, element.get("specific-use"), element.get("content-type"), said))
    return tuple(graphics)


def _ids(element: etree._Element) -> tuple[str, ...]:
    """A figure's own id, and those of the groups it stands in: who mentions a group mentions its figures."""
    groups = (element, *element.iterancestors("{*}fig-group"))
    return tuple(identity for each in groups if (identity := each.get("id")))


def _sub_article(element: etree._Element) -> etree._Element | None:
    return next(element.iterancestors("{*}sub-article", "{*}response"), None)


def _without_translations(figures: list[Figure], shown: list[_Shown]) -> list[Figure]:
    """The figures, marked where the same images stand in the article with a caption that is preferred: the English one,
    or else the article's own.
    """
    same: dict[tuple[str, ...], list[int]] = {}
    for figure in figures:
        if hrefs := tuple(graphic.href for graphic in figure.graphics):
            same.setdefault(hrefs, []).append(figure.index)
    for indices in same.values():
        if len(indices) < 2:
            continue
        parts = [_sub_article(shown[index].element) for index in indices]
        translated = [part is not None and part.get("article-type") == "translation" for part in parts]
        if not any(translated):
            continue
        english = [language(shown[index].element) == "en" for index in indices]
        best = english.index(True) if any(english) else translated.index(False) if not all(translated) else 0
        for position, index in enumerate(indices):
            if position != best and parts[position] is not parts[best]:
                figures[index] = replace(figures[index], is_translation=True)
    return figures
