"""Rows of any source of questions, made one kind: what is put right is counted, what cannot be used is listed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.types import PARTS, Part, Question

YES_NO = frozenset(["yes", "no", "是", "不是", "否", "有", "没有"])
_CLOSED = {"closed": True, "closed-ended": True, "yes/no": True, "open": False, "open-ended": False}
_LOST = "\ufffd"  # stands where a letter could not be read when the file was made


class Gathered:
    """Questions by part, with what was found in them.

    has_types: whether the source says which questions are closed; else those answered by yes or no are taken for it.
    """

    def __init__(self, has_types: bool):
        self.questions: dict[Part, list[Question]] = {part: [] for part in PARTS}
        self.rejects: dict[Part, list[Reject]] = {part: [] for part in PARTS}
        self._has_types = has_types
        self._found: Counter[str] = Counter()
        self._corrected: Counter[str] = Counter()
        self._of_reading: list[str] = []

    def add(
        self, part: Part, id: object, image: str, cells: Mapping[str, Any], types: Sequence[str] = (), language: str = "en"
    ) -> Question | None:
        """Take a row with the cells `question`, `answer` and `answer_type`; None where it cannot be used."""
        question, answer = (self._text(cells.get(name)) for name in ("question", "answer"))
        closed = None
        if (reason := _no_text("question", question) or _no_text("answer", answer)) is None:
            assert question is not None and answer is not None
            closed, reason = self._closed(cells.get("answer_type"), answer)
        if not image:
            reason = "image is not named"
        if reason is not None or question is None or answer is None or closed is None:
            self.rejects[part].append(Reject(str(id), image, reason or "cannot be used"))
            return None
        self._count(cells)
        found = Question(
            id=str(id), image=image, question=question, answer=answer, closed=closed, types=tuple(types), language=language
        )
        self.questions[part].append(found)
        return found

    def note(self, text: str) -> None:
        """Add a line to the notes."""
        self._of_reading.append(text)

    def correct(self, what: str, written: str, meant: str) -> None:
        """Note that something is written otherwise than is meant."""
        self._corrected[f"{what} {written!r}, read as {meant!r}"] += 1

    def notes(self) -> list[str]:
        """What was found, a line each."""
        lines = [
            f"{text}: {count:,} row{'s' * (count != 1)}" for text, count in sorted((self._found | self._corrected).items())
        ]
        for part in PARTS:
            reasons = Counter(each.reason for each in self.rejects[part])
            first = {each.reason: each.row for each in reversed(self.rejects[part])}
            lines += [f"left out of {part}: {reason}: {n:,} (such as {first[reason]})" for reason, n in reasons.items()]
        if not self._has_types:
            lines.append("the data do not say which questions are closed: those answered by yes or no are taken for closed")
        return [*self._of_reading, *lines]

    def _text(self, value: object) -> str | None:
        """A cell as text with single blanks; "" for nothing, None for what is no text."""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value is None or value != value:  # NaN
            return ""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        return " ".join(str(value).split())

    def _closed(self, value: object, answer: str) -> tuple[bool | None, str | None]:
        if not self._has_types:
            return normalised(answer) in YES_NO, None
        text = str(value).strip().lower() if value is not None else ""
        if text not in _CLOSED:
            return None, f"answer type {value!r} is neither OPEN nor CLOSED" if text else "answer type is empty"
        return _CLOSED[text], None

    def _count(self, cells: Mapping[str, Any]) -> None:
        """Count what was put right in a row that is kept."""
        texts = [cells.get(name) for name in ("question", "answer")]
        written = [text for text in texts if isinstance(text, str)]
        kind = cells.get("answer_type")
        remarks = {
            "an answer that is a number, read as text": not isinstance(texts[1], str | bytes),
            "tabs, read as blanks": any("\t" in text for text in written),
            "blanks round an answer, left off": isinstance(texts[1], str) and texts[1] != texts[1].strip(),
            "blanks round an answer type, left off": isinstance(kind, str) and kind != kind.strip(),
            "a letter was lost before the file was made (U+FFFD)": any(_LOST in text for text in written),
        }
        self._found.update(text for text, there in remarks.items() if there)


def _no_text(what: str, text: str | None) -> str | None:
    """Why a cell cannot be used, None where it can."""
    if text is None:
        return f"{what} is no text"
    return None if text else f"{what} is empty"


def image_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files, of those named, that are there in a folder."""
    return {name: folder / name for name in dict.fromkeys(names) if (folder / name).is_file()}
