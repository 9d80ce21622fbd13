"""`biomedclip answer`: questions about an image, and what a model answers."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.cli.arguments import add_verb, count
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.cli.output import Ranked


def add_answer(verbs: Any) -> None:
    """Add the verb to the command."""
    answer = add_verb(
        verbs,
        "answer",
        _answer,
        "Answer questions about an image, by a model that was trained to.",
        'biomedclip answer runs/vqa_quickstart scan.dcm "what modality is this?" "is this a ct?"',
    )
    answer.description = (
        "Probabilities of the answers that the model has learned. Each is judged for itself, so they need not sum to 1. "
        "For research, not for clinical use."
    )
    answer.add_argument("model", help="a run folder or model folder that answers questions (configs/vqa_quickstart.py)")
    answer.add_argument("image", type=Path, metavar="IMAGE", help="a file: JPEG, PNG, TIFF, WebP, GIF, DICOM")
    answer.add_argument("questions", nargs="+", metavar="QUESTION", help="a sentence in quotes")
    answer.add_argument("--top", type=count, default=5, metavar="K", help="answers to each question (default: %(default)s)")
    answer.add_argument("--format", choices=["table", "csv", "json"], default="table", help="default: %(default)s")


def _answer(arguments: argparse.Namespace) -> None:
    from biomedclip_jax.pretrained import from_pretrained

    image: Path = arguments.image
    questions: list[str] = arguments.questions
    if not image.is_file():
        raise UserError(f"{image}: no such file; expected an image")
    if empty := [each for each in questions if not each.strip()]:
        raise UserError(f"QUESTION {empty[0]!r}: expected a sentence")
    clip = from_pretrained(arguments.model)
    found = clip.answer([image] * len(questions), questions, arguments.top)
    for line in clip.unread_questions(questions):
        print(line, file=sys.stderr)
    _write(image, questions, found, arguments.format)


def _write(image: Path, questions: Sequence[str], found: "Ranked", format: str) -> None:
    from biomedclip_jax.cli.output import write_bars

    if format == "json":
        rows = [
            {"image": str(image), "question": question, "answers": [{"answer": text, "probability": p} for text, p in own]}
            for question, own in zip(questions, found, strict=True)
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "question", "answer", "probability"])
        for question, own in zip(questions, found, strict=True):
            writer.writerows([str(image), question, text, f"{p:.6f}"] for text, p in own)
    else:
        write_bars(sys.stdout, [f"{image}: {question}" for question in questions], found)
