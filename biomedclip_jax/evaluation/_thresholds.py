"""From which probability on an answer counts as yes, and how sensitive and specific it is then.

A threshold is stated beforehand, or chosen on images that are not tested: the one with the largest sum of sensitivity
and specificity there (Youden's index).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from biomedclip_jax.evaluation._bootstrap import bootstrap_shares
from biomedclip_jax.evaluation._intervals import interval_over_groups, wilson

THRESHOLDS = (0.5,)  # where none is stated
CHOSEN = "chosen"  # the key of the one that was chosen, beside those stated


def log_odds_of(probability: float) -> float:
    """The log-odds of a probability above 0 and below 1."""
    return float(np.log(probability / (1 - probability)))


def youden(truth: np.ndarray, log_odds: np.ndarray) -> float | None:
    """The log-odds from which on to say yes, with the largest sensitivity plus specificity on these images.

    truth: bool [n]. log_odds: float64 [n]. Half way between two images; of equal ones the lowest. None where all images
    are of one kind, or no threshold does better than the same answer for all.
    """
    scores, position = np.unique(np.round(log_odds, 10), return_inverse=True)  # a model's numbers are not as fine
    yes = np.bincount(position, truth, len(scores))
    no = np.bincount(position, ~truth, len(scores))
    if not yes.sum() or not no.sum() or len(scores) < 2:
        return None
    # between score i and score i + 1: what is above is answered with yes
    index = 1 - np.cumsum(yes)[:-1] / yes.sum() + np.cumsum(no)[:-1] / no.sum()
    best = int(np.round(index, 12).argmax())
    return float(scores[best] + scores[best + 1]) / 2 if index[best] > 1 else None


@dataclass(frozen=True)
class Groups:
    """What images are drawn with for intervals over groups: their groups, int [n], and the bootstrap's resamples and seed."""

    own: np.ndarray
    resamples: int
    seed: int

    def of(self, chosen: np.ndarray) -> "Groups":
        """Those of some of the images."""
        return replace(self, own=self.own[chosen])


def sensitivity_specificity(
    truth: np.ndarray, log_odds: np.ndarray, threshold: float, groups: Groups | None = None
) -> dict[str, Any]:
    """Both, with intervals, where log-odds of `threshold` or more count as yes; those that exist.

    truth: bool [n]. Keys: sensitivity, sensitivity_interval, specificity, specificity_interval. Intervals are Wilson's,
    over groups the bootstrap's; where there is none, ..._no_interval says why.
    """
    answered = log_odds >= threshold
    found: dict[str, Any] = {}
    for name, side, right in (("sensitivity", truth, answered), ("specificity", ~truth, ~answered)):
        if not (count := int(side.sum())):
            continue
        of_them = int(right[side].sum())
        found[name] = of_them / count
        if groups is None:
            found[f"{name}_interval"] = wilson(of_them, count)
        else:
            shares = bootstrap_shares(side, right, groups.own, groups.resamples, groups.seed)
            ends = interval_over_groups(shares, len(np.unique(groups.own[side])))
            found[f"{name}_no_interval" if isinstance(ends, str) else f"{name}_interval"] = ends
    return found


def of_second_class(
    labels: np.ndarray,
    logits: np.ndarray,
    thresholds: Sequence[float],
    chosen: float | None = None,
    groups: Groups | None = None,
) -> dict[str, dict[str, Any]]:
    """Sensitivity and specificity for the second of two classes, by threshold of its probability.

    labels: int [n]. logits: [n, 2]. chosen: log-odds that were chosen on other images, under `CHOSEN` with their
    probability, "threshold". The values are those of `sensitivity_specificity`.
    """
    truth, log_odds = labels == 1, logits[:, 1] - logits[:, 0]
    found = {f"{each:g}": sensitivity_specificity(truth, log_odds, log_odds_of(each), groups) for each in thresholds}
    if chosen is not None:
        own = sensitivity_specificity(truth, log_odds, chosen, groups)
        found[CHOSEN] = {"threshold": probability_of(chosen)} | own
    return found


def probability_of(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    small = float(np.exp(-abs(log_odds)))
    return (1.0 if log_odds >= 0 else small) / (1 + small)
