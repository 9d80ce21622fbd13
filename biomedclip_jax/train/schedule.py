"""How long a run is and which learning rate each step has."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import jax.numpy as jnp
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
    """step -> learning rate: linear warm-up, then half a cosine to 0 over all stages or no change, times the stage's factor.

    Step 0 has learning_rate / warmup_steps, as in open_clip (`scheduler.py: cosine_lr`).
    """
    total, warmup = sum(steps), config.warmup_steps
    ends = jnp.asarray(list(accumulate(steps)))
    scales = jnp.asarray([stage.learning_rate_scale for stage in stages], jnp.float32)

    def rate(step: ArrayLike) -> Array:
        step = jnp.asarray(step)
        rising = (step + 1) / max(warmup, 1)
        progress = (step - warmup) / max(total - warmup, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))) if config.schedule == "cosine" else 1.0
        stage = jnp.minimum(jnp.searchsorted(ends, step, side="right"), len(steps) - 1)
        return config.learning_rate * scales[stage] * jnp.where(step < warmup, rising, falling)

    return rate
