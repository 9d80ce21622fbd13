"""Options of `biomedclip evaluate` for images that may have several findings, and what of it the data are read with."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.labelled.multi_label_table import Declared
    from biomedclip_jax.evaluation.sources import Columns

_IMPLY = ("separator", "label_columns", "no_finding")
_ONLY = ("uncertain", "empty")
_METHOD = "logistic-regression"


def add_finding_options(verb: argparse.ArgumentParser) -> None:
    """Add the options; left out, each image has one class."""
    group = verb.add_argument_group(
        "images with several findings",
        "For zero-shot, probe and finetune, of tables and Parquet with pictures, a row for each image: AUROC and average "
        "precision of each finding, sensitivity and specificity. zero-shot asks with a finding and 'no' and the finding; "
        "probe fits a logistic regression for each finding; finetune trains the image tower by binary cross-entropy. The "
        "benchmarks nih-chestxray14, chexpert-14 and chestmnist are such data by themselves.",
    )
    add_declaration(group)
    group.add_argument(
        "--uncertain", choices=["ignore", "positive", "negative"], help="what -1 counts as (default: ignore, in no number)"
    )
    group.add_argument(
        "--empty",
        choices=["ignore", "negative"],
        help="what an empty cell counts as (default: ignore; of chexpert-14 negative)",
    )
    group.add_argument(
        "--thresholds",
        nargs="+",
        type=_probability,
        metavar="P",
        help="probabilities from which on a finding, or the second of two classes, counts as there, for sensitivity and "
        "specificity (default: 0.5)",
    )


def add_declaration(group: Any) -> None:
    """Add the options that say how a table names the findings of an image."""
    group.add_argument("--multi-label", action="store_true", help="an image may have several of the names in --label-column")
    group.add_argument("--separator", metavar="SIGN", help="between these names (default: |); lists need none")
    group.add_argument(
        "--label-columns",
        nargs="+",
        metavar="A,B,...",
        help="instead, a column for each finding: 1 there, 0 not there, -1 uncertain, or empty",
    )
    group.add_argument(
        "--no-finding", metavar="NAME", help="the name, or column, that says that there is none (default: No Finding)"
    )


def declared_of(arguments: argparse.Namespace, label_column: str) -> "Declared | None":
    """How the options say that images have several findings, if they do. UserError where they contradict each other."""
    from biomedclip_jax.data.labelled.multi_label_table import NO_FINDING, SEPARATOR, Declared

    if arguments.multi_label or any(getattr(arguments, name) is not None for name in _IMPLY):
        names = [name.strip() for text in arguments.label_columns or () for name in text.split(",")]
        if arguments.label_columns is not None:
            if arguments.separator is not None:
                raise UserError("--separator and --label-columns: give one of the two; columns of 0 and 1 need no separator")
            if not all(names) or len(set(names)) < len(names):
                raise UserError(
                    f"--label-columns {' '.join(arguments.label_columns)}: expected different names, as in Edema,Mass"
                )
        separator = SEPARATOR if arguments.separator is None else arguments.separator
        if not separator:
            raise UserError("--separator: expected a sign, such as ';'")
        declared = arguments.no_finding or NO_FINDING
        return Declared(label_column, separator, tuple(names), no_finding=declared)
    return None


def columns_of(arguments: argparse.Namespace) -> "Columns":
    """The columns of tables as the options name them. UserError for options that contradict each other."""
    from biomedclip_jax.evaluation.sources import Columns

    return Columns(
        image=arguments.image_column,
        caption=arguments.caption_column,
        label=arguments.label_column,
        group=arguments.group,
        findings=declared_of(arguments, arguments.label_column),
        uncertain=arguments.uncertain,
        empty=arguments.empty,
    )


def check_finding_options(arguments: argparse.Namespace, sources: Sequence[Any]) -> None:
    """UserError for options that none of the sources, or a method that images with several findings cannot use."""
    if not any(source.multi_label for source in sources):
        if sources and any(source.columns.findings is not None for source in sources):
            raise UserError(f"--multi-label: {sources[0].name} has one class an image; leave it out")
        for name in _ONLY:
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name}: is of images with several findings; say --multi-label, or leave it out")
    elif arguments.methods is not None and arguments.methods != [_METHOD]:
        raise UserError(
            f"--methods {' '.join(arguments.methods)}: images with several findings are learned by {_METHOD}; leave it out, or "
            "evaluate them apart"
        )
    elif arguments.selection != "last" and arguments.task in ("finetune", "all"):
        raise UserError(
            f"--selection {arguments.selection}: of several findings the epoch is chosen on training images that are not "
            "trained on; leave it out"
        )


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0 and below 1")
    return value
