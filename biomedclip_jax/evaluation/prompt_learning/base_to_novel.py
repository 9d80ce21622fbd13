"""Do learned prompts carry over to classes that they have not seen? CoCoOp's base-to-novel protocol."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.probe.settings import check_classes, make_tasks
from biomedclip_jax.evaluation.prompt_learning.biomedcoop import BiomedCoOp
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.prompts.learned import LearnedPrompts
from biomedclip_jax.prompts.templates import Prompts, read_prompts
from biomedclip_jax.support.terminal import progress_bar


class PromptLearner(Protocol):
    """CoOp, CoCoOp or BiomedCoOp."""

    @property
    def name(self) -> str:
        """See `Method`."""
        ...

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Prompts for the classes of the task."""
        ...


def base_to_novel(method: PromptLearner, task: FewShot) -> Result:
    """Learn on the first half of the classes (one more if they are odd), test each half among its own classes.

    metrics: base_accuracy, novel_accuracy, their harmonic_mean, and zero_shot_* of the data set's prompts on the same images.
    UserError for class-specific prompts, which know no other classes, and for less than four classes.
    """
    classes = task.given.data.classes
    _check_count(classes)
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
        harmonic = 2 * known * new / (known + new) if known + new else 0.0
        metrics |= {f"{prefix}base_accuracy": known, f"{prefix}novel_accuracy": new, f"{prefix}harmonic_mean": harmonic}
    settings = {"seed": task.seed, "base_classes": half, "images": len(base.given)}
    n = len(base.test) + len(novel.test)
    return Result(task.candidate.name, f"{method.name} base-to-novel", task.test.data.name, n, metrics, settings=settings)


def base_to_novel_results(
    candidates: Sequence[Candidate],
    train: Labelled,
    test: Labelled,
    prompts: Prompts,
    methods: Sequence[PromptLearner],
    embeddings: Embeddings,
    *,
    dataset: str,
    budgets: Sequence[Budget],
    seeds: Sequence[int],
) -> list[Result]:
    """One result for each candidate, method and budget: means over the seeds, whose own metrics are in the details (`runs`)."""
    check_classes(train, test, prompts)
    _check_count(test.classes)
    results = []
    for candidate in candidates:
        tasks = make_tasks(candidate, train, test, prompts, embeddings, budgets=budgets, seeds=seeds)
        with progress_bar(len(methods) * len(tasks), f"training ({candidate.name})") as bar:
            for method in methods:
                for budget in budgets:
                    runs = []
                    for task in tasks.of(budget):
                        runs.append(base_to_novel(method, task))
                        bar.update(1)
                    metrics = {name: float(np.mean([run.metrics[name] for run in runs])) for name in runs[0].metrics}
                    about = {name: runs[0].settings[name] for name in ("base_classes", "images")}
                    settings = about | {"budget": str(budget), "seeds": [run.settings["seed"] for run in runs]}
                    details = {"runs": [run.settings | {"metrics": run.metrics} for run in runs]}
                    if tasks.left_out:
                        details["left_out"] = tasks.left_out
                    found = dataclasses.replace(runs[0], dataset=dataset, metrics=metrics, settings=settings, details=details)
                    results.append(found)
    return results


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
