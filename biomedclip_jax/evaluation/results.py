"""One row of a results table, and `results.json`: a list of rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomedclip_jax.files import write_text

RESULTS = "results.json"


@dataclass(frozen=True)
class Result:
    """What one model reached in one task on one data set.

    task: "retrieval", "zero-shot", "probe", "finetune", ... n: images (or pairs) measured.
    metrics: fractions, under names such as accuracy, balanced_accuracy, macro_f1, auroc, image_to_text_recall_at_1; of what is
        no fraction (median_rank) the number itself.
    intervals: of some metrics, the 95 % interval.
    settings: what else the numbers depend on: prompts, aggregation, shots, seed, selection.
    details: what does not fit in a table: recall of each class, the search of a learning rate, differences to other models.
    pictures: PNG files, relative to the folder of results.json; title by file.
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

    def row(self) -> dict[str, Any]:
        """The object of results.json: metrics stand beside model, task, dataset and n."""
        extra = {"intervals": self.intervals, "settings": self.settings, "details": self.details, "pictures": self.pictures}
        known = {"model": self.model, "task": self.task, "dataset": self.dataset, "n": self.n}
        return known | self.metrics | {name: value for name, value in extra.items() if value}


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """`results.json` in `folder`."""
    write_text(folder / RESULTS, json.dumps([result.row() for result in results], indent=2) + "\n")
