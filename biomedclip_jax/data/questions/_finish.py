"""What every source has in common at the end: one name for each image, what the parts share, and what to say of both."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions._gather import Gathered
from biomedclip_jax.data.questions.types import PARTS, Part, Question, QuestionSet
from biomedclip_jax.errors import UserError

OURS = "ours"
_SHARES = {"train": 0.70, "validation": 0.85}  # up to where in [0, 1) the images of a part are; the rest is for testing


def finished(
    name: str,
    where: str,
    split: str,
    gathered: Gathered,
    images: Mapping[str, ImageSource],
    *,
    language: str = "en",
    caveats: Sequence[str] = (),
) -> QuestionSet:
    """The data set of what was gathered.

    split: "ours" divides all questions anew, by image: 70, 15 and 15 % in the order of a hash of the image's name, so that
    no image is in two parts. Images that are the same file under two names become one. UserError for a data set without a
    question to learn from, or without one to test.
    """
    same, notes = _same_files(images), gathered.notes()
    questions: dict[Part, list[Question]] = {
        part: [_renamed(each, same) for each in own] for part, own in gathered.questions.items()
    }
    rejects = list(gathered.rejects["test"])
    if same:
        notes.append(f"{len(same):,} image files are the same as another under another name, and count as one with it")
    if split == OURS:
        questions, rejects = _divided(questions, gathered.rejects, same)
        notes.append("divided by image, by a hash of its name: 70 % train, 15 % validation, 15 % test")
    needed: dict[Part, str] = {"train": "to learn from", "test": "to test"}
    for part, purpose in needed.items():
        if not questions[part]:
            raise UserError(f"{where}: no question {purpose} (split {split}{_first(gathered.rejects[part])})")
    found = QuestionSet(
        name=name,
        split=split,
        language=language,
        train=tuple(questions["train"]),
        validation=tuple(questions["validation"]),
        test=tuple(questions["test"]),
        images={image: source for image, source in images.items() if image not in same},
        rejects=tuple(rejects),
        caveats=tuple(caveats),
    )
    return dataclasses.replace(found, notes=(*notes, *shared(found)))


def shared(data: QuestionSet) -> list[str]:
    """What the test part has in common with the others: images, and whole questions; a line each."""
    lines = []
    tested = {each.image for each in data.test}
    for part in ("train", "validation"):
        own = {each.image for each in data.part(part)}
        if both := tested & own:
            lines.append(f"{len(both):,} of {len(tested):,} test images are in the {part} part, too")
        elif own:
            lines.append(f"none of {len(tested):,} test images is in the {part} part")
    learned = {(each.image, each.question.casefold()) for each in data.train}
    if twice := sum((each.image, each.question.casefold()) in learned for each in data.test):
        lines.append(f"{twice:,} test questions stand word for word, about the same image, in the training part")
    return lines


def _same_files(images: Mapping[str, ImageSource]) -> dict[str, str]:
    """For an image whose file is, byte for byte, one of another name: that name, which came first."""
    first: dict[bytes, str] = {}
    found = {}
    for name, source in images.items():
        if isinstance(source, Path):
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if (other := first.setdefault(digest, name)) != name:
                found[name] = other
    return found


def _renamed(question: Question, same: Mapping[str, str]) -> Question:
    return dataclasses.replace(question, image=same[question.image]) if question.image in same else question


def _divided(
    questions: Mapping[Part, Sequence[Question]], rejects: Mapping[Part, Sequence[Reject]], same: Mapping[str, str]
) -> tuple[dict[Part, list[Question]], list[Reject]]:
    """All questions divided by image, and those of the test part that cannot be used."""
    found: dict[Part, list[Question]] = {part: [] for part in PARTS}
    for each in (each for part in PARTS for each in questions[part]):
        found[_part_of(each.image)].append(each)
    left = [each for part in PARTS for each in rejects[part] if _part_of(same.get(each.image, each.image)) == "test"]
    return found, left


def _part_of(image: str) -> Part:
    position = int.from_bytes(hashlib.sha256(image.encode("utf-8", "surrogatepass")).digest()[:4], "big") / 2**32
    return "train" if position < _SHARES["train"] else "validation" if position < _SHARES["validation"] else "test"


def _first(rejects: Sequence[Reject]) -> str:
    return f"; {len(rejects):,} left out, the first: {rejects[0].row}: {rejects[0].reason}" if rejects else ""
