"""Do learned prompts carry over to classes that they have not seen? CoCoOp's base-to-novel protocol."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation.probe.methods import FewLabels, FewShot, Part, Tasks, make_tasks
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.prompt_learning.biomedcoop import BiomedCoOp
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.prompts.learned import LearnedPrompts
from biomedclip_jax.prompts.templates import Prompts, read_prompts
from biomedclip_jax.support.terminal import progress_bar


class PromptLearner(Protocol):
    """A method that learns prompts: CoOp, CoCoOp, BiomedCoOp, KgCoOp, ProGrad or CLEFT's context prompts."""

    @property
    def name(self) -> str:
        """The method's name in results.json and tables, as in `Method`."""
        ...

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Prompts for the classes of the task, learned from its images."""
        ...

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What a task is learned with, such as epochs and learning rate."""
        ...

    def for_base_to_novel(self) -> "PromptLearner":
        """The method with the recipe published for this protocol, where no other was given."""
        ...


def base_to_novel(method: PromptLearner, task: FewShot) -> Result:
    """Learn on the first half of the classes (one more if their number is odd), test each half among its own classes.

    metrics: base_accuracy, novel_accuracy, their harmonic_mean, and zero_shot_* of the data set's prompts on these images.
    What the method leaves open is as published for this protocol (`PromptLearner.for_base_to_novel`).
    UserError for class-specific prompts, which fit no other classes, and for less than four classes.
    """
    classes = task.given.data.classes
    _check_count(classes)
    asked = method = method.for_base_to_novel()
    if isinstance(method, BiomedCoOp) and method.sentences is not None:  # the file is about all classes
        task = dataclasses.replace(task, prompts=read_prompts(method.sentences, classes))
        method = dataclasses.replace(method, sentences=None)
    half = -(-len(classes) // 2)
    base, novel = _among(task, 0, half), _among(task, half, len(classes))
    learned = method.learn(base)
    clip = task.candidate.clip
    reached = {"": [], "zero_shot_": []}
    for part, prompts in ((base, learned), (novel, learned.with_classes(classes[half:]))):
        guesses = {"": prompts.scores(clip, part.test.unit), "zero_shot_": part.test.unit @ part.text.T}
        for prefix, scores in guesses.items():
            reached[prefix].append(float((scores.argmax(axis=1) == part.test.labels).mean()))
    metrics = {}
    for prefix, (known, new) in reached.items():
        metrics |= _with_harmonic_mean({f"{prefix}base_accuracy": known, f"{prefix}novel_accuracy": new}, prefix)
    settings = {"seed": task.seed, "base_classes": half, "images": len(base.given)} | asked.settings(base)
    n = len(base.test) + len(novel.test)
    return Result(task.candidate.name, f"{method.name} base-to-novel", task.test.data.name, n, metrics, settings=settings)


def base_to_novel_results(evaluation: Evaluation, data: FewLabels, methods: Sequence[PromptLearner]) -> list[Result]:
    """One result for each candidate, method and budget: means over the seeds, whose own metrics are in the details (`runs`).

    The harmonic mean is that of the two means, as papers have it. details: `spread`, the standard deviation over the seeds
    (n - 1), where there are several; what is not all there of the data, see `completeness`.
    Raises UserError as `base_to_novel` does, and where the classes of training data, test data and prompts differ.
    """
    data.check_classes()
    _check_count(data.test.classes)
    results = []
    for candidate in evaluation.candidates:
        tasks = make_tasks(candidate, evaluation.embeddings, data)
        with progress_bar(len(methods) * len(tasks), f"training ({candidate.name})") as bar:
            for method in methods:
                for budget in data.budgets:
                    runs = []
                    for task in tasks.of(budget):
                        runs.append(base_to_novel(method, task))
                        bar.update(1)
                    results.append(_means(evaluation.dataset, tasks, budget, runs))
    return results


def _means(dataset: str, tasks: Tasks, budget: Budget, runs: Sequence[Result]) -> Result:
    values = {name: [run.metrics[name] for run in runs] for name in runs[0].metrics}
    metrics = {name: float(np.mean(each)) for name, each in values.items()}
    for prefix in ("", "zero_shot_"):
        metrics = _with_harmonic_mean(metrics, prefix)
    about = {name: value for name, value in runs[0].settings.items() if name != "seed"}
    settings = about | {"budget": str(budget), "seeds": [run.settings["seed"] for run in runs]}
    details: dict[str, Any] = {"runs": [run.settings | {"metrics": run.metrics} for run in runs]} | tasks.details(budget)
    if len(runs) > 1:
        details["spread"] = {name: float(np.std(each, ddof=1)) for name, each in values.items()}
    return dataclasses.replace(runs[0], dataset=dataset, metrics=metrics, settings=settings, details=details)


def _with_harmonic_mean(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    known, new = metrics[f"{prefix}base_accuracy"], metrics[f"{prefix}novel_accuracy"]
    return metrics | {f"{prefix}harmonic_mean": 2 * known * new / (known + new) if known + new else 0.0}


def _check_count(classes: Sequence[str]) -> None:
    if len(classes) < 4:
        raise UserError(f"base to novel: {len(classes)} classes; expected four at least, two to learn from and two others")


def _among(task: FewShot, first: int, last: int) -> FewShot:
    """The task with classes `first` to `last` alone."""

    def part(whole: Part) -> Part:
        chosen = whole.subset(np.flatnonzero((whole.labels >= first) & (whole.labels < last)))
        data = dataclasses.replace(chosen.data, classes=whole.data.classes[first:last], labels=chosen.labels - first)
        return dataclasses.replace(chosen, data=data)

    parts = {name: part(getattr(task, name)) for name in ("given", "train", "validation", "test")}
    sentences = Prompts(task.prompts.sentences[first:last])
    return dataclasses.replace(task, prompts=sentences, text=task.text[first:last], **parts)
