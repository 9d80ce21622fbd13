"""`biomedclip data overlap`: pictures of test data that are also in training data."""

import argparse
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, local_path
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.evaluation.overlap import Pictures
    from biomedclip_jax.evaluation.sources import Source


def add_overlap(actions: Any) -> None:
    """Add `overlap` to the verbs of `data`."""
    overlap = add_verb(
        actions,
        "overlap",
        _overlap,
        "Which pictures of test data are also in training data: the same file, or the same picture stored anew.",
        "biomedclip data overlap chexpert-5x200=/data/chexpert pmc:train --out overlap\n"
        "  biomedclip evaluate zero-shot biomedclip/ --data chexpert-5x200=/data/chexpert "
        "--without overlap/overlap.csv --out table",
    )
    overlap.add_argument(
        "test", metavar="TEST", help="as --data of `biomedclip evaluate`: BENCHMARK=FOLDER, or data of your own"
    )
    overlap.add_argument("training", metavar="TRAINING", help="a build, a table, tars, a folder of class folders ...")
    overlap.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="DIR",
        help="gets overlap.csv and overlap.png, both pictures side by side",
    )
    overlap.add_argument("--image-column", default="image", metavar="NAME", help="default: %(default)s")
    overlap.add_argument("--caption-column", default="caption", metavar="NAME", help="default: %(default)s")
    overlap.add_argument("--label-column", default="label", metavar="NAME", help="default: %(default)s")


def _overlap(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.evaluation.overlap import SHEET, TABLE, find_overlap, write_overlap
    from biomedclip_jax.evaluation.sources import Columns, parse_source

    columns = Columns(image=arguments.image_column, caption=arguments.caption_column, label=arguments.label_column)
    source = parse_source(arguments.test, columns=columns)
    test = _test_pictures(source)
    training = _training_pictures(parse_source(f"training={arguments.training}", train=arguments.training, columns=columns))
    found = find_overlap(test, training)
    write_overlap(arguments.out, found, test, training)
    same = sum(match.same_file for match in found.matches)
    print(
        f"{source.name}: {len(found.matches):,} of {len(test):,} test pictures are also among the {len(training):,} of "
        f"{arguments.training} ({same:,} as the same file, {len(found.matches) - same:,} stored anew)"
    )
    for count, side in ((found.unread_test, "test"), (found.unread_training, "training")):
        if count:
            print(f"  {count:,} {side} pictures cannot be read, and were not compared")
    print(f"{arguments.out}: {TABLE}{f', {SHEET}' if found.matches else ''}")


def _test_pictures(source: "Source") -> "Pictures":
    """The pictures that an evaluation measures: labelled ones, else those of pairs."""
    from biomedclip_jax.evaluation.overlap import Pictures

    if source.multi_label:
        findings = source.findings("test")
        return Pictures(findings.images, findings.names)
    try:
        labelled = source.labelled("test")
    except UserError as no_labels:
        return _of_pairs(source, no_labels)
    return Pictures(labelled.images, labelled.names)


def _training_pictures(source: "Source") -> "Pictures":
    """All pictures that are learned from: those of pairs, else labelled ones."""
    from biomedclip_jax.evaluation.overlap import Pictures

    try:
        return _of_pairs(source)
    except UserError as no_captions:
        try:
            labelled = source.labelled("train")
        except UserError as no_labels:
            raise UserError(f"{source.where}: neither captions ({no_captions}) nor labels ({no_labels})") from no_labels
    return Pictures(labelled.images, labelled.names)


def _of_pairs(source: "Source", no_labels: UserError | None = None) -> "Pictures":
    from biomedclip_jax.data.pairs import ImageOf
    from biomedclip_jax.evaluation.overlap import Pictures

    try:
        pairs = source.pairs()
    except UserError as no_captions:
        raise (no_labels or no_captions) from no_captions
    return Pictures([ImageOf(pairs, i) for i in range(len(pairs))], [pairs.name(i) for i in range(len(pairs))])
