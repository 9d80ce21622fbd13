"""Questions of one's own: a table (CSV, TSV, JSON lines, Parquet) with an image, a question and an answer in each row."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedclip_jax.data._picture_files import holds_pictures
from biomedclip_jax.data._table_rows import absent, image_name, table_rows, text_of
from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.names import SPLITS, no_known_split
from biomedclip_jax.data.pairs import Reject, first_reject
from biomedclip_jax.data.questions._finish import OURS, finished
from biomedclip_jax.data.questions._gather import Gathered
from biomedclip_jax.data.questions._parquet import OPTIONAL, picture_rows
from biomedclip_jax.data.questions.types import PARTS, Part, QuestionSet
from biomedclip_jax.errors import UserError

OWN = "own"  # the split that the table's column, or two tables, say


@dataclass(frozen=True)
class QuestionColumns:
    """Names of the columns. `answer_type`, `question_type` and `split` are read under these names where they are there."""

    image: str = "image"
    question: str = "question"
    answer: str = "answer"


def read_question_table(
    name: str, where: Path, train: Path | None = None, split: str = OWN, columns: QuestionColumns | None = None
) -> QuestionSet:
    """Read a table of questions, whose column `split` says train, validation or test.

    train: another table to learn from; then `where` is for testing. Of a column `split` with several values in it only the
    rows count of what the table is given for (of `train` validation rows, too). split: "ours" divides all rows by image.
    Rows without an image, a question or an answer, and of no known split, are left out and listed. UserError for a
    missing column, and for a table that is not divided.
    """
    columns = columns or QuestionColumns()
    if split not in (OWN, OURS):
        raise UserError(f"{name}: no split {split!r}: a table has its own (column split, or --train), or {OURS}")
    tables: list[tuple[Path, Part | None]] = [(where, None)] if train is None else [(train, "train"), (where, "test")]
    images: dict[str, ImageSource] = {}
    listed: list[tuple[Path, Part | None, list[dict[str, Any]], list[Reject]]] = []
    for path, part in tables:
        damaged: list[Reject] = []
        listed.append((path, part, list(_rows(path, where.parent, columns, images, damaged)), damaged))
        if not listed[-1][2]:
            raise UserError(f"{path}: no row with an image, a question and an answer in it{first_reject(damaged)}")
    typed = ["answer_type" in row for _, _, rows, _ in listed for row in rows]
    gathered = Gathered(has_types=all(typed), types_in_part=any(typed))
    for path, part, rows, damaged in listed:
        if part is None and split != OURS and rows and not any("split" in row for row in rows):
            raise UserError(
                f"{path}: no column 'split' with train and test in it; add one, give --train TABLE, or say --split {OURS}"
            )
        gathered.rejects[part or "test"] += damaged
        gathered.unplaced += damaged if part is None and split != OURS else []
        whole = part is not None and len({_split_name(row) for row in rows}) == 1  # tells nothing that the option does not
        elsewhere: dict[Part, int] = {}
        for row in rows:
            own = "train" if split == OURS else part if whole else _part(gathered, row)
            if part is not None and own != part and own is not None and (part, own) != ("train", "validation"):
                elsewhere[own] = elsewhere.get(own, 0) + 1
                continue
            if own is not None and (reason := _missing(row, columns)):
                gathered.rejects[own].append(Reject(row["row"], row["image"], reason))
            elif own is not None:
                types = [str(row["question_type"])] if row.get("question_type") else []
                cells = {"question": row[columns.question], "answer": row[columns.answer]} | {
                    key: row[key] for key in ("answer_type",) if key in row
                }
                gathered.add(own, row["row"], row["image"], cells, types)
        for own, count in elsewhere.items():
            gathered.note(
                f"{path.name}: {count:,} rows of the split {own}, which is not what this table is given for: left out"
            )
    named = {each.image for part in PARTS for each in gathered.questions[part]}
    if missing := len(named - images.keys()):
        gathered.note(f"{missing:,} of {len(named):,} image files are not there, such as {min(named - images.keys())}")
    return finished(name, str(where), split, gathered, images)


def _missing(row: dict[str, Any], columns: QuestionColumns) -> str | None:
    """Why a question or answer is none although something is written: N/A, nan ...; "None" can be an answer."""
    for what, column in (("question", columns.question), ("answer", columns.answer)):
        written = row[column] if isinstance(row[column], str) else ""
        if written.strip() and written.strip() not in ("None", "NA") and not text_of(written):
            return absent(what, written)
    return None


def _split_name(row: dict[str, Any]) -> str:
    return str(row.get("split") or "").strip()


def _part(gathered: Gathered, row: dict[str, Any]) -> Part | None:
    text = _split_name(row)
    found: Part | None = next((part for part in PARTS if text.lower() in SPLITS[part]), None)
    if found is None:
        unknown = Reject(row["row"], row["image"], no_known_split(text, "test") or f"split {text!r}")
        gathered.rejects["test"].append(unknown)
        gathered.unplaced.append(unknown)
    return found


def _rows(
    path: Path, home: Path, columns: QuestionColumns, images: dict[str, ImageSource], damaged: list[Reject]
) -> Iterator[dict[str, Any]]:
    """The rows with `image`, its path from the folder `home`, and `row`, a number; `images` gets the files that are there."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a table (.csv, .tsv, .jsonl, .parquet) with image, question and answer")
    texts = (columns.question, columns.answer)
    if path.suffix.lower() == ".parquet" and holds_pictures(path, columns.image):
        yield from picture_rows([path], columns.image, texts, images)
        return
    for number, row in table_rows(path, [columns.image, *texts], [*OPTIONAL, "split"], damaged):
        name = image_name(path, row, columns.image) if row[columns.image] not in (None, "") else ""
        file = path.parent / name
        called = os.path.relpath(file, home) if name else ""
        if name and os.path.isfile(file):  # unlike Path.is_file, False for a name too long for the system
            images.setdefault(called, file)
        yield row | {"image": called, "row": f"{path.name}, row {number}"}
