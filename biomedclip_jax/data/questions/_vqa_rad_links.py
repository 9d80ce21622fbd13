"""Which questions of VQA-RAD were made from which.

The official file gives many questions a second wording, `question_frame`. The two files that most work uses (MEVF's)
add these as rows of their own to the training part, those of test questions as well: a row with phrase_type "frame"
is numbered (qid) one above the row it was made from, has its image and its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.data.questions._json import text_in

FRAME = "frame"
Wording = tuple[str, str]  # image, question


@dataclass(frozen=True)
class Frames:
    """The rows of the training part that are second wordings.

    leaking: of them those that were made from a test question, or are word for word such a one about its image; positions
    in the training part. unknown: those of which it is not known what they were made from. tested: by position in the
    test part, whether the question's own second wording is in the training part.
    """

    frames: frozenset[int]
    leaking: frozenset[int]
    unknown: frozenset[int]
    tested: tuple[bool, ...]


def wording(row: Mapping[str, Any], key: str = "question") -> Wording:
    """What tells one wording about one image from another."""
    return text_in(row, "image_name"), text_in(row, key).casefold()


def linked(train: list[dict[str, Any]], test: list[dict[str, Any]], official: Sequence[Mapping[str, Any]] = ()) -> Frames:
    """The second wordings in MEVF's two files. official: the rows of the official file, where it is there, too."""
    numbers = {number: row for row in (*train, *test) if (number := number_of(row)) is not None}
    tested = {number: row for row in test if (number := number_of(row)) is not None}
    frames = {i: row for i, row in enumerate(train) if text_in(row, "phrase_type") == FRAME}
    made_from = {i: _origin(row, numbers) for i, row in frames.items()}
    own = {i for i, number in made_from.items() if number in tested}
    known = {
        wording(row): wording(row, "question_frame") for row in official if is_test(row) and text_in(row, "question_frame")
    }
    from_tests = {wording(frames[i]) for i in own} | {known[each] for each in map(wording, test) if each in known}
    leaking = {i for i, row in frames.items() if wording(row) in from_tests}
    there = {wording(row) for row in frames.values()}
    with_own = {made_from[i] for i in own}
    flags = (number_of(row) in with_own or known.get(wording(row)) in there for row in test)
    by_text = {wording(row, "question_frame") for row in official}
    unknown = {i for i, row in frames.items() if made_from[i] is None and wording(row) not in by_text} - leaking
    return Frames(frozenset(frames), frozenset(leaking), frozenset(unknown), tuple(flags))


def is_test(row: Mapping[str, Any]) -> bool:
    """Whether a row of the official file is a test question."""
    return text_in(row, "phrase_type").startswith("test")


def number_of(row: Mapping[str, Any]) -> int | None:
    """The qid, which is a number, or one written as text."""
    try:
        return int(str(row.get("qid")).strip())
    except ValueError:
        return None


def _origin(row: Mapping[str, Any], numbers: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The number of the row that a second wording was made from: the one before, about the same image."""
    number = number_of(row)
    before = None if number is None else numbers.get(number - 1)
    if number is None or before is None or text_in(before, "image_name") != text_in(row, "image_name"):
        return None
    return number - 1 if text_in(before, "phrase_type") != FRAME else None
