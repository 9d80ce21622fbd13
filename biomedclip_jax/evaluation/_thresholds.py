"""From which probability on an answer counts as yes, and how sensitive and specific it is then.

A threshold is stated beforehand, or chosen on images that are not tested: the one with the largest sum of sensitivity
and specificity there (Youden's index).
"""

from typing import Any

import numpy as np

from biomedclip_jax.evaluation._intervals import wilson

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


def sensitivity_specificity(truth: np.ndarray, log_odds: np.ndarray, threshold: float) -> dict[str, Any]:
    """Both, with Wilson's intervals, where log-odds of `threshold` or more count as yes; those that exist.

    truth: bool [n]. Keys: sensitivity, sensitivity_interval, specificity, specificity_interval.
    """
    answered = log_odds >= threshold
    found: dict[str, Any] = {}
    for name, side, right in (("sensitivity", truth, answered), ("specificity", ~truth, ~answered)):
        if count := int(side.sum()):
            of_them = int(right[side].sum())
            found |= {name: of_them / count, f"{name}_interval": wilson(of_them, count)}
    return found
