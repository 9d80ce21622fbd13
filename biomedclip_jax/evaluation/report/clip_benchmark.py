"""Results as LAION-AI/CLIP_benchmark writes them: JSON files, which `clip_benchmark build` joins into a CSV.

Source: its `cli.py: run` (the object) and `metrics/` (names and meaning of the numbers). What it does not know, such
as the weights and the command, stands beside its own fields and becomes columns of the CSV.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.files import write_text

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
    return known | {"metrics": metrics, "language": "en"} | _measured(result)


def _measured(result: Result) -> dict[str, Any]:
    """What was measured, in fields of one word or number each."""
    own: dict[str, Any] = {"id": result.id, "n": result.n, "left_out": result.left_out}
    own |= {name: result.settings[name] for name in ("search", "aggregate", "prompts_file") if name in result.settings}
    if isinstance(prompts := result.settings.get("prompts"), list):
        own["prompts"] = json.dumps(prompts)
    if result.measured is not None:
        about = dataclasses.asdict(result.measured)
        own |= {"model_path": about.pop("model"), "data_path": about.pop("data")} | about
    return own


def write_clip_benchmark(folder: Path, results: Sequence[Result]) -> None:
    """Write a file for each result, named {dataset}_{pretrained}_{model}_{language}_{task} as theirs are, and `Result.id`."""
    for result in results:
        content = clip_benchmark_object(result)
        if content is not None:
            parts = (content[name] for name in ("dataset", "pretrained", "model", "language", "task"))
            name = "_".join(re.sub(r"[^\w.-]+", "-", part)[:60] for part in parts)
            write_text(folder / f"{name}_{result.id}.json", json.dumps(content))
            # as versions before 2026-12 named it: one file for all that differ in data, prompts or search
            (folder / f"{name}.json").unlink(missing_ok=True)
