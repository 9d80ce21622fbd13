"""figures.jsonl: an article a line, with all that is known of its figures before their images are looked at.

A line holds what Microsoft's BiomedCLIP_data_pipeline writes, under the same names (`pmid`, `pmc`, `location`, `figures` with
`fig_id`, `fig_label`, `fig_caption`, `graphic_ref`, `pair_id`), and more: see `describe`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

from biomedclip_jax.data.pmc.jats import figure_files as media_names
from biomedclip_jax.data.pmc.jats.article import Article, ArticleFiles, Figure
from biomedclip_jax.data.pmc.jats.licences import license_code
from biomedclip_jax.data.pmc.jats.parse import parse_article
from biomedclip_jax.data.pmc.sources.cloud_layout import is_set
from biomedclip_jax.data.pmc.sources.open import Source
from biomedclip_jax.data.pmc.sources.selection import NOT_WANTED, NotWanted, check_license
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_file
from biomedclip_jax.support.parallel import in_order
from biomedclip_jax.support.terminal import progress_bar

_BATCH = 16  # articles that a worker takes at once
_OPEN_AT_ONCE = 4  # of these; for sources far away, where opening is waiting
UNREADABLE, OUR_FAULT = "cannot be read", "error of the reader"  # reasons of rejects, besides NOT_WANTED


def describe(files: ArticleFiles) -> dict[str, Any]:
    """An article's line, ready for JSON. What is not known is None.

    pmcid ("PMC123"), pmc ("123"), version, pmid, doi: of the metadata, else of the XML, else (PMC id and version) of the names.
    location: of the XML, within the source.
    title, journal, year, article_type: of the XML; citation, for attribution: of the metadata.
    license: code as in `licenses.py`, of license_source "metadata", else "xml"; license_url: as the XML gives it.
    is_retracted: if either says so. is_historical_ocr, is_manuscript: as the metadata say, None without metadata.
    figures: one object each, in document order; [] for an article without:
      index from 0; fig_id, fig_label, fig_caption (title and paragraphs; apart: caption_title, caption_paragraphs), attrib;
      graphics: {href, media (the file it means), in_alternatives} of all that are named;
      pictures: the files that are its picture, one of each set of alternatives and no thumbnails;
      graphic_ref: the first of these, within the source; pair_id: see `_pair_ids`;
      own_license: {code, url, text} where the figure states one of its own: then the article's does not hold for it;
      in_sub_article, in_floats_group, fig_group (from 1), group_caption (that group's), nested_in_fig (an id);
      references: {n_xrefs, n_xrefs_outside_paragraphs, n_paragraphs, n_paragraphs_without_sub_articles,
      paragraphs: {where, section, text, starts (80 characters, without formulas)}}.

    Raises UserError for an article that cannot be read.
    """
    article = parse_article(files.xml, files.location)
    metadata = files.metadata or {}
    named_pmcid, _, named_version = files.key.partition(".") if files.key.startswith("PMC") else ("", "", "")
    pmcid = _text(metadata.get("pmcid")) or article.pmcid or named_pmcid or None
    if pmcid and pmcid.isdecimal():
        pmcid = f"PMC{pmcid}"
    version = _text(metadata.get("version")) or named_version
    pmid = _text(metadata.get("pmid")) or article.pmid
    stated = _text(metadata.get("license_code"))
    code = (license_code(stated) or stated) if stated else article.license.code
    folder = files.location.rpartition("/")[0]
    pair_ids = _pair_ids(pmid or pmcid or files.key, article)
    names = frozenset(files.media)
    return {
        "pmid": pmid,
        "pmc": pmcid.removeprefix("PMC") if pmcid else None,
        "location": files.location,
        "pmcid": pmcid,
        "version": int(version) if version and version.isdecimal() else None,
        "doi": _text(metadata.get("doi")) or article.doi,
        "title": article.title or _text(metadata.get("title")),
        "journal": article.journal,
        "year": article.year,
        "article_type": article.article_type,
        "license": code,
        "license_url": article.license.url,
        "license_source": "metadata" if stated else "xml" if code else None,
        "is_retracted": article.is_retracted or is_set(metadata, "is_retracted"),
        "is_historical_ocr": is_set(metadata, "is_historical_ocr") if files.metadata is not None else None,
        "is_manuscript": is_set(metadata, "is_manuscript") if files.metadata is not None else None,
        "citation": _text(metadata.get("citation")),
        "figures": [_figure(figure, pair_id, names, folder) for figure, pair_id in zip(article.figures, pair_ids, strict=True)],
    }


def _text(value: object) -> str | None:
    """Of the metadata, in which an id is a string or a number."""
    return str(value).strip() or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def _pair_ids(article_id: str, article: Article) -> list[str]:
    """`<PMID>_<figure id>` as Microsoft has it; the PMC id, else the article's name, where there is no PMID.

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


def _figure(figure: Figure, pair_id: str, names: frozenset[str], folder: str) -> dict[str, Any]:
    pictures = media_names.picture(figure.graphics, names)
    paragraphs = figure.references.paragraphs
    own = figure.license
    return {
        "index": figure.index,
        "fig_id": figure.id,
        "fig_label": figure.label,
        "fig_caption": figure.caption,
        "graphic_ref": f"{folder}/{pictures[0]}".removeprefix("/") if pictures else None,
        "pair_id": pair_id,
        "caption_title": figure.caption_title,
        "caption_paragraphs": list(figure.caption_paragraphs),
        "attrib": figure.attrib,
        "own_license": None if own is None else {"code": own.code, "url": own.url, "text": own.text},
        "pictures": list(pictures),
        "graphics": [
            {
                "href": graphic.href,
                "media": media_names.resolve(graphic.href, names),
                "in_alternatives": graphic.in_alternatives,
            }
            for graphic in figure.graphics
        ],
        "in_sub_article": figure.in_sub_article,
        "in_floats_group": figure.in_floats_group,
        "fig_group": figure.fig_group,
        "group_caption": figure.group_caption,
        "nested_in_fig": figure.nested_in_fig,
        "references": {
            "n_xrefs": figure.references.xrefs,
            "n_xrefs_outside_paragraphs": figure.references.outside_paragraphs,
            "n_paragraphs": len(paragraphs),
            "n_paragraphs_without_sub_articles": sum(paragraph.where != "sub-article" for paragraph in paragraphs),
            "paragraphs": [vars(paragraph) for paragraph in paragraphs],
        },
    }


def rejects_name(out: Path) -> Path:
    """figures.jsonl -> figures.rejects.jsonl"""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.rejects.jsonl")


def write_figures(source: Source, out: Path, *, licenses: frozenset[str] | None = None, workers: int = 1) -> Counter[str]:
    """Write a line for each article into `out`, in the order of the source's keys, whatever the number of processes.

    What is left out, and why, goes to `rejects_name(out)`: {article, reason, detail}, reason one of three.
    licenses: codes that are wanted, of metadata or XML; None: any.
    Returns counts: articles, figures, "figures with a picture", "articles without figures", and one for each reason.
    Raises UserError for a source without articles, and where the files cannot be written; nothing is left half-written.
    """
    keys = list(source.keys())
    if not keys:
        raise UserError("no article in this source")
    counts: Counter[str] = Counter({"articles": 0, "figures": 0, "figures with a picture": 0, "articles without figures": 0})

    def write(partial_out: Path) -> None:
        def write_rejects(partial_rejects: Path) -> None:
            with partial_out.open("wb") as lines, partial_rejects.open("wb") as rejects:
                _write(source, keys, licenses, workers, lines, rejects, counts)

        write_file(rejects_name(out), write_rejects)

    write_file(out, write)
    return counts


def _write(
    source: Source,
    keys: Sequence[str],
    licenses: frozenset[str] | None,
    workers: int,
    lines: BinaryIO,
    rejects: BinaryIO,
    counts: Counter[str],
) -> None:
    with progress_bar(len(keys), "article") as bar:
        for line in _lines(source, keys, licenses, workers):
            if "reason" in line:
                counts[line["reason"]] += 1
            else:
                figures = line["figures"]
                counts["articles"] += 1
                counts["figures"] += len(figures)
                counts["figures with a picture"] += sum(figure["graphic_ref"] is not None for figure in figures)
                counts["articles without figures"] += not figures
            # a name of a file that is no UTF-8 has surrogates: written as escapes, which JSON knows
            encoded = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
            (rejects if "reason" in line else lines).write(encoded)
            bar.update()


def _lines(source: Source, keys: Sequence[str], licenses: frozenset[str] | None, workers: int) -> Iterator[dict[str, Any]]:
    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    work = partial(_batch, source, licenses)
    if min(workers, len(batches)) <= 1:
        for batch in batches:
            yield from work(batch)
        return
    with ExitStack() as stack:
        pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=get_context("spawn"))
        stack.callback(pool.shutdown, cancel_futures=True)
        try:
            for done in in_order(pool, work, batches, 4 * workers):
                yield from done
        except BrokenProcessPool as error:
            raise UserError("a worker process died, for want of memory perhaps; try again with fewer --workers") from error


def _batch(source: Source, licenses: frozenset[str] | None, keys: Sequence[str]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_OPEN_AT_ONCE) as threads:
        opened = threads.map(partial(_open, source), keys)
        return [_line(key, files, licenses) for key, files in zip(keys, opened, strict=True)]


def _open(source: Source, key: str) -> ArticleFiles | Exception:
    try:
        return source.open(key)
    except Exception as error:  # one article must not stop all others, nor one reason to reject it hide as another
        return error


def _line(key: str, files: ArticleFiles | Exception, licenses: frozenset[str] | None) -> dict[str, Any]:
    try:
        if isinstance(files, Exception):
            raise files
        line = describe(files)
        check_license(line["license"], licenses, files.key)
        return line
    except NotWanted as error:
        return {"article": key, "reason": NOT_WANTED, "detail": str(error)}
    except UserError as error:
        return {"article": key, "reason": UNREADABLE, "detail": str(error)}
    except Exception as error:  # ours to mend; and millions of other articles wait
        return {"article": key, "reason": OUR_FAULT, "detail": f"{type(error).__name__}: {first_line(error)}"}
