"""`biomedclip search`: the images of an index that are nearest to words, to an image, or to a patient."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from biomedclip_jax.search import Hit, Index

_IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".dcm", ".dicom")
_CAPTION = 200  # letters of a caption in a table
_SHEET = 20  # queries on a contact sheet


def add_search(verbs: Any) -> None:
    """Add the verb to the command."""
    search = add_verb(
        verbs,
        "search",
        _search,
        "Find images of an index by words, by an image, or by a patient.",
        "biomedclip search scans.index \"pleural effusion\" --filter 'license=CC BY' 'year>=2015' --top 5 --sheet hits.png\n"
        "  biomedclip search scans.index photo.jpg --format json\n"
        "  biomedclip search scans.index --like P17 --group patient  # patients whose images are like those of P17",
    )
    search.description = (
        "Prints for each query the nearest images, best first, with caption, article, licence and citation where known. "
        "All images that the filters leave are compared, unless the index was made with --approximate and there is no filter. "
        "For research, not for clinical use."
    )
    search.add_argument("index", metavar="INDEX", help="what `biomedclip index` made: a folder, or http://HOST:6333/COLLECTION")
    search.add_argument(
        "queries",
        nargs="*",
        metavar="QUERY",
        help="words in quotes, or an image file, anywhere but behind an option that takes several things. What is the name "
        "of a file is an image",
    )
    search.add_argument("--queries", dest="file", type=Path, metavar="FILE", help="a UTF-8 text file with a query a line")
    search.add_argument("--text", action="store_true", help="all queries are words, also those that are names of files")
    search.add_argument(
        "--like",
        nargs="+",
        default=[],
        metavar="ID",
        help="images of the index by their ids; with --group its values, such as patients. They themselves are no hits",
    )
    search.add_argument(
        "--filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN=VALUE",
        help="only images whose column says exactly so; also != and, of numbers, < <= > >=. All filters must hold. "
        "COLUMN= is where nothing is known",
    )
    search.add_argument("--top", type=count, default=10, metavar="K", help="hits of a query (default: %(default)s)")
    search.add_argument(
        "--group", metavar="COLUMN", help="hits are what images belong to, such as a patient, each shown by its nearest image"
    )
    search.add_argument(
        "--pool", choices=["best", "mean"], default="best", help="the score of a group: of its nearest image, or of all"
    )
    search.add_argument("--format", choices=["table", "json"], default="table", help="default: %(default)s")
    search.add_argument("--sheet", type=local_path, metavar="FILE.png", help="also draw the hits with scores and captions")
    search.add_argument("--model", metavar="MODEL", help="where the index's model is now, if it was moved")
    search.add_argument("--exact", action="store_true", help="compare all images, also where an approximate index is there")


@dataclass(frozen=True)
class _Query:
    """What is searched for. kind: text, image or like. vectors: [V, E], None of one that cannot be read: error says why.
    own: rows that are no hits.
    """

    text: str
    kind: str
    vectors: "np.ndarray | None"
    own: tuple[int, ...] = ()
    error: str = ""


def _search(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.search import open_index

    texts = [*arguments.queries, *(_lines(arguments.file) if arguments.file is not None else [])]
    if not texts and not arguments.like:
        raise UserError("what is searched for? Give words in quotes or an image file behind INDEX, --queries FILE or --like ID")
    if arguments.sheet is not None and arguments.sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {arguments.sheet}: expected a name that ends in .png")
    if arguments.sheet is not None and len(texts) + len(arguments.like) > _SHEET:
        raise UserError(
            f"--sheet: a sheet holds {_SHEET} queries, and these are {len(texts) + len(arguments.like):,}; give fewer"
        )
    index = open_index(arguments.index)
    matching = index.matching(arguments.filter)  # complains before the model is loaded
    if arguments.group is not None:
        index.positions(arguments.group, "")
    queries = [_like(index, each, arguments.group) for each in arguments.like]
    queries = _embedded(index, texts, arguments) + queries
    found = [[] if query.vectors is None else _hits(index, query, arguments) for query in queries]
    if arguments.format == "json":
        print(json.dumps(_record(index, arguments, matching, queries, found), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _say_few(index, arguments, matching)
        for query, hits in zip(queries, found, strict=True):
            _print(query, hits)
    for query in queries:
        if query.error:
            print(f"left out: {query.error}", file=sys.stderr)
    if arguments.sheet is not None:
        from biomedclip_jax.search.sheet import draw_sheet

        shown = [(query.text, query.kind, hits) for query, hits in zip(queries, found, strict=True)]
        draw_sheet(arguments.sheet, index, shown)
        print(f"{arguments.sheet}: {sum(map(len, found))} hits of {len(queries)} queries", file=sys.stderr)
    if all(query.error for query in queries):
        raise UserError(f"none of the {len(queries)} queries can be read" if len(queries) > 1 else queries[0].error)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--queries {file}: not readable as UTF-8 text ({error}); expected a query a line") from error
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"--queries {file}: no query in it; expected one a line")
    return found


def _like(index: "Index", value: str, group: str | None) -> _Query:
    column = group or "id"
    rows = index.positions(column, value)
    if not rows:
        some = ", ".join(list(index.values(column))[:5])
        raise UserError(f"--like {value}: no image of {index.folder} has this {column}; there are {some} ...")
    return _Query(value, "like", index.vectors(rows), tuple(rows))


def _embedded(index: "Index", texts: Sequence[str], arguments: argparse.Namespace) -> list[_Query]:
    """The queries that the model embeds; the model is not loaded where there are none."""
    from biomedclip_jax.data.unread_texts import say_unread

    if not texts:
        return []
    if any(not text.strip() for text in texts):
        raise UserError("QUERY: expected words, or the name of an image file; found nothing")
    images = [] if arguments.text else [number for number, text in enumerate(texts) if _is_image(text)]
    words = [number for number in range(len(texts)) if number not in set(images)]
    clip = index.load_model(arguments.model)
    found: dict[int, _Query] = {}
    if words:
        said = [texts[number] for number in words]
        for number, vector in zip(words, clip.encode_texts(said), strict=True):
            found[number] = _Query(texts[number], "text", vector[None])
        say_unread("queries", clip.unread_texts(said))
    errors: dict[int, UserError] = {}
    vectors = iter(clip.encode_images([texts[number] for number in images], on_error=errors.__setitem__) if images else [])
    for position, number in enumerate(images):
        error = errors.get(position)
        found[number] = _Query(texts[number], "image", None if error else next(vectors)[None], error=str(error or ""))
    return [found[number] for number in range(len(texts))]


def _is_image(text: str) -> bool:
    """Whether a query is an image file. UserError for what looks like the name of one that is not there."""
    try:
        if Path(text).is_file():
            return True
    except (OSError, ValueError):  # words too long for a name
        return False
    if text.lower().endswith(_IMAGES):
        raise UserError(f"{text}: no such file; give --text if you search for these words")
    return False


def _hits(index: "Index", query: _Query, arguments: argparse.Namespace) -> "list[Hit]":
    top, filters = arguments.top, arguments.filter
    assert query.vectors is not None
    if arguments.group is not None:
        return index.search_groups(query.vectors, arguments.group, top, filters, query.own, arguments.pool)
    return index.search(query.vectors, top, filters, query.own, exact=arguments.exact)[0]


def _say_few(index: "Index", arguments: argparse.Namespace, matching: int) -> None:
    """Say on stderr how many images the filters leave, and which values there are where they leave none."""
    if not arguments.filter:
        return
    print(f"{matching:,} of {len(index):,} images match {' and '.join(arguments.filter)}", file=sys.stderr)
    if matching:
        return
    for each in index.parsed(arguments.filter):
        if each.sign == "=" and not index.matching([each]):
            values = index.values(each.column)
            some = ", ".join(f"{value or 'nothing'} ({images:,})" for value, images in list(values.items())[:8])
            more = f", and {len(values) - 8:,} more" if len(values) > 8 else ""
            print(f"none has {each.column} = {each.value!r}; there are: {some}{more}", file=sys.stderr)


def _print(query: _Query, hits: "Sequence[Hit]") -> None:
    print(f"{query.text} ({query.kind})" if query.kind != "text" else f'"{query.text}"')
    for rank, hit in enumerate(hits, 1):
        group = f"{hit.group} ({hit.images} {'image' if hit.images == 1 else 'images'}): " if hit.group is not None else ""
        print(f"{rank:4d}  {hit.score:.4f}  {group}{hit.id}")
        if hit.caption:
            caption = " ".join(hit.caption.split())
            print(f"              {caption if len(caption) <= _CAPTION else caption[:_CAPTION] + ' ...'}")
        if said := "  ".join(filter(None, (hit.article, hit.license, hit.citation))):
            print(f"              {said}")
    if not hits and not query.error:
        print("      no hit")


def _record(
    index: "Index", arguments: argparse.Namespace, matching: int, queries: Sequence[_Query], found: "Sequence[Sequence[Hit]]"
) -> dict[str, Any]:
    """What --format json prints; docs/search.md describes it."""
    from biomedclip_jax.search.hits import hits_record

    told = [
        hits_record(query.text, query.kind, matching, hits, query.error) for query, hits in zip(queries, found, strict=True)
    ]
    return {
        "index": str(index.folder),
        "model": {"name": index.model.name, "fingerprint": index.model.fingerprint},
        "images": len(index),
        "filters": list(arguments.filter),
        "group": arguments.group,
        "pool": arguments.pool if arguments.group is not None else None,
        "exact": index.is_exact(arguments.filter, exact=arguments.exact) or arguments.group is not None,
        "queries": told,
    }
