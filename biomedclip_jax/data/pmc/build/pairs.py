"""An article -> its image-caption pairs, and what was left out and why. All filters but the one against duplicates."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.pmc._description import ArticleDescription, FigureDescription, describe
from biomedclip_jax.data.pmc.build._pictures import Picture, PictureError, decoding, encode, make_picture, reduce, whole_rgb
from biomedclip_jax.data.pmc.build.record import Record
from biomedclip_jax.data.pmc.figure_types import figure_type
from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.jats.licences import license_code
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.data.pmc.sources.selection import COMMERCIAL, NOT_WANTED, check_license, reject_of
from biomedclip_jax.errors import UserError

TAKEN_OVER = "taken over from elsewhere"  # somebody else's, under no licence that is named
NO_FIGURE = "image outside figures"  # in the running text, without a caption
TRANSLATION = "translation of another figure"


@dataclass(frozen=True)
class Filters:
    """What a build keeps of articles and pictures."""

    licenses: tuple[str, ...] | None = tuple(COMMERCIAL)  # codes as in `jats.licences`; None keeps articles whatever they say
    retracted: bool = False
    historical_ocr: bool = False  # captions that were read from scanned pages
    max_side: int = 512  # pixels; larger pictures are reduced
    min_side: int = 32  # pixels; smaller ones are left out
    min_words: int = 3  # of a caption
    leave_out_types: tuple[str, ...] = ()  # of `figure_types`
    panels: bool = False  # parts of compound figures as pairs of their own, besides the whole


@dataclass(frozen=True)
class Pair:
    """A picture that passed, with its record and the records of its panels."""

    picture: Picture
    record: Record
    panels: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Reject:
    """Something that was left out. kind: "article", or "picture", of which an article may have none or many."""

    kind: str
    reason: str  # one of a few, to be counted
    article: str | None
    pair_id: str | None = None
    file: str | None = None
    detail: str | None = None

    def line(self) -> bytes:
        """The line of `rejects.jsonl`, without the fields that are None."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")  # names of files, too


def pairs_of_article(source: Source, key: str, filters: Filters) -> list[Pair | Reject]:
    """Each picture of each figure once, in document order, as a Pair or a Reject; or one Reject of the whole article."""
    try:
        files = source.open(key)
        article = describe(files)
        check_license(article.license or article.license_url, filters.licenses, key)
        if article.is_retracted and not filters.retracted:
            return [Reject("article", "retracted", key)]
        if article.is_historical_ocr and not filters.historical_ocr:
            return [Reject("article", "historical OCR", key)]
        items = [item for figure in article.figures for item in _pairs_of_figure(files, article, figure, filters)]
        return [*items, *(Reject("picture", NO_FIGURE, files.key, file=href) for href in article.loose_images)]
    except Exception as error:
        reject = reject_of(key, error)
        return [Reject("article", reject.reason, key, detail=reject.detail)]


def _pairs_of_figure(
    files: ArticleFiles, article: ArticleDescription, figure: FigureDescription, filters: Filters
) -> Iterator[Pair | Reject]:
    if not figure.pictures:
        named = figure.graphics[0].href if figure.graphics else None
        reason = "no image file" if named else "no image named"
        yield Reject("picture", reason, files.key, figure.pair_id, named)
        return
    license, of_the_figure, detail = _license(article, figure, filters)
    for number, (name, own_caption) in enumerate(zip(figure.pictures, figure.picture_captions, strict=True), 1):
        pair_id = figure.pair_id if number == 1 else f"{figure.pair_id}+{number}"
        caption = _caption(figure, own_caption)
        kind = figure_type(caption)
        if reason := of_the_figure or _unwanted(caption, kind, filters):
            yield Reject("picture", reason, files.key, pair_id, name, detail)
            continue
        try:
            data = files.read(name)
            picture = make_picture(data, name, filters.max_side, filters.min_side)
        except UserError as error:
            why = error.reason if isinstance(error, PictureError) else "image unreadable"
            yield Reject("picture", why, files.key, pair_id, name, str(error))
            continue
        record = _record(article, figure, picture, caption, kind, pair_id, license)
        yield Pair(picture, record, tuple(_panels(data, name, record, filters)) if filters.panels else ())


def _caption(figure: FigureDescription, own_caption: str | None) -> str:
    """All that is said of a picture: of its group, of its figure, of itself. What repeats the part before is left out."""
    caption = ""
    for part in (figure.group_caption, figure.fig_caption, own_caption):
        if part and part not in caption:
            caption = part if part.startswith(caption) else f"{caption} {part}"
    return caption


def _license(
    article: ArticleDescription, figure: FigureDescription, filters: Filters
) -> tuple[str | None, str | None, str | None]:
    """(licence of a figure, the reason why its pictures are left out, details of it); no reason where it may stay.

    A figure's own licence counts, or else that which its caption names of what it takes from elsewhere.
    """
    if figure.is_translation:
        return article.license, TRANSLATION, None
    own = figure.own_license
    if own is None and figure.taken_from is None:
        return article.license, None, None
    code = own.code if own is not None else license_code(figure.taken_from)
    if filters.licenses is None or code in filters.licenses:
        return code, None, None
    detail = own.text if own is not None else figure.taken_from
    return code, NOT_WANTED if code else TAKEN_OVER, detail


def _unwanted(caption: str, kind: str, filters: Filters) -> str | None:
    """The reason why a picture is left out, whatever is in it."""
    if not caption:
        return "no caption"
    if len(caption.split()) < filters.min_words:
        return "caption too short"
    return f"type: {kind}" if kind in filters.leave_out_types else None


def _record(
    article: ArticleDescription,
    figure: FigureDescription,
    picture: Picture,
    caption: str,
    kind: str,
    pair_id: str,
    license: str | None,
) -> Record:
    return Record(
        image=picture.jpeg,
        caption=caption,
        pair_id=pair_id,
        pmcid=article.pmcid or "",
        pmid=article.pmid or "",
        version=article.version or 0,
        year=article.year or 0,
        figure_id=figure.fig_id or "",
        label=figure.fig_label or "",
        license=license or "",
        citation=article.citation or "",
        references=tuple(paragraph.text for paragraph in figure.references.paragraphs),
        width=picture.width,
        height=picture.height,
        in_sub_article=figure.in_sub_article,
        figure_type=kind,
    )


def _panels(data: bytes, name: str, whole: Record, filters: Filters) -> Iterator[Record]:
    """A record for each panel whose part of the caption is known; cut out of the original, then reduced."""
    from biomedclip_jax.data.pmc.panels import compound

    with decoding(data, name):
        image = whole_rgb(load_image(data, name))
        for part in compound.match_panels(image, whole.caption):
            panel = image.crop(part.box)
            size = panel.size
            if min(size) < filters.min_side:
                continue
            reduce(panel, filters.max_side)
            yield whole.of_panel(part.label, part.caption, encode(panel), size)
