"""What an article of PubMed Central holds for us: its figures, what is said about them, and under which licence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TEXT_RULE = 2  # how texts are read (`_text`): a build keeps it, so that no two rules mix in one; 1 flattened superscripts


@dataclass(frozen=True)
class Graphic:
    """An image that a figure names."""

    href: str  # as written in the XML; "" if it names no file
    alternatives: int | None = None  # which <alternatives> of the figure it stands in, from 0: forms of one picture
    specific_use: str | None = None  # "print", "online", "thumbnail", "scielo-web" ...
    content_type: str | None = None  # "scielo-267x140" and the like: a small copy for web pages
    caption: str | None = None  # its own, besides the figure's

    @property
    def in_alternatives(self) -> bool:
        """Whether it is one of several forms of a picture."""
        return self.alternatives is not None


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of the running text that mentions a figure."""

    where: str  # "abstract", "body", "back" or "sub-article"
    section: str | None  # title of the nearest section round it
    text: str
    starts: str = ""  # the first 80 characters without formulas: finds the paragraph in another reading of the article


@dataclass(frozen=True)
class References:
    """Where an article speaks of a figure."""

    xrefs: int  # all mentions
    outside_paragraphs: int  # of these, in tables, headings, captions ...: no paragraph is taken from them
    paragraphs: tuple[Paragraph, ...]  # each once, in document order


@dataclass(frozen=True)
class License:
    """The licence that the XML states. code: "CC BY", "CC0", "CC BY-NC-ND" ..., or None if no known licence is named."""

    code: str | None
    url: str | None
    declared_in: str  # "license/@xlink:href", "license-p//ext-link/@xlink:href", "license text", ... or "none"
    text: str | None  # the first 300 characters of the statement


@dataclass(frozen=True)
class Figure:
    """One <fig> of an article, or one image with a caption outside any. Texts follow the rule of `_text.text_of`; None
    where the element is missing.
    """

    index: int  # from 0, in document order
    id: str | None
    label: str | None
    caption: str | None  # title and paragraphs
    caption_title: str | None
    caption_paragraphs: tuple[str, ...]
    graphics: tuple[Graphic, ...]
    references: References
    attrib: str | None = None  # the credit line beside the caption
    in_sub_article: bool = False  # of a decision letter, an author's response ...
    in_floats_group: bool = False
    fig_group: int | None = None  # which <fig-group> of the article, from 1
    group_label: str | None = None
    group_caption: str | None = None  # of the groups round it: often all that is said of its figures "(a)", "(b)" ...
    nested_in_fig: str | None = None  # id of the figure round it
    license: License | None = None  # its own <permissions>, where it has them: then the article's do not hold for it
    taken_from: str | None = None  # what its caption or credit line says of being taken over from elsewhere
    is_translation: bool = False  # the same images stand in the article with another caption, which is preferred


@dataclass(frozen=True)
class Article:
    """An article as its XML tells."""

    pmcid: str | None  # "PMC123"
    pmid: str | None
    doi: str | None
    title: str | None
    journal: str | None
    year: int | None
    article_type: str | None
    is_retracted: bool
    license: License
    figures: tuple[Figure, ...]
    loose_images: tuple[str, ...] = ()  # hrefs of images in the text that are no figure's, a table's or a formula's


@dataclass(frozen=True)
class Metadata:
    """What the PMC cloud's JSON says of a version of an article. Texts are None, and flags the default, where it is
    silent.

    xml_url, media_urls: as they are in the JSON; `cloud_layout.xml_file` and `picture_files` check them.
    """

    pmcid: str | None = None
    version: str | None = None
    pmid: str | None = None
    doi: str | None = None
    title: str | None = None
    citation: str | None = None
    license_code: str | None = None
    is_retracted: bool = False
    is_historical_ocr: bool = False
    is_manuscript: bool = False
    is_open_access: bool = True
    xml_url: object = None
    media_urls: object = None

    @staticmethod
    def of(facts: Mapping[str, Any]) -> "Metadata":
        """The metadata in a JSON object, of which unknown entries are ignored."""
        return Metadata(
            pmcid=_text(facts.get("pmcid")),
            version=_text(facts.get("version")),
            pmid=_text(facts.get("pmid")),
            doi=_text(facts.get("doi")),
            title=_text(facts.get("title")),
            citation=_text(facts.get("citation")),
            license_code=_text(facts.get("license_code")),
            is_retracted=_is_set(facts.get("is_retracted")),
            is_historical_ocr=_is_set(facts.get("is_historical_ocr")),
            is_manuscript=_is_set(facts.get("is_manuscript")),
            is_open_access=_is_set(facts.get("is_pmc_openaccess"), default=True),
            xml_url=facts.get("xml_url"),
            media_urls=facts.get("media_urls"),
        )


def _text(value: object) -> str | None:
    """The text of an entry; an id may be a string or a number."""
    return str(value).strip() or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def _is_set(value: object, default: bool = False) -> bool:
    """A yes or no, which is true or false, and was "yes" or "no" in other lists of PMC's."""
    return default if value is None else str(value).lower() in ("true", "yes", "1")


@dataclass(frozen=True)
class ArticleFiles:
    """The files of one article, in whatever form its source keeps them."""

    key: str  # PMC id and version ("PMC99000004.2") where they are known, else the name of the folder or package
    location: str  # path of the XML, relative to the source
    xml: bytes
    metadata: Metadata | None  # None where the source has none
    media: tuple[str, ...]  # names of the files beside the XML, without folders
    read: Callable[[str], bytes]  # a media file's bytes, by its name in `media`; UserError if it cannot be had
