"""WiSE-FT (arXiv 2109.01903): weights between the start and what was trained, and which of them is handed over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

SHARES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # of the trained weights; the rest are the starting weights

Params = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A mixture and what it is worth. share: of the trained weights; 0 is the start. keep: the score of the forgetting
    check on the rows for choices, None without one.
    """

    share: float
    loss: float
    score: float
    keep: float | None = None


def mixed(start: Params, trained: Params, share: float) -> Params:
    """`share` of the trained weights and the rest of the starting ones, each in float32."""
    if share in (0.0, 1.0):
        return trained if share else start
    return jax.tree.map(
        lambda a, b: np.asarray((1 - share) * np.asarray(a, np.float64) + share * np.asarray(b, np.float64), np.float32),
        start,
        trained,
    )


def tried_mixtures(judge: Callable[[float], Tried]) -> list[Tried]:
    """The start and each mixture, judged one after another; the start comes first."""
    return [judge(share) for share in (0.0, *SHARES)]


def chosen(tried: Sequence[Tried], max_forgetting: float) -> Tried:
    """The mixture with the lowest loss among those whose score is not below that of the start, and which do not forget
    more than is allowed; the start if there is none.

    Of equal losses the one nearest to the start is taken.
    """
    start = tried[0]
    allowed = [
        each
        for each in tried
        if each.score >= start.score and (each.keep is None or start.keep is None or each.keep >= start.keep - max_forgetting)
    ]
    return min(allowed, key=lambda each: (each.loss, each.share))
