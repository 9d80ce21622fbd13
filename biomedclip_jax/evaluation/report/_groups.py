"""Which rows may share a table, what tells such groups apart in their titles, and rows with one name from each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from biomedclip_jax.evaluation.report.results import MULTI_LABEL, MULTI_LABEL_FINETUNE, MULTI_LABEL_PROBE, Result, digest

Kind = Literal["retrieval", "zero-shot", "multi-label", "few-labels", "base-to-novel", "vqa"]

_LEARNED = (MULTI_LABEL_PROBE, MULTI_LABEL_FINETUNE)  # findings


@dataclass(frozen=True)
class Group:
    """Rows of one table: of one task, on the same images. title: the data set, their number, and what else is needed."""

    rows: tuple[Result, ...]
    title: str

    @property
    def dataset(self) -> str:
        """What the data set is called."""
        return self.rows[0].dataset

    @property
    def n(self) -> int:
        """How many images were measured."""
        return self.rows[0].n


def groups(results: Sequence[Result], kind: Kind) -> list[Group]:
    """The rows of one kind, those together that may be compared, in the order in which they came."""
    by_data: dict[str, list[Result]] = {}
    for row in results:
        if kind_of(row) == kind:
            by_data.setdefault(same_data(row), []).append(row)
    found = [rows for own in by_data.values() for rows in _asked_alike(own)]
    titles = [_title(rows[0]) for rows in found]
    apart = _apart(titles, [rows[0] for rows in found], (_data, _words, _table))
    return [Group(tuple(rows), title) for rows, title in zip(found, apart, strict=True)]


def kind_of(row: Result) -> Kind | None:
    """The kind of table that a row stands in; None for one that fits no table."""
    if row.task in ("retrieval", "zero-shot", "vqa"):
        return row.task  # type: ignore[return-value]
    if row.task in (MULTI_LABEL, *_LEARNED):
        return "multi-label"
    if "budget" not in row.settings:
        return None
    if "novel_accuracy" in row.metrics:
        return "base-to-novel"
    known = "accuracy" in row.metrics and "labels" in row.settings and "accuracy" in row.details.get("zero_shot", {})
    return "few-labels" if known else None


def _title(row: Result) -> str:
    if row.task == "vqa":
        return f"{row.dataset}, split {row.split}, {row.n:,} test questions"
    return f"{row.dataset}, {row.n:,} images"


def same_data(row: Result) -> str:
    """The same for two rows of one task on the same images with the same labels or captions, learned from the same ones."""
    known = row.measured.data_fingerprint if row.measured is not None else ""
    about: list[Any] = [kind_of(row), row.dataset, row.n, known]
    if kind_of(row) == "multi-label":  # what is learned stands beside what is asked; a mean is over the same findings
        return digest([*about, row.settings.get("classes"), row.details.get("measured_findings")])
    if kind_of(row) == "vqa":  # the reach of the baselines' vocabulary stands beside the table
        policy = row.settings.get("vocabulary")
        about += [row.split, "train" if policy == "model" else policy]
    return digest([*about, row.settings.get("train_fingerprint"), row.settings.get("classes")])


def may_be_compared(row: Result, other: Result) -> bool:
    """Whether two rows on the same data were asked with the same sentences, or one of them with learned prompts."""
    return _is_learned(row) or _is_learned(other) or _sentences(row) == _sentences(other)


def names_apart(names: Sequence[str], rows: Sequence[Result]) -> list[str]:
    """The names, and for those that several rows have what tells these apart: the weights, else the row."""
    return _apart(names, rows, (_weights, _seeds, lambda row: f"row {row.id}"))


def _apart(names: Sequence[str], rows: Sequence[Result], marks: Sequence[Callable[[Result], str]]) -> list[str]:
    """The names, followed by the first of the marks that tell rows with the same name apart."""
    found = list(names)
    for mark in marks:
        values = [mark(row) for row in rows]
        different = {name: len({v for v, each in zip(values, found, strict=True) if each == name}) > 1 for name in found}
        found = [f"{name} ({value})" if different[name] else name for name, value in zip(found, values, strict=True)]
    return found


def _asked_alike(rows: Sequence[Result]) -> list[list[Result]]:
    """Rows on the same images, parted by the sentences they were asked with; learned prompts stand in each part."""
    by_words: dict[str, list[Result]] = {}
    learned = [row for row in rows if _is_learned(row)]
    for row in rows:
        if not _is_learned(row):
            by_words.setdefault(_sentences(row), []).append(row)
    return [own + learned for own in by_words.values()] or [learned]


def _is_learned(row: Result) -> bool:
    return row.settings.get("prompts_file") is not None or row.task in _LEARNED


def _sentences(row: Result) -> str:
    asked = [row.settings.get("prompts"), row.settings.get("aggregate")]
    negative = row.settings.get("negative_prompts")
    return digest(asked if negative is None else [*asked, negative])


def _data(row: Result) -> str:
    return f"data {row.measured.data_fingerprint[:8]}" if row.measured is not None else "data not recorded"


def _words(row: Result) -> str:
    return row.asked


def _table(row: Result) -> str:
    return f"table {digest([same_data(row), _sentences(row)])[:6]}"


def _weights(row: Result) -> str:
    return f"weights {row.measured.model_fingerprint[:8]}" if row.measured is not None else "weights not recorded"


def _seeds(row: Result) -> str:
    return f"seeds {' '.join(map(str, row.settings.get('seeds', ())))}"
