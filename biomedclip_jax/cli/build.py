"""`biomedclip data build`: articles of PubMed Central to a data set of image-caption pairs."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import IDS_HELP, SOURCE_HELP, add_verb, count
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.pmc.build.build import Summary

_BEAM_HELP = """Where it runs:
  --runner direct (default) uses processes of this machine. What follows --beam goes to Apache Beam as it is:
    --runner dataflow --beam --project=P --region=us-east1 --temp_location=gs://B/tmp --sdk_container_image=IMAGE
    --runner flink    --beam --flink_master=HOST:8081 --environment_type=EXTERNAL --environment_config=localhost:50000
    --runner spark    --beam --job_endpoint=HOST:8099 --environment_type=DOCKER --environment_config=IMAGE
    --runner portable --beam --job_endpoint=HOST:PORT      any job server; --job_endpoint=embed for one in this process
  IMAGE needs `pip install 'biomedclip_jax[beam]'`; SOURCE and DEST must then be addresses that all workers see (s3://, gs://).

Killed, or run again: it goes on with the shards that are missing or whose articles changed, and ends with the same bytes."""


def add_build(actions: Any) -> None:
    """Add `build` to the verbs of `data`."""
    build = add_verb(
        actions,
        "build",
        _build,
        "Make training data of articles: ArrayRecord shards that Grain and TFDS read, filtered, split, without duplicates.",
        "biomedclip data build articles pmc --max-side 512\n\n" + _BEAM_HELP,
    )
    build.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    build.add_argument("destination", metavar="DEST", help="a folder, or an address that fsspec can write (s3://, gs://, ...)")
    build.add_argument("--ids", nargs="+", metavar="ID_OR_FILE", help=IDS_HELP)
    build.add_argument("--inventory", metavar="latest|MANIFEST", help="of s3:// sources: what there is, and what changed")
    build.add_argument(
        "--licenses",
        nargs="+",
        metavar="CODE",
        help="only articles under these, or `any` such as 'CC BY-NC' 'public domain' (default: CC0 'CC BY' 'CC BY-SA' "
        "'CC BY-ND', which allow commercial use)",
    )
    build.add_argument(
        "--replace",
        action="store_true",
        help="also where DEST holds pairs of articles that are not in SOURCE: they go (default: an error says how many)",
    )
    build.add_argument("--shards", type=count, metavar="N", help="of the training split (default: one for 1,000 articles)")
    build.add_argument(
        "--splits",
        nargs="+",
        metavar="NAME=SHARE",
        help="by the article's id, in these proportions (default: train=13900000 validation=13600 test=726000, as PMC-15M)",
    )
    build.add_argument(
        "--max-side", type=count, default=512, metavar="PIXELS", help="larger pictures are reduced (default: %(default)s)"
    )
    build.add_argument(
        "--min-side", type=count, default=32, metavar="PIXELS", help="smaller pictures are left out (default: %(default)s)"
    )
    build.add_argument(
        "--min-words",
        type=count,
        default=3,
        metavar="N",
        help="pairs with a shorter caption are left out (default: %(default)s)",
    )
    build.add_argument(
        "--duplicates",
        choices=["similar", "exact", "none"],
        default="similar",
        help="of several pictures that look the same, or are the same file, only that of the oldest article stays "
        "(default: %(default)s)",
    )
    build.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="figure types, told by the words of the caption: chart, flowchart, mixed ... (a wrong one lists them all)",
    )
    build.add_argument("--panels", action="store_true", help="parts of compound figures as extra pairs, where they are certain")
    build.add_argument("--retracted", action="store_true", help="keep retracted articles")
    build.add_argument("--historical-ocr", action="store_true", help="keep articles whose text was read from scanned pages")
    build.add_argument("--workers", type=count, metavar="N", help="processes of the direct runner (default: one a core)")
    build.add_argument(
        "--runner",
        choices=["direct", "dataflow", "flink", "spark", "portable"],
        default="direct",
        help="what Apache Beam runs the work on (default: %(default)s, this machine)",
    )
    build.add_argument("--beam", nargs=argparse.REMAINDER, default=[], metavar="FLAG", help="all that follows goes to Beam")


def _build(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.pmc.build.record import PMC_15M
    from biomedclip_jax.data.pmc.sources.open import open_source
    from biomedclip_jax.data.pmc.sources.selection import COMMERCIAL, read_ids, read_licenses

    ids = None if arguments.ids is None else read_ids(arguments.ids)
    licenses = read_licenses(arguments.licenses or COMMERCIAL)
    splits = tuple(PMC_15M.items()) if arguments.splits is None else _splits(arguments.splits)
    source = open_source(arguments.source, ids=ids, inventory=arguments.inventory, licenses=licenses)
    destination = arguments.destination
    if "://" not in destination:
        destination = os.path.abspath(destination)  # workers may start elsewhere
        if Path(destination).is_file():
            raise UserError(f"{destination}: a file; expected a folder to write")
    try:
        from biomedclip_jax.data.pmc.build.build import BuildOptions, build
        from biomedclip_jax.data.pmc.build.pairs import Filters
        from biomedclip_jax.data.pmc.build.runner import Runner
        from biomedclip_jax.data.pmc.figure_types import type_named
    except ModuleNotFoundError as error:
        raise UserError(f"a build needs more ({error}): pip install 'biomedclip_jax[beam]'") from error
    filters = Filters(
        licenses=None if licenses is None else tuple(sorted(licenses)),
        retracted=arguments.retracted,
        historical_ocr=arguments.historical_ocr,
        max_side=arguments.max_side,
        min_side=arguments.min_side,
        min_words=arguments.min_words,
        leave_out_types=tuple(type_named(name) for name in arguments.leave_out),
        panels=arguments.panels,
    )
    options = BuildOptions(filters, splits, arguments.shards, arguments.duplicates)
    runner = Runner(arguments.runner, arguments.workers, tuple(arguments.beam))
    summary = build(source, destination, options, runner, may_replace=arguments.replace)
    _print(arguments.destination, summary)


def _splits(given: list[str]) -> tuple[tuple[str, float], ...]:
    splits = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            splits[name] = float(share)
        except ValueError:
            splits[name] = -1.0
        if not name.isidentifier() or not 0 <= splits[name] < float("inf"):
            raise UserError(f"--splits {text}: expected a name and a number of 0 or more, such as train=0.9")
    if not any(splits.values()):
        raise UserError(f"--splits {' '.join(given)}: expected a share above 0")
    return tuple(splits.items())


def _print(destination: str, summary: "Summary") -> None:
    print(f"{destination}: {sum(summary.pairs.values()):,} pairs, {summary.bytes / 1e6:,.1f} MB")
    _print_counts(summary.pairs)
    print(f"articles {summary.articles_seen:,}, of which")
    _print_counts({"with pictures": summary.articles_with_pictures, "without figures": summary.articles_without_figures})
    _print_counts(summary.articles_rejected)
    print(f"pictures {summary.pictures_seen:,}, of which")
    _print_counts({"kept": summary.pictures_kept, **summary.pictures_rejected})
    print(f"{destination.rstrip('/')}/rejects.jsonl has each with its reason; summary.json these numbers")


def _print_counts(counts: dict[str, int]) -> None:
    for name, number in counts.items():
        print(f"  {name:32s} {number:9,}")
