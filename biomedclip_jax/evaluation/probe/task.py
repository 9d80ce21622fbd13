"""Learning from few labels: models x methods x budgets of labels, each over several seeds, and their learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.metrics import classification_metrics, majority_metrics, sklearn_metrics
from biomedclip_jax.evaluation.probe.methods import FewShot, Method, softmax
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.probe.settings import check_classes, make_tasks
from biomedclip_jax.evaluation.report.drawing import Curve, draw_learning_curves, file_stem, picture_file
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.prompts.templates import Prompts
from biomedclip_jax.support.terminal import progress_bar

BUDGETS = (
    Budget(shots=5),
    Budget(shots=20),
    Budget(shots=50),
    Budget(fraction=0.01),
    Budget(fraction=0.1),
    Budget(fraction=1.0),
)
SEEDS = (0, 1, 2)


def few_labels(
    candidates: Sequence[Candidate],
    train: Labelled,
    test: Labelled,
    prompts: Prompts,
    methods: Sequence[Method],
    embeddings: Embeddings,
    folder: Path,
    *,
    dataset: str,
    budgets: Sequence[Budget] = BUDGETS,
    seeds: Sequence[int] = SEEDS,
    metric: str = "accuracy",
    search_shots: int | None = None,
) -> list[Result]:
    """One result for each candidate, method and budget, and a picture of them all in `folder` (that of results.json).

    metrics: means over the seeds, of `classification_metrics` on all of `test`; `majority_*` beside them. details: `spread`,
        the standard deviation over the seeds (n - 1), where there are several; `runs`, one object a seed, with its metrics,
        what the method chose and, where it learned prompts, their file, below `folder`; `zero_shot`, the same model's metrics
        without labels. A budget of all labels leaves nothing to draw and has the first seed alone, as in ELEVATER.
    metric: what the picture shows. search_shots: see `few_shot.split`.
    Raises UserError, before the first training, where the classes of `train`, `test` and `prompts` differ, or a budget cannot
    be drawn from `train`.
    """
    sklearn_metrics()  # before hours of work
    check_classes(train, test, prompts)
    results: list[Result] = []
    picture = picture_file("few-labels", dataset, *(method.name for method in methods))
    curves: list[Curve] = []
    constant: dict[str, float] = {}
    for candidate in candidates:
        tasks = make_tasks(candidate, train, test, prompts, embeddings, budgets=budgets, seeds=seeds, search_shots=search_shots)
        labels, scores = tasks.test.labels, embeddings.logit_scale(candidate) * (tasks.test.unit @ tasks.text.T)
        zero_shot = classification_metrics(labels, softmax(scores))
        constant = majority_metrics(labels)
        with progress_bar(len(methods) * len(tasks), f"training ({candidate.name})") as bar:
            for method in methods:
                own = []
                for budget in tasks.draws:
                    runs = []
                    for task in tasks.of(budget):
                        about = (dataset, candidate.name, method.name, budget.in_file_names, f"seed-{task.seed}")
                        runs.append(_run(method, task, folder, f"prompts/{file_stem(*about)}.safetensors"))
                        bar.update(1)
                    result = _result(candidate, method, dataset, budget, runs, len(tasks.test))
                    result.metrics.update(constant)
                    result.details.update({"zero_shot": zero_shot})
                    result.pictures[picture] = f"{dataset}: {metric.replace('_', ' ')} by the number of labels"
                    if tasks.left_out:
                        result.details["left_out"] = tasks.left_out
                    own.append(result)
                results += own
                curves.append(_curve(own, metric, zero_shot))
    draw_learning_curves(folder / picture, dataset, metric, curves, constant.get(f"majority_{metric}"))
    return results


def _run(method: Method, task: FewShot, folder: Path, prompts_file: str) -> dict[str, Any]:
    predicted = method(task)
    metrics = classification_metrics(task.test.labels, predicted.probabilities)
    run = {"seed": task.seed, "labels": len(task.given), "metrics": metrics, "chosen": predicted.settings}
    if predicted.prompts is None:
        return run
    predicted.prompts.save(folder / prompts_file, task.candidate.clip)
    return run | {"prompts": prompts_file}


def _result(
    candidate: Candidate, method: Method, dataset: str, budget: Budget, runs: list[dict[str, Any]], tested: int
) -> Result:
    names = runs[0]["metrics"]
    values = {name: [run["metrics"][name] for run in runs] for name in names}
    details: dict[str, Any] = {"runs": runs}
    if len(runs) > 1:
        details["spread"] = {name: float(np.std(each, ddof=1)) for name, each in values.items()}
    # what every run chose alike is a setting; what they chose each for themselves stands with the runs
    alike = {name: value for name, value in runs[0]["chosen"].items() if all(run["chosen"].get(name) == value for run in runs)}
    return Result(
        model=candidate.name,
        task=method.name,
        dataset=dataset,
        n=tested,
        metrics={name: float(np.mean(each)) for name, each in values.items()},
        settings=alike | {"budget": str(budget), "labels": runs[0]["labels"], "seeds": [run["seed"] for run in runs]},
        details=details,
    )


def _curve(results: Sequence[Result], metric: str, zero_shot: dict[str, float]) -> Curve:
    points = sorted(
        (row.settings["labels"], row.metrics[metric], row.details.get("spread", {}).get(metric, 0.0)) for row in results
    )
    return Curve(results[0].model, results[0].task, tuple(points), zero_shot[metric])
