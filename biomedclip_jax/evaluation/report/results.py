"""Results, and their JSON: `results.json`, a list of rows, and one file for each as CLIP_benchmark writes them.

`clip_benchmark build` joins the latter into a CSV. Source: LAION-AI/CLIP_benchmark, `cli.py: run` (the object) and
`metrics/` (names and meaning of the numbers).
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text

RESULTS = "results.json"
_REASONS = 3  # for what was left out, that a line says


@dataclass(frozen=True)
class Result:
    """What one model reached in one task on one data set.

    task: "retrieval", "zero-shot", "probe", "finetune", ... n: images (or pairs) measured.
    metrics: fractions, under names such as accuracy, balanced_accuracy, macro_f1, auroc, image_to_text_recall_at_1; of
        what is no fraction (median_rank) the number itself.
    intervals: of some metrics, the 95 % interval.
    settings: what else the numbers depend on: prompts, aggregation, shots, seed, selection.
    details: what does not fit in a table, such as the recall of each class, or differences to other models.
    pictures: {file: title} of PNG files; the file is relative to the folder of results.json.
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

    @property
    def who(self) -> str:
        """What tables call it: the model, and the learned prompts that it was asked with, if any."""
        return asked_with(self.model, self.settings.get("prompts_method"), self.settings.get("prompts_file"))

    @property
    def left_out(self) -> str:
        """How much of the data is in no number, and why, and what else has to be said of them; "" if there is nothing.

        "left out: 12 (image file is not there 10, caption is empty 2)"
        """
        reasons: Counter[str] = Counter()
        for each in self.details.get("left_out", ()):
            reasons[each["reason"]] += each.get("count", 1)
        caveats = self.details.get("caveats", ())
        if not reasons:
            return "; ".join(caveats)
        shown = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(_REASONS))
        others = f", {len(reasons) - _REASONS} other reasons" if len(reasons) > _REASONS else ""
        return "; ".join([f"left out: {reasons.total():,} ({shown}{others})", *caveats])

    def row(self) -> dict[str, Any]:
        """The object of results.json: metrics stand beside model, task, dataset and n."""
        extra = {"intervals": self.intervals, "settings": self.settings, "details": self.details, "pictures": self.pictures}
        known = {"model": self.model, "task": self.task, "dataset": self.dataset, "n": self.n}
        return known | self.metrics | {name: value for name, value in extra.items() if value}

    @staticmethod
    def of_row(row: dict[str, Any]) -> "Result":
        """The result whose `row()` this is."""
        names = [each.name for each in fields(Result)]
        own = {name: value for name, value in row.items() if name in names}
        own["intervals"] = {name: tuple(interval) for name, interval in row.get("intervals", {}).items()}
        return Result(**own, metrics={name: value for name, value in row.items() if name not in names})


def asked_with(model: str, method: str | None, file: str | None) -> str:
    """A model's name, followed by the method and file of learned prompts where it is asked with such."""
    return model if file is None else f"{model}, {method} prompts ({file.removesuffix('.safetensors')})"


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
    """Old and new rows together; a new one replaces an old one of the same model, task, data set and settings.

    Of the settings, search, budget of labels and file of prompts tell rows apart.
    """

    def what(row: Result) -> tuple[str, ...]:
        settings = (str(row.settings.get(name)) for name in ("search", "budget", "prompts_file"))
        return row.model, row.task, row.dataset, *settings

    replaced = {what(row) for row in new}
    return [row for row in old if what(row) not in replaced] + list(new)


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write all results as `results.json` into `folder`."""
    write_text(folder / RESULTS, json.dumps([result.row() for result in results], indent=2) + "\n")


# their names say what is retrieved; ours say the query first
_RETRIEVAL = {"text_retrieval": "image_to_text_recall_at_", "image_retrieval": "text_to_image_recall_at_"}
_CLASSIFICATION = {"acc1": "accuracy", "acc5": "top_5_accuracy", "mean_per_class_recall": "balanced_accuracy"}


def clip_benchmark_object(result: Result) -> dict[str, Any] | None:
    """A retrieval or zero-shot result as CLIP_benchmark's JSON object; None for tasks that it does not know."""
    if result.task == "retrieval":
        names = {f"{theirs}_recall@{k}": f"{ours}{k}" for theirs, ours in _RETRIEVAL.items() for k in (1, 5, 10)}
        task = "zeroshot_retrieval"
    elif result.task == "zero-shot":
        names, task = _CLASSIFICATION, "zeroshot_classification"
    else:
        return None
    metrics = {theirs: result.metrics.get(ours, float("nan")) for theirs, ours in names.items()}
    known = {"dataset": result.dataset, "model": result.model, "pretrained": result.who, "task": task}
    return known | {"metrics": metrics, "language": "en"}


def write_clip_benchmark(folder: Path, results: Sequence[Result]) -> None:
    """Write a file for each result, named as theirs are: {dataset}_{pretrained}_{model}_{language}_{task}.json."""
    for result in results:
        content = clip_benchmark_object(result)
        if content is not None:
            parts = (content[name] for name in ("dataset", "pretrained", "model", "language", "task"))
            name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
            write_text(folder / f"{name}.json", json.dumps(content))
