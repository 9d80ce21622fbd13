"""Numbers of a model's answers, and their intervals: questions are many, images few, so whole images are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.evaluation._bootstrap import Samples, bootstrap_means
from biomedclip_jax.evaluation._intervals import interval_over_groups


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to each of n test questions.

    right: whether the answer is right, bool. f1: of its tokens, float64. closed: of the question, bool. images: which
    image it is about, int from 0. reachable: whether the right answer is in the vocabulary, bool. leaked: whether a
    paraphrase was learned from, bool, or None.
    """

    right: np.ndarray
    f1: np.ndarray
    closed: np.ndarray
    images: np.ndarray
    reachable: np.ndarray
    leaked: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, to be kept."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @staticmethod
    def of_arrays(arrays: Mapping[str, np.ndarray]) -> "Outcome":
        """The outcome whose `arrays()` these are."""
        return Outcome(**{name: arrays[name] for name in arrays.keys() & Outcome.__dataclass_fields__.keys()})

    def columns(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Each metric as values of all questions, and which questions it is the mean of; none of those of no question."""
        every = np.ones(len(self.right), bool)
        found = {f"accuracy{of}": (self.right, own) for of, own in self._kinds(every, "")}
        found["token_f1"] = (self.f1, every)
        found |= {f"vocabulary_reach{of}": (self.reachable, own) for of, own in self._kinds(every, "")}
        if self.leaked is not None:
            for name, part in (("leaked", self.leaked), ("not_leaked", ~self.leaked)):
                found |= {f"accuracy{of}": (self.right, own) for of, own in self._kinds(part, f"_{name}")}
                found[f"token_f1_{name}"] = (self.f1, part)
        return {name: column for name, column in found.items() if column[1].any()}

    def _kinds(self, part: np.ndarray, name: str) -> list[tuple[str, np.ndarray]]:
        return [(name, part), (f"_open{name}", part & ~self.closed), (f"_closed{name}", part & self.closed)]


def metrics(outcome: Outcome) -> dict[str, float]:
    """The mean of each of `Outcome.columns`."""
    return {name: float(values[own].mean()) for name, (values, own) in outcome.columns().items()}


def samples(outcome: Outcome, resamples: int, seed: int) -> Samples:
    """The metrics of a model on resamples of the images, the same ones for every model on the same questions."""
    return bootstrap_means(outcome.columns(), outcome.images, resamples, seed)


def intervals(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]], images: np.ndarray, found: Samples
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """metric -> 95 % interval, and metric -> why it has none: too few images, or all resamples the same."""
    known: dict[str, tuple[float, float]] = {}
    reasons: dict[str, str] = {}
    for name, (_, own) in columns.items():
        ends = interval_over_groups(found[name], len(np.unique(images[own])))
        if isinstance(ends, str):
            reasons[name] = ends
        else:
            known[name] = ends
    return known, reasons
