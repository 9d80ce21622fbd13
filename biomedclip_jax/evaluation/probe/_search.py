"""Which learning rate and weight decay: ELEVATER's automatic search, and a smaller one.

Pairs are proposed in rounds; those of a round do not depend on each other's scores, so that all can be trained at
once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Search = Literal["none", "small", "full"]
Score = Callable[[Sequence[tuple[float, float]]], np.ndarray]  # (learning rate, weight decay) pairs -> validation scores

LEARNING_RATES: tuple[float, ...] = tuple(np.logspace(-6, -1, 6).tolist())
STRENGTHS: tuple[float, ...] = tuple(np.logspace(-6, 6, 97).tolist())  # eight a decade
_COARSE = range(0, 97, 16)


@dataclass(frozen=True)
class Found:
    """The best pair of settings, its score on the validation images, and how many pairs were tried."""

    learning_rate: float
    weight_decay: float
    score: float
    tried: int

    def settings(self) -> dict[str, float]:
        """The settings as they are recorded in a result."""
        names = ("learning_rate", "weight_decay", "validation_accuracy", "tried")
        return dict(zip(names, (self.learning_rate, self.weight_decay, self.score, self.tried), strict=True))


def full_search(score: Score, learning_rates: Sequence[float] = LEARNING_RATES) -> Found:
    """ELEVATER's search (`full_model_finetune.py`); with one learning rate, that of CLIP's paper (A.3) for its strength.

    For each learning rate: seven weight decays from 1e-6 to 1e6, then left and right of the best at a distance of 8, 4, 2
    and 1 of the 97 steps. The learning rates are searched side by side, each with its own best. Of equal scores the first
    counts.
    """
    rates = range(len(learning_rates))
    known: dict[tuple[int, int], float] = {}

    def visit(pairs: Sequence[tuple[int, int]]) -> None:
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if new:
            scores = score([(learning_rates[i], STRENGTHS[j]) for i, j in new])
            known.update(zip(new, np.nan_to_num(scores, nan=0.0).tolist(), strict=True))

    visit([(i, j) for i in rates for j in _COARSE])
    # where all fail (score 0), ELEVATER goes on from the last one
    peaks = [_better([(i, j) for j in _COARSE], known) or (i, len(STRENGTHS) - 1) for i in rates]
    for step in (8, 4, 2, 1):
        around = [
            [peak, (i, max(peak[1] - step, 0)), (i, min(peak[1] + step, 96))] for i, peak in zip(rates, peaks, strict=True)
        ]
        visit([pair for pairs in around for pair in pairs])
        peaks = [_better(pairs, known) or pairs[0] for pairs in around]
    best = _better(peaks, known) or peaks[0]
    return Found(learning_rates[best[0]], STRENGTHS[best[1]], known[best], len(known))


def small_search(score: Score) -> Found:
    """A search of eight pairs, for what takes long to train.

    The six learning rates are tried with the least weight decay, then two more decays with the best of them.
    """
    pairs = [(rate, STRENGTHS[0]) for rate in LEARNING_RATES]
    scores = np.nan_to_num(score(pairs), nan=0.0)
    best = int(scores.argmax())
    more = [(pairs[best][0], STRENGTHS[j]) for j in (16, 32)]
    pairs, scores = [pairs[best], *more], np.concatenate([scores[best : best + 1], np.nan_to_num(score(more), nan=0.0)])
    best = int(scores.argmax())
    return Found(*pairs[best], float(scores[best]), len(LEARNING_RATES) + len(more))


def _better(pairs: Sequence[tuple[int, int]], known: dict[tuple[int, int], float]) -> tuple[int, int] | None:
    """The first of the best pairs; None where none scores above 0."""
    best = max(pairs, key=lambda pair: known[pair])  # max takes the first of equals
    return best if known[best] > 0 else None
