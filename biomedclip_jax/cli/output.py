"""What `biomedclip classify` prints: a table to read, CSV or JSON to work with; the best label first."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np


def write_table(out: TextIO, images: Sequence[Path], labels: Sequence[str], probabilities: np.ndarray, format: str) -> None:
    """Write the probabilities [images, labels] of `classify`, the best label first.

    format: "table", "csv" (image, label, probability) or "json" (a list, one object an image).
    """
    ranked = [[(labels[j], float(row[j])) for j in np.argsort(-row, kind="stable")] for row in probabilities]
    if format == "json":
        rows = [{"image": str(path), "probabilities": dict(found)} for path, found in zip(images, ranked, strict=True)]
        json.dump(rows, out, indent=2)
        out.write("\n")
    elif format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["image", "label", "probability"])
        for path, found in zip(images, ranked, strict=True):
            writer.writerows([str(path), label, f"{p:.6f}"] for label, p in found)
    else:
        width = max(map(len, labels))
        for path, found in zip(images, ranked, strict=True):
            out.write(f"{path}\n")
            for label, p in found:
                out.write(f"  {label:{width}s}  {p:7.2%}  {'█' * round(30 * p)}\n")
