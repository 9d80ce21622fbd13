"""An article -> its image-caption pairs, and what was left out and why. All filters but the one against duplicates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.pmc.jats.article import ArticleFiles
from biomedclip_jax.data.pmc.figure_types import figure_type
from biomedclip_jax.data.pmc.figures_file import OUR_FAULT, UNREADABLE, describe
from biomedclip_jax.data.pmc.build.pictures import Picture, encode, make_picture, on_white, reduce
from biomedclip_jax.data.pmc.sources.selection import COMMERCIAL, NOT_WANTED, NotWanted, check_license
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.errors import UserError, first_line


@dataclass(frozen=True)
class Filters:
    """What a build keeps."""

    licenses: tuple[str, ...] | None = tuple(COMMERCIAL)  # codes as in `licenses.py`; None keeps articles whatever they say
    retracted: bool = False
    historical_ocr: bool = False  # captions that were read from scanned pages
    max_side: int = 512  # pixels; larger pictures are reduced
    min_side: int = 32  # pixels; smaller ones are left out
    min_words: int = 3  # of a caption
    leave_out_types: tuple[str, ...] = ()  # of `figure_types.py`
    panels: bool = False  # parts of compound figures as pairs of their own, besides the whole


@dataclass(frozen=True)
class Pair:
    """A picture that passed, and its record but for the image."""

    picture: Picture
    fields: dict[str, Any]
    panels: tuple[dict[str, Any], ...] = ()  # whole records


@dataclass(frozen=True)
class Reject:
    """Something that was left out. kind: "article", or "picture", of which an article may have none or many."""

    kind: str
    reason: str  # one of a few, to be counted
    article: str
    pair_id: str | None = None
    file: str | None = None
    detail: str | None = None


def pairs_of_article(source: Source, key: str, filters: Filters) -> list[Pair | Reject]:
    """Each picture of each figure once, in document order, as a Pair or a Reject; or one Reject of the whole article."""
    try:
        files = source.open(key)
        article = describe(files)
        check_license(article["license"], filters.licenses, key)
        if article["is_retracted"] and not filters.retracted:
            return [Reject("article", "retracted", key)]
        if article["is_historical_ocr"] and not filters.historical_ocr:
            return [Reject("article", "historical OCR", key)]
        return [item for figure in article["figures"] for item in _pairs_of_figure(files, article, figure, filters)]
    except NotWanted as error:
        return [Reject("article", NOT_WANTED, key, detail=str(error))]
    except UserError as error:
        return [Reject("article", UNREADABLE, key, detail=str(error))]
    except Exception as error:  # ours to mend; and millions of other articles wait
        return [Reject("article", OUR_FAULT, key, detail=f"{type(error).__name__}: {first_line(error)}")]


def _pairs_of_figure(
    files: ArticleFiles, article: dict[str, Any], figure: dict[str, Any], filters: Filters
) -> Iterator[Pair | Reject]:
    caption, first_id = figure["fig_caption"] or figure["group_caption"] or "", figure["pair_id"]
    pictures = figure["pictures"]
    own = figure["own_license"]
    if not pictures:
        named = figure["graphics"][0]["href"] if figure["graphics"] else None
        yield Reject("picture", "no image file" if named else "no image named", files.key, first_id, named)
        return
    kind = figure_type(caption)
    for number, name in enumerate(pictures, 1):
        pair_id = first_id if number == 1 else f"{first_id}+{number}"
        reason = None
        if own and filters.licenses is not None and own["code"] not in filters.licenses:
            reason = NOT_WANTED  # taken over from elsewhere, say
        elif not caption:
            reason = "no caption"
        elif len(caption.split()) < filters.min_words:
            reason = "caption too short"
        elif kind in filters.leave_out_types:
            reason = f"type: {kind}"
        if reason:
            yield Reject("picture", reason, files.key, pair_id, name)
            continue
        try:
            data = files.read(name)
            picture = make_picture(data, name, filters.max_side, filters.min_side)
        except UserError as error:
            small = "on the shorter side" in str(error)
            yield Reject("picture", "image too small" if small else "image unreadable", files.key, pair_id, name, str(error))
            continue
        fields = _fields(article, figure, picture, kind) | {"caption": caption, "pair_id": pair_id}
        panels = tuple(_panels(data, name, fields, filters)) if filters.panels else ()
        yield Pair(picture, fields, panels)


def _fields(article: dict[str, Any], figure: dict[str, Any], picture: Picture, kind: str) -> dict[str, Any]:
    return {
        "pmcid": article["pmcid"] or "",
        "pmid": article["pmid"] or "",
        "version": article["version"] or 0,
        "year": article["year"] or 0,
        "figure_id": figure["fig_id"] or "",
        "label": figure["fig_label"] or "",
        "license": (figure["own_license"] or {"code": article["license"]})["code"] or "",
        "citation": article["citation"] or "",
        "references": [paragraph["text"] for paragraph in figure["references"]["paragraphs"]],
        "width": picture.width,
        "height": picture.height,
        "in_sub_article": figure["in_sub_article"],
        "figure_type": kind,
        "panel": "",
    }


def _panels(data: bytes, name: str, whole: dict[str, Any], filters: Filters) -> Iterator[dict[str, Any]]:
    """A record for each panel whose part of the caption is known; cut out of the original, then reduced."""
    from biomedclip_jax.data.pmc.panels import compound

    image = on_white(load_image(data, name))
    for part in compound.match_panels(image, whole["caption"]):
        panel = image.crop(part.box)
        width, height = panel.size
        if min(width, height) < filters.min_side:
            continue
        reduce(panel, filters.max_side)
        yield whole | {
            "image": encode(panel),
            "caption": part.caption,
            "pair_id": f"{whole['pair_id']}#{part.label}",
            "panel": part.label,
            "width": width,
            "height": height,
        }
