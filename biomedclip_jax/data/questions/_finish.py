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
    if cased := _same_but_for_case(gathered, images):
        notes.append(
            f"image names that differ from another in case alone, and count as it: {len(cased):,} (such as {min(cased)})"
        )
        same |= {other: same.get(name, name) for other, name in cased.items()}
    questions: dict[Part, list[Question]] = {
        part: [_renamed(each, same) for each in own] for part, own in gathered.questions.items()
    }
    rejects = gathered.rejects
    if files := len(same) - len(cased):
        notes.append(f"{files:,} image files are the same as another under another name, and count as one with it")
    if split == OURS:
        questions, rejects = _divided(questions, gathered.rejects, same)
        notes.append("divided by image, by a hash of its name: 70 % train, 15 % validation, 15 % test")
    needed: dict[Part, str] = {"train": "to learn from", "test": "to test"}
    for part, purpose in needed.items():
        if not questions[part]:
            raise UserError(
                f"{where}: no question {purpose} ({_split(split, language)}{_first(gathered.rejects[part])}; "
                f"{_there(split, questions)})"
            )
    found = QuestionSet(
        name=name,
        split=split,
        language=language,
        train=tuple(questions["train"]),
        validation=tuple(questions["validation"]),
        test=tuple(questions["test"]),
        images={image: source for image, source in images.items() if image not in same},
        rejects=tuple(rejects["test"]),
        not_learned={part: (*rejects[part], *gathered.unplaced) for part in PARTS if part != "test"},
        caveats=tuple(caveats),
    )
    grave = [_stands(twice)] if (twice := _word_for_word(found)) * 2 > len(found.test) else []
    notes += [line for line in shared(found) if line not in grave]
    return dataclasses.replace(found, notes=tuple(notes), caveats=(*grave, *found.caveats))


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
    if twice := _word_for_word(data):
        lines.append(_stands(twice))
    if repeated := len(data.test) - len({(each.image, each.question.casefold(), each.answer) for each in data.test}):
        lines.append(
            f"{repeated:,} of {len(data.test):,} test questions stand there before, with image and answer; each counts"
        )
    return lines


def _word_for_word(data: QuestionSet) -> int:
    """How many test questions stand in the training part as they are, about the same image."""
    learned = {(each.image, each.question.casefold()) for each in data.train}
    return sum((each.image, each.question.casefold()) in learned for each in data.test)


def _stands(count: int) -> str:
    return f"{count:,} test questions stand word for word, about the same image, in the training part"


def _split(split: str, language: str) -> str:
    return f"split {split}{'' if language == 'en' else f', language {language}'}"


def _there(split: str, questions: Mapping[Part, Sequence[Question]]) -> str:
    """Which questions there are, where a part has none."""
    there = ", ".join(f"{len(own):,} {part}" for part, own in questions.items() if own) or "none"
    images = len({each.image for own in questions.values() for each in own})
    about = f" about {images:,} images, of which each goes to one part as a whole" if split == OURS and images else ""
    return f"there are: {there}{about}"


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


def _same_but_for_case(gathered: Gathered, images: Mapping[str, ImageSource]) -> dict[str, str]:
    """For an image name that is another in upper or lower case, of which not both have a file: that other name.

    Many disks do not tell such names apart. The one with a file counts, else the one that comes first.
    """
    first = {name.casefold(): name for name in reversed(tuple(images))}
    found = {}
    for name in dict.fromkeys(each.image for part in PARTS for each in gathered.questions[part]):
        if (other := first.setdefault(name.casefold(), name)) != name and name not in images:
            found[name] = other
    return found


def _renamed(question: Question, same: Mapping[str, str]) -> Question:
    return dataclasses.replace(question, image=same[question.image]) if question.image in same else question


def _divided(
    questions: Mapping[Part, Sequence[Question]], rejects: Mapping[Part, Sequence[Reject]], same: Mapping[str, str]
) -> tuple[dict[Part, list[Question]], dict[Part, list[Reject]]]:
    """All questions divided by image, and so are those that cannot be used."""
    found: dict[Part, list[Question]] = {part: [] for part in PARTS}
    left: dict[Part, list[Reject]] = {part: [] for part in PARTS}
    for each in (each for part in PARTS for each in questions[part]):
        found[_part_of(each.image)].append(each)
    for unused in (unused for part in PARTS for unused in rejects[part]):
        left[_part_of(same.get(unused.image, unused.image))].append(unused)
    return found, left


def _part_of(image: str) -> Part:
    position = int.from_bytes(hashlib.sha256(image.encode("utf-8", "surrogatepass")).digest()[:4], "big") / 2**32
    return "train" if position < _SHARES["train"] else "validation" if position < _SHARES["validation"] else "test"


def _first(rejects: Sequence[Reject]) -> str:
    return f"; {len(rejects):,} left out, the first: {rejects[0].row}: {rejects[0].reason}" if rejects else ""
