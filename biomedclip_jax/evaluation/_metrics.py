"""How good scores of classes are: scikit-learn's metrics, calibration, and what the best constant answer reaches."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from biomedclip_jax.errors import UserError

BINS = 15
LOWER_IS_BETTER = frozenset({"expected_calibration_error", "image_to_text_median_rank", "text_to_image_median_rank"})
_TOP = 5


def classification_metrics(labels: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n C"]) -> dict[str, float]:
    """How good answers are, as fractions, by scikit-learn's functions and defaults.

    logits: float64; -inf for a class that cannot be the answer. Their softmax are the probabilities of the classes.
    accuracy; balanced_accuracy: mean recall of the classes that occur in `labels`; macro_f1: mean F1 of the classes that
    occur in `labels` or are answered; auroc and average_precision: of the last class if there are two, else the mean over
    the classes that occur of each against the rest, where `log_odds` rank the images; top_5_accuracy: of six classes or
    more; expected_calibration_error: see `Calibration`. What has no value is left out: auroc and average_precision where
    all labels are the same.
    Raises UserError for no images, for numbers that are not finite, and where scikit-learn is not installed.
    """
    _check(labels, logits)
    sklearn = sklearn_metrics()
    predicted = logits.argmax(axis=1)
    found: dict[str, Any] = {}
    with _no_word_of_absent_classes():
        found["accuracy"] = sklearn.accuracy_score(labels, predicted)
        found["balanced_accuracy"] = sklearn.balanced_accuracy_score(labels, predicted)
        found["macro_f1"] = sklearn.f1_score(labels, predicted, average="macro", zero_division=0)
    scored = scored_classes(labels, logits.shape[1])
    if scored:
        ranked = ranks(logits)
        sides = [(labels == c, ranked[:, c]) for c in scored]
        found["auroc"] = np.mean([sklearn.roc_auc_score(*side) for side in sides])
        found["average_precision"] = np.mean([sklearn.average_precision_score(*side) for side in sides])
    if logits.shape[1] > _TOP:
        found["top_5_accuracy"] = in_top_5(labels, logits).mean()
    found["expected_calibration_error"] = Calibration.of(labels, softmax(logits)).expected_error
    return {name: float(value) for name, value in found.items()}


def majority_metrics(labels: Int[np.ndarray, " n"]) -> dict[str, float]:
    """What always answering the most frequent class reaches: majority_accuracy, _balanced_accuracy and _macro_f1."""
    sklearn = sklearn_metrics()
    constant = np.full_like(labels, np.bincount(labels).argmax())
    with _no_word_of_absent_classes():
        return {
            "majority_accuracy": float(sklearn.accuracy_score(labels, constant)),
            "majority_balanced_accuracy": float(sklearn.balanced_accuracy_score(labels, constant)),
            "majority_macro_f1": float(sklearn.f1_score(labels, constant, average="macro", zero_division=0)),
        }


def metrics_per_class(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """How well each class is recognised: n (its images), precision, recall and f1, by class.

    Precision is None if the class is never answered, recall if it does not occur, f1 if neither.
    """
    confusion = confusion_counts(labels, predicted, len(classes))
    found: dict[str, dict[str, float | None]] = {}
    for c, name in enumerate(classes):
        right, answered, present = int(confusion[c, c]), int(confusion[:, c].sum()), int(confusion[c].sum())
        found[name] = {
            "n": present,
            "precision": right / answered if answered else None,
            "recall": right / present if present else None,
            "f1": 2 * right / (answered + present) if answered + present else None,
        }
    return found


def confusion_counts(labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: int) -> Int[np.ndarray, "C C"]:
    """How often each class was given each answer: rows are true classes, columns what was answered."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """Confidence, the probability of the answer, against how often the answer is right, in `BINS` bins of equal width.

    Bin b holds confidences in (b / BINS, (b + 1) / BINS]. counts: int64 [BINS]. confidence, accuracy: means,
    float64 [BINS], NaN in an empty bin. Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @staticmethod
    def of(labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n C"]) -> "Calibration":
        """The calibration of answers, by their probabilities and the true class indices."""
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        bins = calibration_bins(confidence)
        counts = np.bincount(bins, minlength=BINS)
        with np.errstate(invalid="ignore"):
            return Calibration(
                counts,
                np.bincount(bins, confidence, BINS) / counts,
                np.bincount(bins, right, BINS) / counts,
            )

    @property
    def expected_error(self) -> float:
        """The mean over images of |accuracy - confidence| of their bin."""
        used = self.counts > 0
        gap = np.abs(self.accuracy[used] - self.confidence[used])
        return float((self.counts[used] * gap).sum() / self.counts.sum())


def calibration_bins(confidence: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The bin of each confidence, from 0 to BINS - 1."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def scored_classes(labels: Int[np.ndarray, " n"], classes: int) -> list[int]:
    """The classes whose ranking AUROC and average precision measure."""
    present = np.unique(labels).tolist()
    if len(present) < 2:
        return []
    return [1] if classes == 2 else present


def scored_findings(answers: Int[np.ndarray, "n F"]) -> list[int]:
    """The findings that some of the images have, and some have not; answers: 1, 0, or -1 where it does not count."""
    return np.flatnonzero((answers == 1).any(axis=0) & (answers == 0).any(axis=0)).tolist()


def log_odds(logits: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """How much each class is ahead of all others together: ln(p / (1 - p)) of its probability, float64 [n, C].

    Of the logits themselves: a probability that has become 1 or 0 no longer tells one image from another.
    """
    best = logits.argmax(axis=1)[:, None]
    top = np.take_along_axis(logits, best, axis=1)
    others = logits.astype(np.float64)
    np.put_along_axis(others, best, -np.inf, axis=1)
    second = others.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # where every other class is -inf
        powers = np.exp(others - top)
        found = logits - (top + np.log1p(np.maximum(powers.sum(axis=1, keepdims=True) - powers, 0)))
        ahead = top - (second + np.log(np.exp(others - second).sum(axis=1, keepdims=True)))
    np.put_along_axis(found, best, np.where(np.isneginf(second), np.inf, ahead), axis=1)
    return found


def ranks(logits: Float[np.ndarray, "n C"]) -> Int[np.ndarray, "n C"]:
    """The rank of each image among all by each class's `log_odds`, from 0; those that are equal, to 1e-10, share one."""
    return np.stack([ranks_of(column) for column in log_odds(logits).T], axis=1)


def ranks_of(scores: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The rank of each image among all by one score, from 0; those that are equal, to 1e-10, share one."""
    return np.unique(np.round(scores.astype(np.float64), 10), return_inverse=True)[1]  # a model's numbers are not as fine


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores, over the last axis, in float64."""
    scores = scores.astype(np.float64)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def in_top_5(labels: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n C"]) -> Bool[np.ndarray, " n"]:
    """Whether the right class is among the five most probable.

    Of equal ones the later class comes first, as in scikit-learn's `top_k_accuracy_score`.
    """
    best = np.argsort(logits, axis=1, kind="stable")[:, -_TOP:]
    return (best == labels[:, None]).any(axis=1)


def sklearn_metrics() -> ModuleType:
    """The module `sklearn.metrics`, imported only when something is measured. UserError if it is not installed."""
    try:
        import sklearn.metrics
    except ImportError as error:
        raise UserError(f"evaluation needs scikit-learn ({error}): pip install 'biomedclip_jax[evaluate]'") from error
    return sklearn.metrics


def _check(labels: np.ndarray, logits: np.ndarray) -> None:
    if not len(labels):
        raise UserError("there is no image to measure anything on")
    broken = ~np.isfinite(logits.max(axis=1))  # the maximum of a row with NaN is NaN
    if broken.any():
        raise UserError(f"the scores of image {int(broken.argmax())} are not finite; is the model, or its input, broken?")


@contextmanager
def _no_word_of_absent_classes() -> Iterator[None]:
    """Silence scikit-learn's warnings of classes that do not occur; `classification_metrics` says what counts then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", message="A single label was found")
        yield
