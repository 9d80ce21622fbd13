"""`biomedclip data`: from articles and tables to what training reads. Nothing heavy is imported before a verb is
chosen.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.cli.articles import add_fetch, add_figures
from biomedclip_jax.cli.build import add_build
from biomedclip_jax.cli.captions import add_captions
from biomedclip_jax.cli.overlap import add_overlap
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.statistics.captioned import CaptionedPicture, TypesSeen

_PAIRS_HELP = (
    "a table (.csv, .tsv, .jsonl, .parquet), Parquet with pictures (FILE, 'data/train-*.parquet', FOLDER:train, or "
    "hf://datasets/ORG/NAME:train if it is on this machine), tars ('shards/{00000..00009}.tar' or 'shards/*.tar', also "
    "s3:// and gs://), a build and its split (FOLDER:train), or tfds:NAME:train"
)


def add_data(verbs: Any) -> None:
    """Add `data`, and the verbs below it, to the verbs of the command."""
    description = "Get articles of PubMed Central, and make training data of them or of your own."
    data = verbs.add_parser(
        "data",
        help=description,
        description=description,
        epilog="example:\n  biomedclip data preview xrays/train.csv --out sheet.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = data.add_subparsers(dest="action", metavar="VERB", required=True)
    add_fetch(actions)
    add_figures(actions)
    add_build(actions)
    add_preview(actions)
    add_convert(actions)
    add_captions(actions)
    add_overlap(actions)
    add_statistics(actions)


def add_preview(actions: Any) -> None:
    """Add `preview` to the verbs of `data`."""
    preview = add_verb(
        actions,
        "preview",
        _preview,
        "Some pairs of any source as a contact sheet, to see that images and captions belong together.",
        "biomedclip data preview xrays/train.csv --out sheet.png",
    )
    preview.add_argument("source", metavar="SOURCE", help=_PAIRS_HELP)
    preview.add_argument("--out", type=local_path, required=True, metavar="X.png", help="gets the sheet")
    preview.add_argument("-n", type=count, default=16, metavar="N", help="pairs, drawn at random (default: %(default)s)")
    preview.add_argument("--seed", type=int, default=0, help="draws others (default: %(default)s)")
    _add_columns(preview)


def _preview(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.statistics.pictures import write_preview

    pairs = _open(arguments)
    shown = write_preview(pairs, arguments.out, arguments.n, arguments.seed)
    print(f"{arguments.out}: {len(shown)} of {len(pairs)} pairs")


def add_convert(actions: Any) -> None:
    """Add `convert` to the verbs of `data`."""
    convert = add_verb(
        actions,
        "convert",
        _convert,
        "Pairs of any source as a table with a folder of images, Parquet with pictures, WebDataset tars, or a TFDS build.",
        "biomedclip data convert xrays/train.csv shards --to webdataset",
    )
    convert.add_argument("source", metavar="SOURCE", help=_PAIRS_HELP)
    convert.add_argument(
        "destination", type=local_path, metavar="DEST", help="the folder to write; must not be there yet, or be empty"
    )
    convert.add_argument(
        "--to",
        choices=["webdataset", "csv", "jsonl", "parquet", "huggingface", "tfds"],
        default="webdataset",
        help="parquet: a table beside a folder of images; huggingface: Parquet with the images in it (default: %(default)s)",
    )
    _add_columns(convert)


def _convert(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.convert import REJECTS, convert
    from biomedclip_jax.support.terminal import progress_bar

    pairs = _open(arguments)
    with progress_bar(len(pairs), "pair") as bar:
        written, rejected = convert(pairs, arguments.destination, arguments.to, bar.update)
    print(f"{arguments.destination}: {written} pairs ({arguments.to})")
    if rejected:
        print(f"{arguments.destination / REJECTS}: {rejected} records left out, each with its reason")


def add_statistics(actions: Any) -> None:
    """Add `statistics` to the verbs of `data`."""
    statistics = add_verb(
        actions,
        "statistics",
        _statistics,
        "Count what a source holds: lengths of captions, sizes of images, types of figures, words, licences, years; "
        "as JSON, pictures and a page.",
        "biomedclip data statistics pmc --tokenizer biomedclip",
    )
    statistics.add_argument("source", metavar="SOURCE", help=f"a build (FOLDER: all of its splits), or {_PAIRS_HELP}")
    statistics.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="gets statistics.json, PNGs and index.html (default: SOURCE/statistics, for a build)",
    )
    statistics.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="a model's folder: count tokens as it does (default: words only)"
    )
    statistics.add_argument(
        "--model",
        metavar="MODEL",
        help="a model folder, a run folder, or hf-hub:org/name: types of figures by their pictures, too, beside those by the "
        "words of the captions",
    )
    statistics.add_argument("--workers", type=count, metavar="N", help="processes (default: one a core)")
    _add_columns(statistics)


def _statistics(arguments: argparse.Namespace) -> None:

    from biomedclip_jax.data.statistics.report import write_statistics
    from biomedclip_jax.support.parallel import core_count

    build = (Path(arguments.source) / "features.json").is_file()
    if arguments.out is None and not build:
        raise UserError(f"{arguments.source}: not a build's folder; then --out DIR must say where statistics go")
    out = arguments.out or Path(arguments.source) / "statistics"
    columns = (arguments.image_column, arguments.caption_column)
    workers = arguments.workers or core_count()
    see = None if arguments.model is None else _look(arguments.model)
    found = write_statistics(arguments.source, out, arguments.tokenizer, workers, columns, see)
    print(f"{out / 'index.html'}: {sum(found.pairs.values()):,} pairs, {found.panels:,} of them panels")
    for reason, number in (found.left_out or {}).get("pairs", {}).items():
        print(f"  {number:,} more pairs are left out: {reason}")
    for unit, numbers in found.caption.items():
        print(f"  {unit + ' of a caption':28s} median {numbers.median:,}, mean {numbers.mean:,}")
    for limit, share in found.tokens.share_over.items() if found.tokens is not None else ():
        print(f"  {f'over {limit} tokens':28s} {share:.1%}")
    print(f"  {'types by words':28s} {_most(found.figure_types)}")
    if (seen := found.types_seen) is not None:
        same, both = seen.agreement()
        print(f"  {'types by pictures':28s} {_most(seen.by_picture())}")
        print(f"  {'both tell one type':28s} {both:,}, the same {same:,}")
        if seen.unreadable:
            print(f"  {'pictures that cannot be read':28s} {seen.unreadable:,}; the first: {seen.first_unreadable}")


def _most(types: Mapping[str, int], most: int = 4) -> str:
    """The most frequent types in one line."""
    found = [(name, n) for name, n in types.items() if n]
    rest = sum(n for _, n in found[most:])
    return ", ".join([f"{name} {n:,}" for name, n in found[:most]] + ([f"others {rest:,}"] if rest else []))


def _look(model: str) -> "Callable[[Iterable[CaptionedPicture], int], TypesSeen]":
    """Load a model, and let it look at all pictures of a source."""
    from biomedclip_jax.evaluation.figure_types import types_seen
    from biomedclip_jax.pretrained import from_pretrained
    from biomedclip_jax.support.terminal import progress_bar

    clip = from_pretrained(model)

    def see(pictures: "Iterable[CaptionedPicture]", count: int) -> "TypesSeen":
        with progress_bar(count, "picture") as bar:
            return types_seen(pictures, clip, model, bar.update)

    return see


def _add_columns(action: argparse.ArgumentParser) -> None:
    names = {
        "image": "image paths; of a table also a text with columns in it, 'train/{ID}.jpg'",
        "caption": "captions",
        "label": "labels, to take along",
    }
    for name, what in names.items():
        default = None if name == "label" else name
        shown = "" if default is None else f" (default: {default})"
        action.add_argument(f"--{name}-column", default=default, metavar="NAME", help=f"column or feature of {what}{shown}")


def _open(arguments: argparse.Namespace) -> Any:
    from biomedclip_jax.data.sources import open_pairs

    pairs = open_pairs(arguments.source, arguments.image_column, arguments.caption_column, arguments.label_column)
    if pairs.rejects:
        first = pairs.rejects[0]
        print(f"{len(pairs.rejects)} records cannot be used; the first: {first.image}: {first.reason}")
    return pairs
