"""`biomedclip data captions`: from labels to image-caption pairs."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, count, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.labelled.caption_table import LabelledRow
    from biomedclip_jax.data.labelled.captions import Sentence

# A data set, and the label that goes into the column `label`.
_SETS = {"chexpert": "five", "rsna": "target", "embed": "birads"}


def add_captions(actions: Any) -> None:
    """Add `captions` to the verbs of `biomedclip data`."""
    captions = add_verb(
        actions,
        "captions",
        _captions,
        "Captions made of labels, as a table of images, captions, labels and splits; of CheXpert, RSNA, EMBED or a table.",
        "biomedclip data captions chexpert data/chexpert --out chexpert.csv",
    )
    captions.add_argument("source", metavar="SOURCE", help=f"{', '.join(_SETS)}, or a table (.csv, .tsv, .jsonl, .parquet)")
    captions.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="of a data set: where its own files are")
    captions.add_argument(
        "--out", type=local_path, required=True, metavar="X.csv", help="gets the pairs; training: X.csv:train"
    )
    captions.add_argument("--style", metavar="NAME", help="of a caption; embed has default, simple, natural, structural")
    captions.add_argument("--label", metavar="NAME", help="embed: birads (the default) or density; of a table, a column")
    captions.add_argument(
        "--findings",
        choices=["worst", "first"],
        default="worst",
        help="of embed: which finding of a breast its images show; the first is CLEFT's rule (default: %(default)s)",
    )
    words = captions.add_mutually_exclusive_group()
    words.add_argument("--template", metavar="TEXT", help="of a table: the caption, such as 'a chest X-ray with {finding}'")
    words.add_argument(
        "--templates", metavar="WORDS", help=f"styles and labels: a TOML file, or those of {', '.join(_SETS)} for a table"
    )
    captions.add_argument("--image-column", default="image", metavar="NAME", help="of a table (default: %(default)s)")
    captions.add_argument(
        "--per-class", type=count, metavar="N", help="of the test split only N images of each label, drawn at random"
    )
    captions.add_argument("--seed", type=int, default=0, help="draws others (default: %(default)s)")


def _captions(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.data.labelled.caption_table import write_captions

    source, folder, out = arguments.source, arguments.folder, arguments.out
    if out.suffix != ".csv":
        raise UserError(f"--out {out}: expected a name that ends in .csv")
    known = source in _SETS
    if known and folder is None:
        raise UserError(f"{source}: which FOLDER are its files in? Say: biomedclip data captions {source} FOLDER --out {out}")
    if not known and folder is not None:
        raise UserError(f"{source}: no data set of this name, there are {', '.join(_SETS)}; a table needs no FOLDER ({folder})")
    if not known and arguments.template is None and arguments.templates is None:
        raise UserError(f"{source}: which words? Give --template 'a photo of {{column}}', or --templates WORDS")
    caption, label = _sentences(arguments, known)
    rows = _rows(arguments, known, [each for each in (caption, label) if each is not None])
    written = write_captions(out, rows, caption, label, arguments.per_class, arguments.seed)
    splits = ", ".join(f"{split} {number:,}" for split, number in written.splits.items() if split)
    print(f"{out}: {written.splits.total():,} pairs{splits and f' ({splits})'}")
    for reason, number in written.skipped.most_common():
        print(f"  left out, {reason}: {number:,}")


def _sentences(arguments: argparse.Namespace, known: bool) -> "tuple[Sentence, Sentence | None]":
    """The sentences of captions and, where there are labels, of the column `label`."""
    from biomedclip_jax.data.labelled.captions import one_sentence, packaged_captions, read_captions

    source = arguments.source
    label = arguments.label or _SETS.get(source)
    if arguments.template is None:
        words = arguments.templates or source
        found = packaged_captions(words) if words in _SETS else read_captions(Path(words))
        return found.style(arguments.style or "default"), found.label(label) if label is not None else None
    if arguments.style is not None:
        raise UserError(f"--style {arguments.style}: --template is the only style; leave one of them out")
    caption = one_sentence(arguments.template)
    if label is None:
        return caption, None
    return caption, packaged_captions(source).label(label) if known else one_sentence(f"{{{label}}}")


def _rows(arguments: argparse.Namespace, known: bool, sentences: "list[Sentence]") -> "Iterator[LabelledRow]":
    if not known:
        from biomedclip_jax.data.labelled.caption_table import rows_of_table

        return rows_of_table(Path(arguments.source), arguments.image_column, sentences)
    from biomedclip_jax.data.benchmarks.chexpert import chexpert_rows
    from biomedclip_jax.data.benchmarks.embed import embed_rows
    from biomedclip_jax.data.benchmarks.rsna import rsna_rows

    if arguments.source == "embed":
        return embed_rows(arguments.folder, arguments.findings)
    return {"chexpert": chexpert_rows, "rsna": rsna_rows}[arguments.source](arguments.folder)
