"""Learning from few labels: models x methods x budgets of labels, each over several seeds, and their learning curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from biomedclip_jax.data.labelled.groups import numbers_of
from biomedclip_jax.data.labelled.types import labels_fingerprint
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._metrics import classification_metrics, majority_metrics, sklearn_metrics
from biomedclip_jax.evaluation._thresholds import THRESHOLDS, Groups, of_second_class, youden
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.probe.methods import FewLabels, FewShot, Method, Prediction, Tasks, make_tasks
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.report.drawing import Curve, draw_learning_curves, file_stem, picture_file
from biomedclip_jax.evaluation.report.results import Result, digest
from biomedclip_jax.support.terminal import progress_bar


def few_labels(
    evaluation: Evaluation,
    data: FewLabels,
    methods: Sequence[Method],
    metric: str = "accuracy",
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Result]:
    """One result for each candidate, method and budget, and one picture of them all.

    metrics: means over the seeds, of `classification_metrics` on all of `data.test`; `majority_*` beside them.
    details: `spread`, the standard deviation over the seeds (n - 1), where there are several; `runs`, one object a seed,
        with its metrics, what the method chose and, where it learned prompts, their file, relative to `evaluation.out`,
        and of two classes `operating_points`, see `zero_shot`, chosen on its validation images where a method tells them;
        `zero_shot`, the same model's metrics without labels; `caveats`, among them where a method is below this, or no
        better than always the most frequent class, and what a method says of its own training.
    metric: the one that the picture shows.
    Raises UserError, before the first training, where the classes of training data, test data and prompts differ, or a
    budget cannot be drawn.
    """
    sklearn_metrics()  # before hours of work
    data.check_classes()
    results: list[Result] = []
    marks = {each.name: _mark(data, each, methods) for each in evaluation.candidates}
    names = [method.name for method in methods]
    picture = picture_file("few-labels", evaluation.dataset, *names, digest(list(marks.values())))
    title = f"{evaluation.dataset}: {metric.replace('_', ' ')} by the number of labels"
    curves: list[Curve] = []
    constant: dict[str, float] = {}
    for candidate in evaluation.candidates:
        tasks = make_tasks(candidate, evaluation.embeddings, data)
        scores = evaluation.embeddings.logit_scale(candidate) * (tasks.test.unit @ tasks.text.T)
        zero_shot = classification_metrics(tasks.test.labels, scores.astype(np.float64))
        constant = majority_metrics(tasks.test.labels)
        with progress_bar(len(methods) * len(tasks), f"training ({candidate.name})") as bar:
            for method in methods:
                own = []
                for budget in tasks.draws:
                    runs = []
                    for task in tasks.of(budget):
                        run = _run(evaluation, method, budget, task, marks[candidate.name], thresholds)
                        runs.append(run)
                        bar.update(1)
                    result = _result(evaluation.dataset, tasks, method, budget, runs)
                    result.metrics.update(constant)
                    caveats = [*result.details.get("caveats", ()), *_caveats(runs, zero_shot, constant)]
                    result.details.update({"zero_shot": zero_shot} | ({"caveats": caveats} if caveats else {}))
                    result.pictures[picture] = title
                    own.append(result)
                results += own
                curves.append(_curve(own, metric, zero_shot))
    draw_learning_curves(evaluation.out / picture, evaluation.dataset, metric, curves, constant.get(f"majority_{metric}"))
    return results


def _mark(data: FewLabels, candidate: Candidate, methods: Sequence[Method]) -> str:
    """In the names of files: what is learned from other images, of another model or otherwise has files of its own."""
    words = [list(own) for own in data.prompts.sentences]
    options = [repr(method) for method in methods]
    return digest([labels_fingerprint(data.train), labels_fingerprint(data.test), words, candidate.fingerprint, options])


def _run(
    evaluation: Evaluation, method: Method, budget: Budget, task: FewShot, mark: str, thresholds: Sequence[float]
) -> dict[str, Any]:
    predicted = method(task)
    metrics = classification_metrics(task.test.labels, predicted.logits)
    run = {"seed": task.seed, "labels": len(task.given), "metrics": metrics, "chosen": predicted.settings}
    if len(task.test.data.classes) == 2:
        run["operating_points"] = _operating_points(evaluation, task, predicted, thresholds)
    if predicted.caveats:
        run["caveats"] = list(predicted.caveats)
    if predicted.prompts is None:
        return run
    about = task.candidate.name, method.name, budget.in_file_names, f"seed-{task.seed}"
    stem = file_stem(evaluation.dataset, *about, mark)
    file = f"prompts/{stem}.safetensors"
    predicted.prompts.save(evaluation.out / file, task.candidate.clip)
    return run | {"prompts": file}


def _operating_points(
    evaluation: Evaluation, task: FewShot, predicted: Prediction, thresholds: Sequence[float]
) -> dict[str, Any]:
    data, unseen, least = task.test.data, predicted.validation, None
    if unseen is not None and np.isfinite(unseen).all():
        least = youden(task.validation.labels == 1, unseen[:, 1] - unseen[:, 0])
    numbers = numbers_of(data.groups)
    groups = None if numbers is None else Groups(numbers, evaluation.resamples, evaluation.seed)
    at = of_second_class(data.labels, predicted.logits, thresholds, least, groups)
    chosen_on = "" if unseen is None else f"the {len(task.validation):,} images that validate"
    return {"positive": data.classes[1], "at": at, "chosen_on": chosen_on}


def _caveats(runs: Sequence[dict[str, Any]], zero_shot: dict[str, float], constant: dict[str, float]) -> list[str]:
    """What the runs of one method and budget say of themselves, and whether labels were of any use to their accuracy."""

    def with_seeds(runs_of: Sequence[dict[str, Any]]) -> str:
        """Which of the runs are meant; "" if all."""
        few = len(runs_of) < len(runs)
        return f", seed{'s' * (len(runs_of) > 1)} {', '.join(str(run['seed']) for run in runs_of)}" if few else ""

    said = [f"{each}{with_seeds([run])}" for run in runs for each in run.get("caveats", ())]
    untrained, same = zero_shot["accuracy"], constant["majority_accuracy"]
    if below := [run for run in runs if run["metrics"]["accuracy"] < untrained]:
        said.append(f"accuracy below zero-shot ({untrained:.1%}){with_seeds(below)}")
    if no_better := [run for run in runs if run["metrics"]["accuracy"] <= same < 1]:
        said.append(f"accuracy no better than always the most frequent class ({same:.1%}){with_seeds(no_better)}")
    return said


def _result(dataset: str, tasks: Tasks, method: Method, budget: Budget, runs: list[dict[str, Any]]) -> Result:
    names = runs[0]["metrics"]
    values = {name: [run["metrics"][name] for run in runs] for name in names}
    details: dict[str, Any] = {"runs": runs} | tasks.details(budget)
    if len(runs) > 1:
        details["spread"] = {name: float(np.std(each, ddof=1)) for name, each in values.items()}
    # what every run chose alike is a setting; what they chose each for themselves stands with the runs
    alike = {name: value for name, value in runs[0]["chosen"].items() if all(run["chosen"].get(name) == value for run in runs)}
    return Result(
        model=tasks.candidate.name,
        task=method.name,
        dataset=dataset,
        n=len(tasks.test),
        metrics={name: float(np.mean(each)) for name, each in values.items()},
        settings=alike | {"budget": str(budget), "labels": runs[0]["labels"], "seeds": [run["seed"] for run in runs]},
        details=details,
    )


def _curve(results: Sequence[Result], metric: str, zero_shot: dict[str, float]) -> Curve:
    points = sorted(
        (row.settings["labels"], row.metrics[metric], row.details.get("spread", {}).get(metric, 0.0)) for row in results
    )
    return Curve(results[0].model, results[0].task, tuple(points), zero_shot[metric])
