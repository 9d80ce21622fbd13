"""What `biomedclip classify` prints or writes: a table to read, CSV, JSON or Parquet to work with."""

import csv
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file

if TYPE_CHECKING:
    from biomedclip_jax.pretrained import Pretrained

Ranked = Sequence[Sequence[tuple[str, float]]]  # for each image its labels with their probabilities, the best first

_OUT = (".csv", ".jsonl", ".parquet")


def ranked(labels: Sequence[str], probabilities: np.ndarray, top: int | None = None) -> Ranked:
    """The labels of each row of `probabilities` [images, labels], the best first; the best `top` of them."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
    return [[(labels[int(j)], float(row[j])) for j in own] for row, own in zip(probabilities, best, strict=True)]


def write_table(out: TextIO, images: Sequence[str], found: Ranked, format: str) -> None:
    """Write what `classify` found.

    format: "table", "csv" (image, label, probability) or "json" (a list, one object an image).
    """
    if format == "json":
        rows = [{"image": name, "probabilities": dict(own)} for name, own in zip(images, found, strict=True)]
        json.dump(rows, out, indent=2)
        out.write("\n")
    elif format == "csv":
        _write_csv(out, images, found)
    else:
        write_bars(out, images, found)


def write_bars(out: TextIO, titles: Sequence[str], found: Ranked) -> None:
    """Write below each title its names with their probabilities, as numbers and bars."""
    width = max(len(name) for own in found for name, _ in own)
    for title, own in zip(titles, found, strict=True):
        out.write(f"{title}\n")
        for name, p in own:
            out.write(f"  {name:{width}s}  {p:7.2%}  {'█' * round(30 * p)}\n")


def warn_of_answering(source: object, clip: "Pretrained") -> None:
    """Say on stderr that a model which has learned to answer questions may not compare images with texts any more."""
    if clip.config.answering is not None:
        print(
            f"{source}: has learned to answer questions (biomedclip answer); that changes or never trains what compares images "
            "with texts, so these numbers may say nothing",
            file=sys.stderr,
        )


def check_out(path: Path) -> None:
    """UserError for a name that says no kind of table, and for Parquet without the package that writes it."""
    if path.suffix not in _OUT:
        raise UserError(f"--out {path}: expected a name that ends in {', '.join(_OUT)}")
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; expected a file")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {path}: writing Parquet needs pyarrow: pip install 'biomedclip_jax[tfds]'")


def write_classified(path: Path, images: Sequence[str], found: Ranked) -> None:
    """Write what `classify` found into a file, whole or not at all: a row for each image and label."""
    rows = [
        {"image": image, "label": label, "probability": p} for image, own in zip(images, found, strict=True) for label, p in own
    ]

    def write(partial: Path) -> None:
        if path.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            columns = {name: [row[name] for row in rows] for name in ("image", "label", "probability")}
            parquet.write_table(pyarrow.table(columns), partial)
        elif path.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            partial.write_text("".join(lines), encoding="utf-8")
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                _write_csv(file, images, found)

    write_file(path, write)


def _write_csv(out: TextIO, images: Sequence[str], found: Ranked) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "label", "probability"])
    for image, own in zip(images, found, strict=True):
        writer.writerows([image, label, f"{p:.6f}"] for label, p in own)
