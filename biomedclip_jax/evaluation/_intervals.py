"""The 95 % interval of each metric, by the method that suits it, or the reason why too little was measured for one.

Shares (accuracy, top-5 accuracy, recall at k): Wilson's score interval, which is no single point at 0 or 1 as the
bootstrap's is. Balanced accuracy: from Wilson's intervals of the classes' recalls, by the method of variance estimates
recovery (Zou and Donner 2008). All others: the bootstrap's, where each class has `FEWEST` images or more.
"""

import math

import numpy as np

from biomedclip_jax.evaluation._bootstrap import Samples, interval, of_each_class
from biomedclip_jax.evaluation._metrics import in_top_5

# Of 300 simulated studies of 200 images of one class and m of the other, so many had a 95 % interval that held the true
# AUROC, 0.7 and 0.9: 56 and 50 % for m = 2, 85 and 77 % for m = 5, 93 and 86 % for m = 10, 93 and 95 % for m = 30.
FEWEST = 10
TOO_FEW, ALIKE = "too few to say", "every resample the same"
_OF_CLASSES = ("macro_f1", "auroc", "average_precision")  # each class counts as much as any other, however rare
_Z = 1.959963984540054


def wilson(count: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share, `count` of `n` (1 or more)."""
    share, square = count / n, _Z**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    # at the ends the formula gives 0 and 1, but for rounding
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def balanced_interval(right: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean recall of classes, from how many of the n images of each (1 or more) are right."""
    share = right / n
    low, high = np.array([wilson(int(a), int(b)) for a, b in zip(right, n, strict=True)]).T
    mean, classes = share.mean(), len(n)
    below, above = (float(np.sqrt(np.square(share - end).sum()) / classes) for end in (low, high))
    return max(0.0, float(mean) - below), min(1.0, float(mean) + above)


def interval_over_groups(values: np.ndarray, groups: int) -> tuple[float, float] | str:
    """The 95 % interval of a metric from its resamples of so many whole groups, or the reason why it has none."""
    if groups < FEWEST:
        return TOO_FEW
    low, high = interval(values)
    return ALIKE if low == high else (low, high)


def classification_intervals(
    labels: np.ndarray, scores: np.ndarray, samples: Samples, groups: np.ndarray | None = None
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """metric -> interval, and metric -> why it has none, of the metrics of `classification_metrics`.

    labels: int [n]. scores: [n, C], highest for the answer. samples: of `bootstrap` on both. groups: int [n], see there:
    then all intervals are the bootstrap's, because Wilson's takes images for independent.
    """
    right = scores.argmax(axis=1) == labels
    counts = np.bincount(labels) if groups is None else of_each_class(labels, groups)
    occur = counts > 0
    found: dict[str, tuple[float, float]] = {}
    if groups is None:
        found["accuracy"] = wilson(int(right.sum()), len(right))
        found["balanced_accuracy"] = balanced_interval(np.bincount(labels, right)[occur], counts[occur])
        if "top_5_accuracy" in samples:
            found["top_5_accuracy"] = wilson(int(in_top_5(labels, scores).sum()), len(right))
    missing: dict[str, str] = {}
    for name, values in samples.items():
        if name in found:
            continue
        if (name in _OF_CLASSES or groups is not None) and counts[occur].min() < FEWEST:
            missing[name] = TOO_FEW
        elif np.isfinite(values).any():
            found[name] = interval(values)
            if found[name][0] == found[name][1]:
                missing[name] = ALIKE
                del found[name]
    return {name: found[name] for name in samples if name in found}, missing
