"""Results: what one row of an evaluation is, what tells it from others, and `results.json`, the list of all rows."""

import dataclasses
import hashlib
import importlib.metadata
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file, write_text

RESULTS = "results.json"
OUTCOMES = "outcomes"
MULTI_LABEL, MULTI_LABEL_PROBE, MULTI_LABEL_FINETUNE = "multi-label", "multi-label-probe", "multi-label-finetune"  # tasks
GROUPS_OF = "_groups"  # ends the name of an array of outcomes: the groups of a direction's queries
COSINE = "cosine"  # to the sentences that say that a finding is there, alone
_REASONS = 3  # for what was left out, that a line says
# of the settings, what was asked for: another answer to one of these is another evaluation
_ASKED = (
    *("classes", "prompts", "aggregate", "prompts_method", "prompts_fingerprint"),
    *("negative_prompts", "score", "begun_from"),
    *("vocabulary", "language"),
    *("search", "budget", "seeds", "selection", "method", "train_fingerprint"),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the numbers of a row were measured on, by what, and when.

    model, adapter: as the command named them; adapter is "" where there is none. model_fingerprint: of all their files.
    data: as the command named them. data_fingerprint: of the images that were measured, in their order, with their labels
    or captions. total: rows of the data, measured or left out.
    command: the command line, "" where there was none. version: of biomedclip_jax. date: ISO 8601, with the time zone.
    """

    model: str
    adapter: str
    model_fingerprint: str
    data: str
    data_fingerprint: str
    total: int
    version: str = field(default="", compare=False)
    date: str = field(default="", compare=False)
    command: str = field(default="", compare=False)

    def now(self) -> "Measured":
        """The same, by the version that runs and at this moment."""
        return dataclasses.replace(self, version=_version(), date=datetime.now().astimezone().isoformat(timespec="seconds"))


def _version() -> str:
    try:
        return importlib.metadata.version("biomedclip_jax")
    except importlib.metadata.PackageNotFoundError:  # run from its sources, not installed
        return ""


@dataclass(frozen=True)
class Result:
    """What one model reached in one task on one data set.

    task: "retrieval", "zero-shot", "probe", "finetune", ... n: images (or pairs) measured.
    metrics: fractions, under names such as accuracy, balanced_accuracy, macro_f1, auroc, image_to_text_recall_at_1; of
        what is no fraction (median_rank) the number itself.
    intervals: of some metrics, the 95 % interval.
    settings: what else the numbers depend on: prompts, aggregation, shots, seed, selection.
    details: what does not fit in a table, such as the recall of each class, or why a metric has no interval.
    pictures: {file: title} of PNG files; the file is relative to the folder of results.json.
    measured: None in rows of versions before 2026-12, which did not record it.
    split: how the data are divided, of data that come divided in several ways, such as VQA-RAD; else "".
    outcomes: what happened to each image or query, from which rows are compared; kept in a file of its own. Zero-shot:
        `labels`, int [n], and `logits`, float64 [n, C]. Several findings: `answers`, int8 [n, F], and `scores`, float64
        [n, F]. Retrieval: for each direction the ranks, int [queries]. Questions: the arrays of `Outcome`.
        Where intervals are over groups, also these, int.
    """

    model: str
    task: str
    dataset: str
    n: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    measured: Measured | None = None
    split: str = ""
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def id(self) -> str:
        """12 hexadecimal digits of what was evaluated: model, weights, task, data, n, prompts, aggregation, search ...

        The same evaluation has the same ones whenever it is made, whatever its numbers are.
        """
        known = self.measured
        about = [known.model_fingerprint, known.data_fingerprint] if known is not None else [self.settings.get("prompts_file")]
        asked = {name: self.settings[name] for name in _ASKED if name in self.settings}
        asked |= {"split": self.split} if self.split else {}
        return digest([self.model, self.task, self.dataset, self.n, about, asked])

    @property
    def who(self) -> str:
        """What tables call it: the model, and how it was asked where there are several ways."""
        if self.task == MULTI_LABEL and self.settings.get("score") == COSINE:
            return f"{self.model}, cosine alone"
        if self.task in (MULTI_LABEL_PROBE, MULTI_LABEL_FINETUNE):
            return f"{self.model}, {self.settings.get('method')}, {self.settings.get('budget')}"
        return asked_with(self.model, self.settings.get("prompts_method"), self.settings.get("prompts_file"))

    @property
    def left_out(self) -> str:
        """How much of the data is in no number, and why, and what else has to be said of them; "" if there is nothing.

        "left out: 12 (image file is not there 10, caption is empty 2)"
        """
        reasons: Counter[str] = Counter()
        for each in self.details.get("left_out", ()):
            reasons[each["reason"]] += each.get("count", 1)
        cut_off = self.details.get("cut_off")
        caveats = [*self.details.get("caveats", ()), *([cut_off] if cut_off else [])]
        if not reasons:
            return "; ".join(caveats)
        shown = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(_REASONS))
        others = f", {len(reasons) - _REASONS} other reasons" if len(reasons) > _REASONS else ""
        return "; ".join([f"left out: {reasons.total():,} ({shown}{others})", *caveats])

    @property
    def asked(self) -> str:
        """With what words the classes were described: '"a photo of brain" (2 sentences a class, mean)'; "" for no classes."""
        prompts = self.settings.get("prompts")
        if not isinstance(prompts, list) or not prompts or not prompts[0]:
            return "" if prompts is None else f"{self.settings.get('prompts_method')} prompts"
        counts = sorted({len(own) for own in prompts})
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        how = f", {self.settings['aggregate']}" if "aggregate" in self.settings else ""
        against = self.settings.get("negative_prompts") if self.settings.get("score") != COSINE else None
        absent = f' against "{against[0][0]}"' if against else ""
        return f'"{prompts[0][0]}"{absent} ({many} sentence{"" if counts[-1] == 1 else "s"} a class{how})'

    def row(self) -> dict[str, Any]:
        """The object of results.json: metrics stand beside model, task, dataset and n."""
        extra = {name: getattr(self, name) for name in ("intervals", "settings", "details", "pictures")}
        known: dict[str, Any] = {"id": self.id, "model": self.model, "task": self.task, "dataset": self.dataset, "n": self.n}
        if self.split:
            known["split"] = self.split
        if self.measured is not None:
            extra["measured"] = dataclasses.asdict(self.measured)
        return known | self.metrics | {name: value for name, value in extra.items() if value}

    @staticmethod
    def of_row(row: dict[str, Any]) -> "Result":
        """The result whose `row()` this is, without its outcomes."""
        names = [each.name for each in fields(Result)]
        own = {name: value for name, value in row.items() if name in names}
        for name in ("intervals", "settings", "details", "pictures"):
            if not isinstance(row.get(name, {}), dict):
                raise ValueError(f"{name} of {row.get('model')!r} is no object")
        own["intervals"] = {name: tuple(interval) for name, interval in row.get("intervals", {}).items()}
        if "measured" in own:
            own["measured"] = Measured(**own["measured"])
        else:  # which model was the first of the two, and whether both rows are still those compared, is not known
            own["details"] = {name: value for name, value in row.get("details", {}).items() if name != "differences"}
        numbers = {name: value for name, value in row.items() if name not in names and name != "id"}
        if not all(isinstance(value, int | float) for value in (own.get("n"), *numbers.values())):
            raise ValueError(f"a number is missing or none in the row of {own.get('model')!r}")
        return Result(**own, metrics=numbers)


def asked_with(model: str, method: str | None, file: str | None) -> str:
    """A model's name, followed by the method and file of learned prompts where it is asked with such."""
    return model if file is None else f"{model}, {method} prompts ({file.removesuffix('.safetensors')})"


def digest(content: Any) -> str:
    """12 hexadecimal digits of a hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def read_results(folder: Path) -> list[Result]:
    """The rows of `results.json` in `folder`; none without this file. UserError if it is not a table of results."""
    path = folder / RESULTS
    try:
        return [Result.of_row(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path}: not a table of results ({error}); give another folder with --out, or remove it") from error


def merged(old: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """Old and new rows together, in the order in which they came; the same evaluation (`Result.id`) replaces its own row."""
    again = {row.id: row for row in new}
    kept = [again.pop(row.id, row) for row in old]
    return kept + list(again.values())


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write all results as `results.json` into `folder`, and the outcomes that they bring into a file for each row."""
    for result in results:
        if result.outcomes:
            write_file(outcomes_file(folder, result), lambda partial, own=result.outcomes: _save(partial, own))
    write_text(folder / RESULTS, json.dumps([result.row() for result in results], indent=2) + "\n")


def read_outcomes(folder: Path, result: Result) -> Mapping[str, np.ndarray] | None:
    """What happened to each image or query of a row; None where this was not kept, or cannot be read any more."""
    if result.outcomes:
        return result.outcomes
    try:
        with outcomes_file(folder, result).open("rb") as opened, np.load(opened) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def outcomes_file(folder: Path, result: Result) -> Path:
    """Where the outcomes of a row are kept."""
    return folder / OUTCOMES / f"{result.id}.npz"


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # `savez` would add an ending to a name without one
        np.savez_compressed(file, **arrays)
