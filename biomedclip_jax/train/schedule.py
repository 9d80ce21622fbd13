"""How long a run is and which learning rate each step has."""

from collections.abc import Sequence

import numpy as np
import optax

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


def learning_rate(config: OptimizerConfig, stages: Sequence[Stage], steps: Sequence[int]) -> optax.Schedule:
    """step -> learning rate: linear warm-up, then half a cosine or no change, times the stage's factor.

    One curve runs over all stages that have the run's optimizer; each stage with an optimizer of its own has its own curve.
    The first update has learning_rate / warmup_steps, as in open_clip (`scheduler.py: cosine_lr`).
    """
    shared = sum(count for stage, count in zip(stages, steps, strict=True) if stage.optimizer is None)
    curves, done = [], 0
    for stage, count in zip(stages, steps, strict=True):
        if stage.optimizer is None:
            curves.append(_scaled(_curve(config, shared), stage.learning_rate_scale, done))
            done += count
        else:
            curves.append(_scaled(_curve(stage.optimizer, count), stage.learning_rate_scale, 0))
    return optax.join_schedules(curves, list(np.cumsum(steps)[:-1]))


def _curve(config: OptimizerConfig, total: int) -> optax.Schedule:
    """Warm-up and fall over `total` updates."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after = optax.constant_schedule(peak)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(total - warmup, 1), config.final_learning_rate / peak)
    if warmup == 0:
        return after
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1) if warmup > 1 else optax.constant_schedule(peak)
    return optax.join_schedules([rise, after], [warmup])


def _scaled(curve: optax.Schedule, factor: float, start: int) -> optax.Schedule:
    """The curve from its update `start` on, times a factor."""
    return lambda step: factor * curve(step + start)
