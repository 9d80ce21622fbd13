"""Rows of any source of questions, made one kind: what is put right is counted, what cannot be used is listed."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data.images.load import IMAGE_SUFFIXES
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.types import PARTS, Part, Question

YES_NO = frozenset(["yes", "no", "是", "不是", "否", "有", "没有"])
_CLOSED = {"closed": True, "closed-ended": True, "close": True, "close-ended": True, "yes/no": True}
_CLOSED |= {"open": False, "open-ended": False, "number": False, "other": False}  # the last two as VQA has them
_WHOLE = re.compile(r"-?\d+\.0+")  # a whole number, as pandas writes it where a cell of its column is empty
_HALF = re.compile("[\ud800-\udfff]")  # of a letter, as JSON can have it; no file can be written with it
_LOST = "\ufffd"  # stands where a letter could not be read when the file was made


class Gathered:
    """Questions by part, with what was found in them.

    has_types: whether the source says which questions are closed; else those answered by yes or no are taken for it.
    types_in_part: whether it says so in some places alone, which is of no use. unplaced: those of the rejects of the test
    part whose part nobody knows.
    """

    def __init__(self, has_types: bool, types_in_part: bool = False):
        self.questions: dict[Part, list[Question]] = {part: [] for part in PARTS}
        self.rejects: dict[Part, list[Reject]] = {part: [] for part in PARTS}
        self.unplaced: list[Reject] = []
        self._has_types = has_types
        self._types_in_part = types_in_part and not has_types
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
        whole = answer is not None and _WHOLE.fullmatch(answer) is not None
        if whole and answer is not None:
            answer = answer.partition(".")[0]
        if not image:
            reason = "image is not named"
        elif _HALF.search(image):
            reason = "image name holds half a letter"
        if reason is not None or question is None or answer is None or closed is None:
            self.rejects[part].append(Reject(str(id), image, reason or "cannot be used"))
            return None
        self._count(cells)
        self._found["an answer such as '1.0', read as '1'"] += whole
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
            f"{text}: {count:,} row{'s' * (count != 1)}" for text, count in sorted((self._found + self._corrected).items())
        ]
        for part in PARTS:
            reasons = Counter(each.reason for each in self.rejects[part])
            first = {each.reason: each.row for each in reversed(self.rejects[part])}
            lines += [f"left out of {part}: {reason}: {n:,} (such as {first[reason]})" for reason, n in reasons.items()]
        if self._types_in_part:
            lines.append("answer_type is in some rows or files alone, and is not read")
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
        return " ".join(_HALF.sub(_LOST, str(value)).split())

    def _closed(self, value: object, answer: str) -> tuple[bool | None, str | None]:
        if not self._has_types:
            return normalised(answer) in YES_NO, None
        text = str(value).strip().lower().replace("_", "-") if value is not None else ""
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
            "a letter was lost before the file was made (U+FFFD)": any(_LOST in text or _HALF.search(text) for text in written),
        }
        self._found.update(text for text, there in remarks.items() if there)


def _no_text(what: str, text: str | None) -> str | None:
    """Why a cell cannot be used, None where it can."""
    if text is None:
        return f"{what} is no text"
    return None if text else f"{what} is empty"


def image_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files, of those named, that are there in a folder, be it in upper or lower case or with another ending.

    A name that may mean several files has none.
    """
    named = [name for name in dict.fromkeys(names) if name]
    found = {name: folder / name for name in named if (folder / name).is_file()}
    if len(found) == len(named) or not folder.is_dir():
        return found
    others: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            others.setdefault(path.stem.casefold(), []).append(path)
    for name in named:
        own = others.get(Path(name).stem.casefold(), []) if Path(name).name == name else []
        alike = [path for path in own if path.name.casefold() == name.casefold()] or own
        if name not in found and len(alike) == 1:
            found[name] = alike[0]
    return found
