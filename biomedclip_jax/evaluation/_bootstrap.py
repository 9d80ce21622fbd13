"""How sure a number is: the metrics on resamples of the images, and the differences of models on the same resamples.

A resample draws n of the n images with replacement: how many images a class has is chance, too. Where a class is
rare, less than `RARE` images, it draws class by class instead, or some resamples would lack the class, and their
numbers be about others. Where images belong to groups, such as patients, whole groups are drawn: two images of one
patient are less than two of two. A resample is a whole-number weight of each image, and every metric here is a
function of weighted counts: no image is scored twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.evaluation._metrics import (
    BINS,
    LOWER_IS_BETTER,
    calibration_bins,
    in_top_5,
    ranks,
    ranks_of,
    scored_classes,
    scored_findings,
    softmax,
)

Samples = Mapping[str, np.ndarray]  # metric -> its value on each resample, float64 [R]; NaN where it has none

RARE = 30  # images of a class
_WEIGHTS = 2**22  # weights held at once: 32 MiB


def bootstrap(
    labels: np.ndarray,
    models: Sequence[np.ndarray],
    resamples: int = 1_000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> list[Samples]:
    """The metrics of `classification_metrics` on each resample, for each model; resample r is the same for all models.

    labels: int [n]. models: the logits of each, float64 [n, C]. groups: int [n], from 0 on, of images that are drawn
    together.
    """
    counted = [_Counted(labels, logits) for logits in models]
    parts: list[list[Samples]] = [[] for _ in models]
    strata = _strata(labels) if groups is None else _strata_of_groups(labels, groups)
    for weights in _weights(strata, resamples, seed):
        weights = weights if groups is None else weights[groups]
        for part, each in zip(parts, counted, strict=True):
            part.append(each.metrics(weights))
    return [{name: np.concatenate([chunk[name] for chunk in part]) for name in part[0]} for part in parts]


@dataclass(frozen=True)
class FindingSamples:
    """What one model reaches on each resample of images that may have several findings.

    means: "mean_auroc" and "mean_average_precision" over the findings that have a number, float64 [R].
    auroc, average_precision: of each finding, float64 [F, R]; NaN for a finding that is never, or always, there.
    """

    means: Samples
    auroc: np.ndarray
    average_precision: np.ndarray


def bootstrap_findings(
    answers: np.ndarray, models: Sequence[np.ndarray], resamples: int = 1_000, seed: int = 0
) -> list[FindingSamples]:
    """AUROC and average precision of each finding on each resample, for each model; resamples are the same for all.

    answers: int8 [n, F], 1, 0 or -1, which counts for this finding's numbers in none. models: scores [n, F].
    A resample draws all findings of an image together. A finding that less than `RARE` images have, or have not, has
    resamples of its own beside, drawn in both groups apart; the means are made of the common ones.
    """
    known, scored = answers >= 0, scored_findings(answers)
    rankings = [
        {f: _Ranking(answers[known[:, f], f] == 1, ranks_of(scores[known[:, f], f])) for f in scored} for scores in models
    ]
    found = [np.full((2, answers.shape[1], resamples), np.nan) for _ in models]
    start = 0
    for weights in _weights([np.arange(len(answers))], resamples, seed):
        part = slice(start, start := start + weights.shape[1])
        for f in scored:
            own = weights[known[:, f]]
            for values, ranking in zip(found, rankings, strict=True):
                values[:, f, part] = ranking[f].metrics(own)
    means = [values[:, scored].mean(axis=1) if scored else values[:, 0] for values in found]
    for f in scored:
        groups = _strata(answers[known[:, f], f].astype(np.int64))
        if len(groups) == 1:
            continue
        start = 0
        for weights in _weights(groups, resamples, seed):
            part = slice(start, start := start + weights.shape[1])
            for values, ranking in zip(found, rankings, strict=True):
                values[:, f, part] = ranking[f].metrics(weights)
    names = ("mean_auroc", "mean_average_precision")
    return [FindingSamples(dict(zip(names, mean, strict=True)), *values) for mean, values in zip(means, found, strict=True)]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of a metric over the resamples where it has a value."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_ranks(ranks: Mapping[str, np.ndarray], resamples: int = 1_000, seed: int = 0) -> Samples:
    """The metrics of retrieval on resamples of the queries, the same resamples for every model with as many queries.

    ranks: of the right answer to each query, int [queries], by direction; 0 is the best. Metrics are
    DIRECTION_recall_at_1, 5 and 10, DIRECTION_mean_reciprocal_rank and DIRECTION_median_rank.
    """
    found: dict[str, np.ndarray] = {}
    for direction, rank in ranks.items():
        rows = {f"recall_at_{k}": (rank < k).astype(np.float64) for k in (1, 5, 10)}
        rows["mean_reciprocal_rank"] = 1 / (1.0 + rank)
        each = np.stack(list(rows.values()))
        order = np.argsort(rank, kind="stable")
        means, medians = [], []
        for weights in _weights([np.arange(len(rank))], resamples, seed):
            means.append(each @ weights / len(rank))
            medians.append(_medians(rank[order], weights[order]))
        samples = np.concatenate(means, axis=1)
        found |= {f"{direction}_{name}": values for name, values in zip(rows, samples, strict=True)}
        found[f"{direction}_median_rank"] = np.concatenate(medians)
    return found


def bootstrap_means(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]], groups: np.ndarray, resamples: int = 1_000, seed: int = 0
) -> Samples:
    """Means on resamples of whole groups, such as the images that questions are about; the same resamples for all columns.

    columns: by name, a value of each of n items, and bool [n], which of them the mean is of. groups: int [n], from 0 on.
    """
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, values * own, count) for values, own in columns.values()])
    sizes = np.stack([np.bincount(groups, own, count) for _, own in columns.values()])
    parts = []
    for weights in _weights([np.arange(count)], resamples, seed):
        with np.errstate(invalid="ignore"):  # a resample without any of a column's items has no mean
            parts.append((sums @ weights) / (sizes @ weights))
    return dict(zip(columns, np.concatenate(parts, axis=1), strict=True))


def _medians(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The median, 1 is the best rank, of ranks in rising order [n] for weights [n, r] whose sums are n."""
    n, reached = len(ranks), np.cumsum(weights, axis=0)
    middle = [ranks[(reached > position).argmax(axis=0)] for position in ((n - 1) // 2, n // 2)]
    return (middle[0] + middle[1]) / 2 + 1


def differences(
    own: Samples, other: Samples, own_metrics: Mapping[str, float], other_metrics: Mapping[str, float]
) -> dict[str, list[float]]:
    """How two models differ in each metric, on the same resamples.

    Returns metric -> [own less other, the low and the high end of its 95 % interval, share of resamples in which own is
    better]. An equal number is no better. Smaller is better for the metrics of `LOWER_IS_BETTER`.
    """
    found = {}
    for name in own.keys() & other.keys() & own_metrics.keys() & other_metrics.keys():
        difference = own[name] - other[name]
        difference = difference[np.isfinite(difference)]
        if len(difference):
            better = difference < 0 if name in LOWER_IS_BETTER else difference > 0
            found[name] = [own_metrics[name] - other_metrics[name], *interval(difference), float(better.mean())]
    return {name: found[name] for name in own_metrics if name in found}


def _strata(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of the images that are drawn from each other: all of them, or those of each class."""
    counts = np.bincount(labels)
    if counts[counts > 0].min() >= RARE:
        return [np.arange(len(labels))]
    return [np.flatnonzero(labels == c) for c in np.flatnonzero(counts)]


def of_each_class(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How many groups have images of each class, int [C]."""
    return np.bincount(np.unique(np.stack([labels, groups]), axis=1)[0])


def _strata_of_groups(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """The groups that are drawn from each other: all of them, or where a class is rare those of the same classes."""
    counts = of_each_class(labels, groups)
    if counts[counts > 0].min() >= RARE:
        return [np.arange(groups.max() + 1)]
    classes: list[set[int]] = [set() for _ in range(groups.max() + 1)]
    for group, label in zip(groups.tolist(), labels.tolist(), strict=True):
        classes[group].add(label)
    alike: dict[tuple[int, ...], list[int]] = {}
    for group, own in enumerate(classes):
        alike.setdefault(tuple(sorted(own)), []).append(group)
    return [np.array(members) for members in alike.values()]


def _weights(strata: Sequence[np.ndarray], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """float64 [n, r]: how often each of n images is in each of r resamples; together `resamples` of them."""
    generator = np.random.default_rng(seed)
    n = sum(map(len, strata))
    at_once = max(1, _WEIGHTS // n)
    for start in range(0, resamples, at_once):
        drawn = np.empty((n, min(at_once, resamples - start)))
        for r in range(drawn.shape[1]):
            for own in strata:
                drawn[own, r] = np.bincount(generator.integers(0, len(own), len(own)), minlength=len(own))
        yield drawn


class _Counted:
    """What the metrics of weighted images need to know of one model's answers."""

    def __init__(self, labels: np.ndarray, logits: np.ndarray):
        from scipy.sparse import csr_array  # comes with scikit-learn

        n, self._classes = logits.shape
        predicted, confidence = logits.argmax(axis=1), softmax(logits).max(axis=1)
        # each image adds to three sums: of its cell of the confusion matrix, of its bin's gap, and of the top five
        columns = [labels * self._classes + predicted, self._classes**2 + calibration_bins(confidence)]
        values = [np.ones(n), (predicted == labels) - confidence]
        self._width = self._classes**2 + BINS
        self._has_top_5 = self._classes > 5
        if self._has_top_5:
            columns.append(np.full(n, self._width))
            values.append(in_top_5(labels, logits).astype(np.float64))
            self._width += 1
        cells = (np.concatenate(columns), np.tile(np.arange(n), len(columns)))
        self._sums = csr_array((np.concatenate(values), cells), shape=(self._width, n))
        scored = scored_classes(labels, self._classes)
        ranked = ranks(logits) if scored else logits
        self._rankings = [_Ranking(labels == c, ranked[:, c]) for c in scored]

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric, [r], for weights [n, r]."""
        n, cells = weights.sum(axis=0), self._classes**2  # drawn groups may be larger or smaller than those left out
        sums = self._sums @ weights
        confusion = sums[:cells].reshape(self._classes, self._classes, -1)
        right = np.einsum("ccr->cr", confusion)
        present, answered = confusion.sum(axis=1), confusion.sum(axis=0)
        with np.errstate(invalid="ignore"):
            found = {
                "accuracy": right.sum(axis=0) / n,
                "balanced_accuracy": _mean(right / present),
                "macro_f1": _mean(2 * right / (present + answered)),
                "expected_calibration_error": np.abs(sums[cells : cells + BINS]).sum(axis=0) / n,
            }
        if self._has_top_5:
            found["top_5_accuracy"] = sums[-1] / n
        if self._rankings:
            auroc, precision = zip(*(ranking.metrics(weights) for ranking in self._rankings), strict=True)
            found |= {"auroc": _mean(np.stack(auroc)), "average_precision": _mean(np.stack(precision))}
        return found


class _Ranking:
    """One class against the rest: its images should have the higher scores."""

    def __init__(self, positive: np.ndarray, scores: np.ndarray):
        self._order = np.argsort(scores, kind="stable")
        self._positive = positive[self._order].astype(np.float64)[:, None]
        self._starts = np.flatnonzero(np.diff(scores[self._order], prepend=-np.inf))  # of images with equal scores

    def metrics(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision, each [r], for weights [n, r]; NaN without a positive or without a negative image."""
        weights = weights[self._order]
        positive = weights * self._positive
        negative = weights - positive
        if len(self._starts) < len(weights):
            positive, negative = (np.add.reduceat(each, self._starts, axis=0) for each in (positive, negative))
        of_positive, of_negative = positive.sum(axis=0), negative.sum(axis=0)
        below = np.cumsum(negative, axis=0)
        # a negative image of the same score counts half
        won = np.einsum("gr,gr->r", positive, below) - np.einsum("gr,gr->r", positive, negative) / 2
        found = of_positive - np.cumsum(positive, axis=0) + positive  # with this score or a higher one
        answered = found + of_negative - below + negative
        precision = np.divide(found, answered, out=np.zeros_like(found), where=answered > 0)
        both = (of_positive > 0) & (of_negative > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.where(both, won / (of_positive * of_negative), np.nan)
            average = np.where(both, np.einsum("gr,gr->r", positive, precision) / of_positive, np.nan)
        return auroc, average


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the classes (rows) that have a value; NaN where none has."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
