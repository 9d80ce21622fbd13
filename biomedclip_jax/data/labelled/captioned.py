"""Labelled images with captions made of their labels, as a table: image, caption, label, split.

Of CheXpert, RSNA and EMBED from their own files, and of any table with a column of images. Training reads a split of the table
as `pairs.csv:train`, evaluation reads its column `split`.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.benchmarks.chexpert import (
    FIVE,
    inside_release,
    patient_of,
    published_list,
    read_chexpert,
    release_root,
)
from biomedclip_jax.data.benchmarks.embed import SPLITS, drawn, mammograms
from biomedclip_jax.data.benchmarks.files import existing
from biomedclip_jax.data.benchmarks.rsna import read_rsna
from biomedclip_jax.data.labelled.captions import Empty, Sentence, packaged_captions
from biomedclip_jax.data.tables import SPLIT_COLUMN, Row, image_file, table_rows, text_of
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

COLUMNS = ("image", "caption", "label", SPLIT_COLUMN)
_HELD_OUT = 0.05  # CLEFT's share for validation; its lists were not published


@dataclass(frozen=True)
class LabelledRow:
    """An image, what is known of it by column, its split ("" where there are none). skip: why it is not used, or nothing."""

    image: Path
    row: Row
    split: str
    skip: str = ""


@dataclass(frozen=True)
class Written:
    """How many rows each split got, and how many were left out for which reason."""

    splits: Counter[str]
    skipped: Counter[str]


def write_captions(
    out: Path,
    rows: Iterable[LabelledRow],
    caption: Sentence,
    label: Sentence | None,
    per_class: int | None = None,
    seed: int = 0,
) -> Written:
    """A CSV of `COLUMNS`. Paths are relative to it where the image is in its folder or below, else absolute.

    per_class: of the test split only so many rows of each label, drawn with `seed`; of a label with fewer, all.
    Raises UserError if nothing is left; then there is no file.
    """
    kept: list[tuple[str, str, str, str]] = []
    skipped: Counter[str] = Counter()
    home = out.parent.absolute()
    for each in rows:
        reason = each.skip
        if not reason:
            try:
                texts = caption.fill(each.row), label.fill(each.row) if label else ""
            except Empty as error:
                reason = f"{error} is empty, or a code without words"
            else:
                if not texts[0]:
                    reason = "caption is empty"
                elif not os.path.isfile(each.image):
                    reason = "image file is not there"
                else:
                    image = each.image.absolute()
                    shown = image.relative_to(home) if image.is_relative_to(home) else image
                    kept.append((str(shown), *texts, each.split))
        if reason:
            skipped[reason] += 1
    if per_class is not None:
        tests = [row for row in kept if row[3] == "test" and row[2]]
        chosen = {id(tests[i]) for i in drawn([row[2] for row in tests], per_class, seed)}
        fewer = [row for row in kept if row[3] != "test" or id(row) in chosen]
        if len(kept) > len(fewer):
            skipped["of the test split, not among those drawn"] += len(kept) - len(fewer)
        kept = fewer
    if not kept:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in skipped.most_common())
        raise UserError(f"{out}: no usable row{f' ({reasons})' if reasons else ''}")

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(kept)

    write_file(out, write)
    return Written(Counter(row[3] for row in kept), skipped)


def chexpert_rows(where: Path, per_class: int = 200) -> Iterator[LabelledRow]:
    """The frontal images of train.csv, 95 % of the patients for training and 5 % for validation, drawn with a fixed seed.

    test: those of CheXpert 5x200, as `read_chexpert` has them; the other images of their patients are left out.
    A column "five" says which of the five findings an image has, if it is the only one of them.
    """
    root = release_root(where)
    columns = ("Path", "AP/PA", *packaged_captions("chexpert").style("default").columns)
    test = read_chexpert("chexpert", where, "test", FIVE, "ignore", per_class)
    chosen = {Path(str(image)): FIVE[label] for image, label in zip(test.images, test.labels, strict=True)}
    tested = {patient_of(str(image.relative_to(root))) for image in chosen}
    table = existing(root, "train.csv")
    patients = sorted({patient_of(text_of(row["Path"])) for row in table_rows(table, ["Path"])} - tested)
    order = np.random.default_rng(0).permutation(len(patients))
    held_out = {patients[i] for i in order[: round(_HELD_OUT * len(patients))]}
    seen: set[Path] = set()
    listed = published_list(where, root)
    for source in (table, *([listed] if listed is not None else [])):  # published lists may hold images of another table
        for row in table_rows(source, columns):
            path = text_of(row["Path"])
            image = root / inside_release(path)
            patient = patient_of(path)
            known = "test" if image in chosen else "validation" if patient in held_out else "train"
            if image in seen or (source == listed and image not in chosen):
                continue
            seen.add(image)
            skip = "" if text_of(row["AP/PA"]) in ("AP", "PA") else "not frontal (AP/PA)"
            if not skip and known != "test" and patient in tested:
                skip = "of a patient of the test set"
            present = [finding for finding in FIVE if text_of(row[finding]) in ("1", "1.0")]
            five = chosen.get(image) or (present[0] if len(present) == 1 else "")
            yield LabelledRow(image, {**row, "five": five.lower()}, known, skip)


def rsna_rows(where: Path) -> Iterator[LabelledRow]:
    """All patients, divided as the benchmark "rsna" does."""
    for split in ("train", "validation", "test"):
        found = read_rsna("rsna", where, split, ("0", "1"), "all", "patients")
        for image, target in zip(found.images, found.labels, strict=True):
            yield LabelledRow(Path(str(image)), {"Target": str(target)}, split)
        for reject in found.rejects:
            yield LabelledRow(Path(reject["image"]), {}, split, reject["reason"])


def embed_rows(where: Path) -> Iterator[LabelledRow]:
    """The 2D images, divided as `read_embed` does."""
    for split in SPLITS:
        for each in mammograms(where, split):
            yield LabelledRow(each.image, each.row, split, each.skip)


def rows_of_table(path: Path, image_column: str, sentences: Iterable[Sentence]) -> Iterator[LabelledRow]:
    """Those of any table; its column "split", if there is one, is taken along. UserError as of `table_rows`."""
    columns = dict.fromkeys([image_column, *(column for sentence in sentences for column in sentence.columns)])
    for row in table_rows(path, list(columns), [SPLIT_COLUMN]):
        yield LabelledRow(image_file(path, row, image_column), row, text_of(row.get(SPLIT_COLUMN)))
