"""Image-caption pairs from a table: CSV, TSV or JSON lines, with paths relative to the file."""

import csv
import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.errors import UserError


@dataclass(frozen=True)
class Pairs:
    """n images and their captions, in the order of the file; labels where the table has them."""

    images: list[Path]
    captions: list[str]
    labels: list[str] | None
    rejects: list[dict[str, str]]  # rows that were left out, each with its reason

    def __len__(self) -> int:
        return len(self.images)

    def without(self, positions: Container[int]) -> "Pairs":
        """The same pairs but for those at these positions."""
        kept = [i for i in range(len(self)) if i not in positions]
        labels = None if self.labels is None else [self.labels[i] for i in kept]
        return Pairs([self.images[i] for i in kept], [self.captions[i] for i in kept], labels, self.rejects)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        raise UserError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from error
                    if not isinstance(row, dict):
                        raise UserError(f"{path}, line {number}: expected one object a line, found {type(row).__name__}")
                    yield row
    elif path.suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    else:
        raise UserError(f"{path}: unknown kind of table; expected a name that ends in .csv, .tsv or .jsonl")


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def read_pairs(path: Path, image_column: str, caption_column: str, label_column: str | None = None) -> Pairs:
    """Read a table. Rows without a caption, a label or an image file that is there are left out and listed in `rejects`.

    Raises UserError for a missing file, a missing column (naming those that are there), an encoding other than UTF-8, and
    a table of which nothing is left.
    """
    columns = [image_column, caption_column, *([label_column] if label_column else [])]
    pairs = Pairs([], [], [] if label_column else None, [])
    try:
        for number, row in enumerate(_rows(path), 1):
            for column in columns:
                if column not in row:
                    raise UserError(f"{path}: no column {column!r}; there are {', '.join(map(repr, row))}")
            image, caption = path.parent / str(row[image_column]), _text(row[caption_column])
            label = _text(row[label_column]) if label_column else ""
            if not caption:
                reason = "caption is empty"
            elif not os.path.isfile(image):  # unlike Path.is_file, False for a name too long for the system
                reason = "image file is not there"
            else:
                reason = "label is empty" if label_column and not label else None
            if reason:
                pairs.rejects.append({"row": str(number), "image": str(image), "reason": reason})
                continue
            pairs.images.append(image)
            pairs.captions.append(caption)
            if pairs.labels is not None:
                pairs.labels.append(label)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a table of image paths and captions") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save the table as UTF-8") from error
    except (OSError, csv.Error) as error:  # csv.Error: a quote that is never closed
        raise UserError(f"{path}: not readable as a table ({error})") from error
    if not pairs.images:
        first = f"; the first: {pairs.rejects[0]['image']}, {pairs.rejects[0]['reason']}" if pairs.rejects else ""
        raise UserError(f"{path}: no usable pair in {len(pairs.rejects)} rows{first}")
    return pairs
