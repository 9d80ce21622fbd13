"""Results as CLIP_benchmark writes them: one JSON file a run, which `clip_benchmark build` joins into a CSV.

Source: LAION-AI/CLIP_benchmark, `cli.py: run` (the object) and `metrics/` (names and meaning of the numbers).
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.files import write_text

# Theirs speak of what is retrieved, ours of the query first.
_RETRIEVAL = {"text_retrieval": "image_to_text_recall_at_", "image_retrieval": "text_to_image_recall_at_"}
_CLASSIFICATION = {"acc1": "accuracy", "acc5": "top_5_accuracy", "mean_per_class_recall": "balanced_accuracy"}


def clip_benchmark_object(result: Result) -> dict[str, Any] | None:
    """The object of a retrieval or a zero-shot result; None for tasks that CLIP_benchmark has not."""
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
    """One file a result, named as theirs are: {dataset}_{pretrained}_{model}_{language}_{task}.json."""
    for result in results:
        content = clip_benchmark_object(result)
        if content is not None:
            parts = (content[name] for name in ("dataset", "pretrained", "model", "language", "task"))
            name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
            write_text(folder / f"{name}.json", json.dumps(content))
