"""How long a run is and which learning rate each step has."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from biomedclip_jax.config import OptimizerConfig, Stage


def stage_steps(stages: Sequence[Stage], pairs: int) -> list[int]:
    """Updates in each stage, for a data set of this many pairs; at least one each."""
    return [stage.steps or max(1, round((stage.epochs or 0) * pairs / stage.batch_size)) for stage in stages]


def samples_before(step: int, stages: Sequence[Stage], steps: Sequence[int]) -> int:
    """Pairs that the run has seen when `step` updates are done: the position in the data."""
    seen = 0
    for stage, count in zip(stages, steps, strict=True):
        seen += min(step, count) * stage.batch_size
        step = max(0, step - count)
    return seen


def learning_rate(config: OptimizerConfig, stages: Sequence[Stage], steps: Sequence[int]) -> Callable[[ArrayLike], Array]:
    """step -> learning rate: linear warm-up, then half a cosine or no change, times the stage's factor.

    It runs over all stages that have the run's optimizer, and anew over each that has one of its own. The first update has
    learning_rate / warmup_steps, as in open_clip (`scheduler.py: cosine_lr`).
    """
    ends = np.cumsum(steps)
    own = np.array([stage.optimizer is not None for stage in stages])
    counts = np.asarray(steps)
    # for each stage: the updates of its curve, and how many updates of the run before it are not of its curve
    totals = np.where(own, counts, counts[~own].sum())
    others = np.where(own, ends - counts, np.cumsum(np.where(own, counts, 0)))
    configs = [stage.optimizer or config for stage in stages]
    peaks, floors = ([getattr(each, name) for each in configs] for name in ("learning_rate", "final_learning_rate"))
    warmups = np.array([each.warmup_steps for each in configs])
    falls = [each.schedule == "cosine" for each in configs]
    scales = [stage.learning_rate_scale for stage in stages]
    table = tuple(map(jnp.asarray, (others, totals, warmups, peaks, floors, falls, scales)))

    def rate(step: ArrayLike) -> Array:
        stage = jnp.minimum(jnp.searchsorted(jnp.asarray(ends), jnp.asarray(step), side="right"), len(steps) - 1)
        other, total, warmup, peak, floor, falls, scale = (column[stage] for column in table)
        here = jnp.asarray(step) - other
        progress = jnp.clip((here - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
        share = jnp.where(falls, 0.5 * (1 + jnp.cos(jnp.pi * progress)), 1)
        return scale * jnp.where(here < warmup, peak * (here + 1) / jnp.maximum(warmup, 1), floor + (peak - floor) * share)

    return rate
