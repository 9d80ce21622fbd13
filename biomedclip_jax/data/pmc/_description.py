"""What is known of an article and its figures before any picture is looked at: `describe`.

As JSON (`vars` of each class) a description is a line of figures.jsonl. It holds what the BiomedCLIP_data_pipeline of
Microsoft writes, under the same names (`pmid`, `pmc`, `location`, `figures` with `fig_id`, `fig_label`, `fig_caption`,
`graphic_ref`, `pair_id`), and more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from biomedclip_jax.data.pmc.jats.article import Article, ArticleFiles, Figure, Metadata, Paragraph
from biomedclip_jax.data.pmc.jats.figure_files import picture, resolve
from biomedclip_jax.data.pmc.jats.licences import license_code
from biomedclip_jax.data.pmc.jats.parse import parse_article


@dataclass(frozen=True)
class NamedGraphic:
    """An image that a figure names. media: the file beside the XML that `href` means, or None."""

    href: str
    media: str | None
    in_alternatives: bool


@dataclass(frozen=True)
class OwnLicense:
    """The licence that a figure states for itself: then the article's does not hold for it. code: None for an unknown
    one.
    """

    code: str | None
    url: str | None
    text: str | None


@dataclass(frozen=True)
class FigureReferences:
    """Where an article mentions a figure. paragraphs: each once, in document order."""

    n_xrefs: int
    n_xrefs_outside_paragraphs: int
    n_paragraphs: int
    n_paragraphs_without_sub_articles: int
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True)
class FigureDescription:
    """A figure, as `describe` says. Texts are None where the element is missing."""

    index: int  # from 0, in document order
    fig_id: str | None
    fig_label: str | None
    fig_caption: str | None  # its own title and paragraphs; a pair's caption begins with `group_caption`
    graphic_ref: str | None  # the first of `pictures`, as a path within the source
    pair_id: str  # unique in the article, see `_pair_ids`
    caption_title: str | None
    caption_paragraphs: tuple[str, ...]
    attrib: str | None  # the credit line beside the caption
    own_license: OwnLicense | None
    taken_from: str | None  # what its caption or credit line says of being taken over from elsewhere
    is_translation: bool  # the same images stand in the article with another caption, which is preferred
    pictures: tuple[str, ...]  # files that are its picture: one of each set of alternatives and no thumbnails
    picture_captions: tuple[str | None, ...]  # what is said of each of `pictures` alone, besides the caption
    graphics: tuple[NamedGraphic, ...]  # all that are named
    in_sub_article: bool
    in_floats_group: bool
    fig_group: int | None  # from 1
    group_caption: str | None  # of the groups round it, and of the figure round it whose panel it is
    nested_in_fig: str | None  # an id
    references: FigureReferences


@dataclass(frozen=True)
class ArticleDescription:
    """An article, as `describe` says. What is not known is None."""

    pmid: str | None
    pmc: str | None  # "123"
    location: str  # of the XML, within the source
    pmcid: str | None  # "PMC123"
    version: int | None
    doi: str | None
    title: str | None
    journal: str | None
    year: int | None
    article_type: str | None
    license: str | None  # code as in `jats.licences`, or what the metadata state
    license_url: str | None
    license_source: str | None  # "metadata", "xml"
    is_retracted: bool
    is_historical_ocr: bool | None
    is_manuscript: bool | None
    citation: str | None  # for attribution
    figures: tuple[FigureDescription, ...]  # in document order
    loose_images: tuple[
        str, ...
    ] = ()  # hrefs of images in the text outside figures, tables and formulas: nothing is said of them


def describe(files: ArticleFiles) -> ArticleDescription:
    """Describe an article and its figures from its XML and metadata, without reading a picture.

    pmcid, version, pmid, doi: of the metadata, else of the XML, else (PMC id and version) of the names. title,
    journal, year, article_type: of the XML. license: of the metadata, else of the XML; license_url: as the XML gives
    it. is_retracted: if either says so. is_historical_ocr, is_manuscript: as the metadata say, None without metadata.

    Raises UserError for an article that cannot be read.
    """
    article = parse_article(files.xml, files.location)
    metadata = files.metadata or Metadata()
    named_pmcid, _, named_version = files.key.partition(".") if files.key.startswith("PMC") else ("", "", "")
    pmcid = metadata.pmcid or article.pmcid or named_pmcid or None
    if pmcid and pmcid.isdecimal():
        pmcid = f"PMC{pmcid}"
    version = metadata.version or named_version
    pmid = metadata.pmid or article.pmid
    stated = metadata.license_code
    code = (license_code(stated) or stated) if stated else article.license.code
    folder = files.location.rpartition("/")[0]
    pair_ids = _pair_ids(pmid or pmcid or files.key, article)
    names = frozenset(files.media)
    return ArticleDescription(
        pmid=pmid,
        pmc=pmcid.removeprefix("PMC") if pmcid else None,
        location=files.location,
        pmcid=pmcid,
        version=int(version) if version and version.isdecimal() else None,
        doi=metadata.doi or article.doi,
        title=article.title or metadata.title,
        journal=article.journal,
        year=article.year,
        article_type=article.article_type,
        license=code,
        license_url=article.license.url,
        license_source="metadata" if stated else "xml" if code else None,
        is_retracted=article.is_retracted or metadata.is_retracted,
        is_historical_ocr=metadata.is_historical_ocr if files.metadata is not None else None,
        is_manuscript=metadata.is_manuscript if files.metadata is not None else None,
        citation=metadata.citation,
        figures=tuple(
            _figure(figure, pair_id, names, folder) for figure, pair_id in zip(article.figures, pair_ids, strict=True)
        ),
        loose_images=article.loose_images,
    )


def _pair_ids(article_id: str, article: Article) -> list[str]:
    """Ids `<PMID>_<figure id>` as Microsoft has them; the PMC id, else the article's name, where there is no PMID.

    A figure without an id is "fig-<index>"; of several with the same the second and later end in "~2", "~3" ...
    """
    given = [f"{article_id}_{figure.id or f'fig-{figure.index}'}" for figure in article.figures]
    taken, seen, unique = set(given), Counter[str](), list[str]()
    for pair_id in given:
        seen[pair_id] += 1
        name = pair_id
        if seen[pair_id] > 1:
            while (name := f"{pair_id}~{seen[pair_id]}") in taken:
                seen[pair_id] += 1
            taken.add(name)
        unique.append(name)
    return unique


def _figure(figure: Figure, pair_id: str, names: frozenset[str], folder: str) -> FigureDescription:
    pictures = picture(figure.graphics, names)
    own = figure.license
    return FigureDescription(
        index=figure.index,
        fig_id=figure.id,
        fig_label=figure.label,
        fig_caption=figure.caption,
        graphic_ref=f"{folder}/{pictures[0]}".removeprefix("/") if pictures else None,
        pair_id=pair_id,
        caption_title=figure.caption_title,
        caption_paragraphs=figure.caption_paragraphs,
        attrib=figure.attrib,
        own_license=None if own is None else OwnLicense(own.code, own.url, own.text),
        taken_from=figure.taken_from,
        is_translation=figure.is_translation,
        pictures=pictures,
        picture_captions=_picture_captions(figure, pictures, names),
        graphics=tuple(
            NamedGraphic(graphic.href, resolve(graphic.href, names), graphic.in_alternatives) for graphic in figure.graphics
        ),
        in_sub_article=figure.in_sub_article,
        in_floats_group=figure.in_floats_group,
        fig_group=figure.fig_group,
        group_caption=figure.group_caption,
        nested_in_fig=figure.nested_in_fig,
        references=_references(figure.references.xrefs, figure.references.outside_paragraphs, figure.references.paragraphs),
    )


def _picture_captions(figure: Figure, pictures: Sequence[str], names: frozenset[str]) -> tuple[str | None, ...]:
    """The own captions of a figure's images, by the files that are its pictures."""
    captions: dict[str, str] = {}
    for graphic in figure.graphics:
        if graphic.caption:
            forms = [
                g for g in figure.graphics if g is graphic or (g.in_alternatives and g.alternatives == graphic.alternatives)
            ]
            for name in picture(forms, names):
                captions.setdefault(name, graphic.caption)
    return tuple(captions.get(name) for name in pictures)


def _references(xrefs: int, outside: int, paragraphs: Sequence[Paragraph]) -> FigureReferences:
    without_sub_articles = sum(paragraph.where != "sub-article" for paragraph in paragraphs)
    return FigureReferences(xrefs, outside, len(paragraphs), without_sub_articles, tuple(paragraphs))
