"""CLIP's own linear probe: logistic regression by L-BFGS on frozen features (Radford et al. 2021, appendix A.3).

At most 1,000 iterations of scikit-learn's solver; the regularisation is the best on the validation images among 97
strengths, eight a decade from 1e-6 to 1e6: seven first, then by halving the distance around the best. Features are
taken as in CLIP's README, behind the projection and not made unit length (the paper takes its ViTs' in front of the
projection).
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.evaluation.probe._search import Found, full_search
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction

_ITERATIONS = 1_000


@contextmanager
def quietly() -> Iterator[None]:
    """One thread a fit, and no warning at the thousandth iteration, where the paper stops, too.

    A matrix product over all cores is slow where they are few or busy (measured: 40 times slower).
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def fit_predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float, classes: int) -> np.ndarray:
    """Logits float64 [n, classes] of `test` [n, E], learned from `train` [m, E] with C = `strength`.

    They are -inf for a class without training images. To be called inside `quietly`, which is entered once for all
    threads.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(train, labels)
    margins = model.decision_function(test)  # of two classes: how far the second is ahead
    found = np.full((len(test), classes), -np.inf)
    found[:, model.classes_] = np.stack([np.zeros_like(margins), margins], axis=1) if margins.ndim == 1 else margins
    return found


def best_strength(score: Callable[[Sequence[float]], np.ndarray]) -> Found:
    """The best of the 97 strengths, which is `weight_decay` of what is found. score: of some of them, the higher the better."""
    return full_search(lambda pairs: score([strength for _, strength in pairs]), learning_rates=(0.0,))


@dataclass(frozen=True)
class LogisticRegressionProbe:
    """CLIP's linear probe as a method of few labels."""

    @property
    def name(self) -> str:
        """The task in results.json and tables: "logistic-regression"."""
        return "logistic-regression"

    def __call__(self, task: FewShot) -> Prediction:
        """Choose the strength on the validation images, fit on all labels, and predict the test images."""
        classes = len(task.text)
        parts = task.given, task.train, task.validation, task.test
        given, train, validation, test = (part.features.astype(np.float64) for part in parts)

        def accuracy(strength: float) -> float:
            rows = fit_predict(train, task.train.labels, validation, strength, classes)
            return float((rows.argmax(axis=1) == task.validation.labels).mean())

        def validated(strengths: Sequence[float]) -> np.ndarray:
            with ThreadPoolExecutor() as pool:
                return np.array(list(pool.map(accuracy, strengths)))

        with quietly():
            found = best_strength(validated)
            logits = fit_predict(given, task.given.labels, test, found.weight_decay, classes)
            unseen = None
            if len(np.unique(task.train.labels)) == classes == 2:
                unseen = fit_predict(train, task.train.labels, validation, found.weight_decay, classes)
        chosen = {"C": found.weight_decay, "validation_accuracy": found.score, "tried": found.tried}
        return Prediction(logits, chosen, validation=unseen)
