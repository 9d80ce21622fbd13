"""Learning findings from labels: of each its own logistic regression on frozen features, CLIP's linear probe.

That is a linear layer with a sigmoid for each finding, fitted by binary cross-entropy, with a regularisation of its
own for each: the best on the images that validate, a fifth of those learned from. A label that does not count is left
out of its finding's regression alone.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.evaluation._metrics import ranks_of, sklearn_metrics
from biomedclip_jax.evaluation._thresholds import youden
from biomedclip_jax.evaluation.multi_label.learning import FindingTask, LearnedFindings, why_not_learned
from biomedclip_jax.evaluation.probe.logistic_regression import best_strength, fit_predict, quietly
from biomedclip_jax.evaluation.report.results import MULTI_LABEL_PROBE
from biomedclip_jax.support.terminal import progress_bar

_USUAL = 1.0  # the strength C where the validating images cannot choose one


@dataclass(frozen=True)
class _Learned:
    """The test images' log-odds of one finding; or why it could not be learned.

    threshold: the log-odds from which on it counts as there, chosen on the images that validate by a regression that has
    not seen them.
    """

    log_odds: np.ndarray | None
    strength: float = 0.0
    missing: str = ""
    chosen: bool = True
    threshold: float | None = None


@dataclass(frozen=True)
class FindingsProbe:
    """A logistic regression for each finding."""

    @property
    def name(self) -> str:
        """What tables call it: "logistic-regression"."""
        return "logistic-regression"

    @property
    def task(self) -> str:
        """The task in results.json: "multi-label-probe"."""
        return MULTI_LABEL_PROBE

    def __call__(self, task: FindingTask) -> LearnedFindings:
        """Choose the strengths on the images that validate, fit on all, and predict the test images."""
        given, test = task.given.features.astype(np.float64), task.test.features.astype(np.float64)
        answers, validates = task.given.data.answers, task.validates()
        found: list[_Learned] = []
        with (
            quietly(),
            progress_bar(answers.shape[1], f"finding ({task.candidate.name})") as bar,
            ThreadPoolExecutor() as pool,
        ):
            for each in pool.map(lambda own: _learn(given, own, validates, test), answers.T):
                found.append(each)
                bar.update(1)
        known = {name: each for name, each in zip(task.given.data.findings, found, strict=True) if each.log_odds is not None}
        unsure = [name for name, each in known.items() if not each.chosen]
        nothing = np.zeros(len(test))
        return LearnedFindings(
            np.stack([nothing if each.log_odds is None else each.log_odds for each in found], axis=1),
            {f: each.missing for f, each in enumerate(found) if each.log_odds is None},
            {f: each.threshold for f, each in enumerate(found) if each.threshold is not None},
            "a fifth of the training images, by a regression on the others",
            {"C": {name: each.strength for name, each in known.items()}},
            (f"too few images to choose C of {', '.join(unsure)}: it is {_USUAL:g}",) if unsure else (),
        )


def _learn(features: np.ndarray, answers: np.ndarray, validates: np.ndarray, test: np.ndarray) -> _Learned:
    """What is learned of one finding. answers: int8 [m]. validates: bool [m]."""
    known = answers >= 0
    features, truth, validates = features[known], answers[known].astype(np.int64), validates[known]
    if missing := why_not_learned(answers):
        return _Learned(None, missing=missing)
    strength, chosen, threshold = _USUAL, False, None
    own, other, tried = truth[~validates], truth[validates], features[validates]
    if len(np.unique(own)) == len(np.unique(other)) == 2:

        def predicted(c: float) -> np.ndarray:
            return fit_predict(features[~validates], own, tried, c, 2)[:, 1]

        def area(strengths: Sequence[float]) -> np.ndarray:
            return np.array([sklearn_metrics().roc_auc_score(other, ranks_of(predicted(c))) for c in strengths])

        strength, chosen = best_strength(area).weight_decay, True
        threshold = youden(other == 1, predicted(strength))
    return _Learned(fit_predict(features, truth, test, strength, 2)[:, 1], strength, chosen=chosen, threshold=threshold)
