"""Findings learned from labels: the data, the contract of a method that learns, and the rows that come of it.

A method gets one `FindingTask` for each model, share of the images and seed, and says of each finding how probable it
is in each test image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from biomedclip_jax.data.labelled.multi_label import MultiLabelled, answers_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation, check_finite
from biomedclip_jax.evaluation._metrics import sklearn_metrics
from biomedclip_jax.evaluation._thresholds import THRESHOLDS
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.multi_label._numbers import Scored, findings_results
from biomedclip_jax.evaluation.probe.sampling import VALIDATION, Budget
from biomedclip_jax.evaluation.report.results import Result


@dataclass(frozen=True, eq=False)
class FindingsToLearn:
    """Images to learn findings from and images to be tested on, with the same findings in the same order.

    where: the former, as the user named them. budgets: shares of them. seeds: a draw of each share that is not the whole,
    and of the images that validate.
    """

    train: MultiLabelled
    test: MultiLabelled
    where: str
    budgets: Sequence[Budget] = (Budget(fraction=1.0),)
    seeds: Sequence[int] = (0,)

    def check(self) -> None:
        """UserError for budgets that are shots, and for findings that differ."""
        for budget in self.budgets:
            if budget.fraction is None:
                raise UserError(f"--labels {budget.shots}: images with several findings have no shots; expected 10% or 100%")
        if self.train.findings != self.test.findings:
            raise UserError(
                f"{self.train.name} has the findings {', '.join(self.train.findings)}, {self.test.name} has "
                f"{', '.join(self.test.findings)}; expected the same ones in the same order"
            )

    def draws(self, count: int) -> Iterator[tuple[Budget, int, np.ndarray]]:
        """(budget, seed, positions among `count` training images) of each row, the positions shuffled."""
        for budget in self.budgets:
            share = budget.fraction or 1.0
            for seed in self.seeds[:1] if share == 1 else self.seeds:
                order = np.random.default_rng(seed).permutation(count)
                yield budget, seed, order[: int(np.ceil(np.round(count * share, 6)))]


@dataclass(frozen=True, eq=False)
class Part:
    """Images that can be read, and what the candidate's image tower makes of them: features, float32 [n, E]."""

    data: MultiLabelled
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    def subset(self, positions: np.ndarray) -> "Part":
        """The images at these positions, in this order."""
        return Part(self.data.subset(positions), self.features[positions])


@dataclass(frozen=True, eq=False)
class FindingTask:
    """Learn the findings of `given`, in a random order, and predict those of `test`. seed: of what a method draws."""

    candidate: Candidate
    embeddings: Embeddings
    given: Part
    test: Part
    seed: int

    def validates(self) -> np.ndarray:
        """Which of the images given are for choices alone, bool: the first fifth of them; of groups whole ones."""
        data = self.given.data
        wanted = int(np.ceil(VALIDATION * len(data)))
        if data.groups is None:
            return np.arange(len(data)) < wanted
        _, first, group, sizes = np.unique(data.groups, return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(first)  # groups as they come
        before = np.empty(len(order), np.int64)
        before[order] = np.cumsum(sizes[order]) - sizes[order]
        return (before < wanted)[group]


@dataclass(frozen=True, eq=False)
class LearnedFindings:
    """What a method answers.

    log_odds: float64 [n, F], anything where a finding is `missing`: why it could not be learned. chosen: of some findings
    the log-odds from which on it counts as there, chosen on `chosen_on`. settings, caveats: of the row.
    """

    log_odds: np.ndarray
    missing: Mapping[int, str] = field(default_factory=dict)
    chosen: Mapping[int, float] = field(default_factory=dict)
    chosen_on: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()


class FindingMethod(Protocol):
    """Something that learns findings. name: in tables. task: of its rows."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def task(self) -> str:
        """The task of its rows in results.json."""
        ...

    def __call__(self, task: FindingTask) -> LearnedFindings:
        """Learn the task. Deterministic. UserError where nothing can be learned."""
        ...


def learn_findings(
    evaluation: Evaluation, data: FindingsToLearn, method: FindingMethod, thresholds: Sequence[float] = THRESHOLDS
) -> list[Result]:
    """A result for each candidate, budget and seed, with the numbers of `findings_results`.

    Raises UserError as of `FindingsToLearn.check`, where no finding can be learned, and where an embedding is not finite.
    """
    sklearn_metrics()  # before hours of work
    data.check()
    tested, errors = evaluation.embed(data.test.images, data.test.fingerprint)
    kept = np.setdiff1d(np.arange(len(data.test)), list(errors))
    if not len(kept):
        raise UserError(f"{evaluation.dataset}: no image can be read by all of the models")
    learned_from, unread = evaluation.embed(data.train.images, data.train.fingerprint)
    readable = np.setdiff1d(np.arange(len(data.train)), list(unread))
    train, test = data.train.subset(readable), data.test.subset(kept)
    about = {"train": data.where, "train_fingerprint": answers_fingerprint(train), "method": method.name}
    caveats = _caveats(data.train, len(unread), train)
    results: list[Result] = []
    for number, candidate in enumerate(evaluation.candidates):
        known = Part(train, learned_from[number].features[np.isin(learned_from[number].kept, readable)])
        own = Part(test, tested[number].features[np.isin(tested[number].kept, kept)])
        for part in (own, known):
            check_finite(candidate, part.features, part.data.names)
        scored = []
        for budget, seed, drawn in data.draws(len(train)):
            found = method(FindingTask(candidate, evaluation.embeddings, known.subset(drawn), own, seed))
            if len(found.missing) == len(train.findings):
                raise UserError(f"{data.train.name}: no finding can be learned: {next(iter(found.missing.values()))}")
            settings = about | {"budget": str(budget), "labels": len(drawn), "seeds": [seed], "thresholds": list(thresholds)}
            scored.append(
                Scored(
                    candidate,
                    found.log_odds,
                    settings | dict(found.settings),
                    thresholds,
                    chosen=found.chosen,
                    chosen_on=found.chosen_on,
                    without=found.missing,
                    caveats=(*caveats, *found.caveats),
                )
            )
        results += findings_results(evaluation, method.task, data.test, kept, errors, scored)
    return results


def why_not_learned(answers: np.ndarray) -> str:
    """Why a finding with these labels (1, 0, or -1 where it does not count) cannot be learned; "" where it can."""
    known = answers[answers >= 0]
    if len(np.unique(known)) == 2:
        return ""
    missing = "no label" if not len(known) else "no image with it" if not known.any() else "no image without it"
    return f"{missing} to learn from"


def _caveats(train: MultiLabelled, unread: int, kept: MultiLabelled) -> list[str]:
    """What has to be said of the images to learn from."""
    left = len(train.rejects) + unread
    missing = [f"{left:,} of {len(train) + len(train.rejects):,} left out"] if left else []
    if train.whole is not None and train.whole != len(kept):
        missing.append(f"{len(kept):,} of the benchmark's {train.whole:,}")
    return [f"of the training images: {each}" for each in (*missing, *train.caveats, *kept.policy_said)]
