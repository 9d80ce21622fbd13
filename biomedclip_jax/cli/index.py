"""`biomedclip index`: images with all that is known of them, made ready for searching."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli._views import add_view_options, view_options
from biomedclip_jax.cli.arguments import add_verb, count, local_path

if TYPE_CHECKING:
    from biomedclip_jax.pretrained import Pretrained
    from biomedclip_jax.search.update import Changes

_SHOWN = 5  # images that cannot be read


def add_index(verbs: Any) -> None:
    """Add the verb to the command."""
    index = add_verb(
        verbs,
        "index",
        _index,
        "Make an index of your images for `biomedclip search`, or bring one up to date.",
        "biomedclip index runs/quickstart --data scans/ --out scans.index\n"
        "  biomedclip index runs/quickstart --data pairs.csv pmc:train --out archive",
    )
    index.description = (
        "Embeds the images of one or several sources and keeps the vectors with all that is known of them: captions, articles, "
        "licences, citations, and every further column, which searches can filter by. The same command again adds what is new, "
        "drops what has gone and embeds nothing twice; killed, it goes on, and the index that was there stays usable meanwhile."
    )
    index.add_argument("model", help="a model folder, a run folder, or hf-hub:org/name; searches need the same one")
    index.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="a folder of images; a table (.csv, .tsv, .jsonl, .parquet) with a column of image paths; tars ('shards/*.tar'); "
        "a build (FOLDER or FOLDER:train); Parquet with pictures; a folder or .npz of `biomedclip embed` with this model",
    )
    index.add_argument(
        "--out",
        type=_out,
        required=True,
        metavar="INDEX",
        help="the folder of the index; or http://HOST:6333/COLLECTION, on a Qdrant server (its key in QDRANT_API_KEY)",
    )
    index.add_argument("--adapter", metavar="DIR", help="what fine-tuned MODEL, merged into it")
    index.add_argument("--image-column", default="image", metavar="NAME", help="of tables and builds (default: %(default)s)")
    index.add_argument("--caption-column", default="caption", metavar="NAME", help="if there is one (default: %(default)s)")
    index.add_argument(
        "--approximate",
        action=argparse.BooleanOptionalAction,
        help="also make an approximate index, for more than a million images (default: as before; a new one has none)",
    )
    index.add_argument("--batch-size", type=count, default=32, metavar="N", help="images at once, a device (default: 32)")
    index.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is faster on accelerators")
    index.add_argument("--strict", action="store_true", help="exit code 2 if an image cannot be read; all others are indexed")
    add_view_options(index)


def _out(text: str) -> Path | str:
    """An argparse type."""
    return text if text.startswith(("http://", "https://")) else local_path(text)


def _index(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.cli.output import warn_of_answering
    from biomedclip_jax.errors import UserError
    from biomedclip_jax.pretrained import from_pretrained
    from biomedclip_jax.search.update import Wanted, update_index

    def load() -> "Pretrained":
        clip = from_pretrained(arguments.model, adapter=arguments.adapter, dtype=arguments.dtype, every_device=True)
        warn_of_answering(arguments.model, clip)
        return clip

    wanted = Wanted(
        arguments.model,
        tuple(arguments.data),
        arguments.adapter,
        arguments.dtype,
        arguments.image_column,
        arguments.caption_column,
        arguments.batch_size,
        arguments.approximate,
        view_options(arguments),
    )
    changes = update_index(arguments.out, wanted, load)
    print(describe(arguments.out, changes))
    if changes.rejects and arguments.strict:
        raise UserError(f"{len(changes.rejects):,} images cannot be read, and are left out")


def describe(out: Path | str, changes: "Changes") -> str:
    """What was done in one line on stdout; what could not be, on stderr: all of it where there is no file of it."""
    in_file = isinstance(out, Path)
    for each in changes.rejects[: _SHOWN if in_file else None]:
        print(f"left out: {each.image}: {each.reason}", file=sys.stderr)
    if changes.rejects:
        where = f", all of them in {out}/rejects.jsonl" if in_file else ""
        print(f"{len(changes.rejects):,} images left out{where}", file=sys.stderr)
    if changes.repeated:
        print(f"{changes.repeated:,} rows left out that say of an image what another row says", file=sys.stderr)
    if changes.renamed:
        print(f"{changes.renamed:,} images whose id another one has, too; theirs end in #2 and so on", file=sys.stderr)
    gone = f", {changes.gone:,} dropped" if changes.gone else ""
    return f"{out}: {changes.count:,} images, {changes.embedded:,} of them embedded now, {changes.kept:,} known already{gone}"
