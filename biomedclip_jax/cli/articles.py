"""`biomedclip data fetch` and `figures`: articles of PubMed Central, and what they say of their figures."""

import argparse
from pathlib import Path
from typing import Any

from biomedclip_jax.cli.arguments import IDS_HELP, SOURCE_HELP, add_verb, count, local_path
from biomedclip_jax.errors import UserError


def add_fetch(actions: Any) -> None:
    """Add `fetch` to the verbs of `data`."""
    fetch = add_verb(
        actions,
        "fetch",
        _fetch,
        "Copy articles of PMC's cloud to a folder: XML, metadata, pictures. Run again, it gets what is missing or changed.",
        "biomedclip data fetch s3://pmc-oa-opendata articles --ids PMC10009416 my-ids.txt --licenses 'CC BY' CC0",
    )
    fetch.add_argument("source", metavar="s3://BUCKET[/FOLDER]", help="the PMC cloud is s3://pmc-oa-opendata")
    fetch.add_argument(
        "folder", type=Path, metavar="DIR", help="gets the same layout, and rejects.jsonl: what is not in it, and why"
    )
    fetch.add_argument("--ids", nargs="+", metavar="ID_OR_FILE", help=f"{IDS_HELP} (default: all there are: terabytes)")
    fetch.add_argument(
        "--inventory",
        metavar="latest|MANIFEST",
        help="learn what there is from a daily inventory, not by listing the bucket: `latest`, or a manifest.json (path or s3://)",
    )
    fetch.add_argument(
        "--licenses",
        nargs="+",
        metavar="CODE",
        help="only articles under these, or `any` (default: CC0 'CC BY' 'CC BY-SA' 'CC BY-ND', which allow commercial use)",
    )
    fetch.add_argument(
        "--workers", type=count, default=16, metavar="N", help="articles at once, at most 64 (default: %(default)s)"
    )


def _fetch(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.pmc.sources.open import open_source
    from biomedclip_jax.data.pmc.sources.selection import COMMERCIAL, read_ids, read_licenses

    if not arguments.source.startswith("s3://"):
        raise UserError(f"{arguments.source}: expected an address such as s3://pmc-oa-opendata; other sources need no fetching")
    ids = None if arguments.ids is None else read_ids(arguments.ids)
    licenses = read_licenses(arguments.licenses or COMMERCIAL)
    source: Any = open_source(
        arguments.source, ids=ids, inventory=arguments.inventory, licenses=licenses, connections=min(arguments.workers, 64)
    )
    from biomedclip_jax.data.pmc.sources.fetch import REJECTS, fetch  # needs what open_source has found to be installed

    counts = dict(fetch(source, arguments.folder))
    downloaded, size = counts.pop("files"), counts.pop("bytes")
    print(f"{arguments.folder}: {counts.pop('articles')} articles asked for")
    print(f"  {'unchanged':24s} {counts.pop('unchanged')}")
    print(f"  {'fetched':24s} {counts.pop('fetched')}  ({downloaded} files, {size / 1e6:.1f} MB)")
    _print_rejects(counts, arguments.folder / REJECTS)


def add_figures(actions: Any) -> None:
    """Add `figures` to the verbs of `data`."""
    figures = add_verb(
        actions,
        "figures",
        _figures,
        "List the figures of articles, an article a line: captions, labels, files, paragraphs that mention them, licence.",
        "biomedclip data figures articles --out figures.jsonl",
    )
    figures.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    figures.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="X.jsonl",
        help="gets a line for each article; X.rejects.jsonl gets those left out, and why",
    )
    figures.add_argument("--ids", nargs="+", metavar="ID_OR_FILE", help=IDS_HELP)
    figures.add_argument(
        "--licenses", nargs="+", metavar="CODE", help="only articles under these, such as 'CC BY' CC0 (default: any)"
    )
    figures.add_argument("--workers", type=count, metavar="N", help="processes (default: one a core)")


def _figures(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.pmc.sources.open import open_source
    from biomedclip_jax.data.pmc.sources.selection import read_ids, read_licenses
    from biomedclip_jax.support.parallel import core_count

    if arguments.out.suffix != ".jsonl":
        raise UserError(f"--out {arguments.out}: expected a name that ends in .jsonl")
    ids = None if arguments.ids is None else read_ids(arguments.ids)
    licenses = read_licenses(arguments.licenses or ["any"])
    source = open_source(arguments.source, ids=ids, licenses=licenses)
    try:
        from biomedclip_jax.data.pmc.figures_file import rejects_name, write_figures
    except ModuleNotFoundError as error:
        raise UserError(f"reading articles needs more ({error}): pip install 'biomedclip_jax[pmc]'") from error
    workers = arguments.workers or core_count()
    counts = dict(write_figures(source, arguments.out, licenses=licenses, workers=workers))
    print(f"{arguments.out}: {counts.pop('articles')} articles")
    for name in ("figures", "figures with a picture", "articles without figures", "images outside figures"):
        if name in counts:
            print(f"  {name:24s} {counts.pop(name)}")
    _print_rejects(counts, rejects_name(arguments.out))


def _print_rejects(counts: dict[str, int], listed: Path) -> None:
    for reason, number in sorted(counts.items()):
        print(f"  {reason:24s} {number}")
    if counts:
        print(f"{listed}: {sum(counts.values())} articles left out, each with its reason")
