"""Lengths of stages, learning rates, and the position in the data."""

import dataclasses

import numpy as np
import pytest
from helpers.reference import load_open_clip

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.train.optimizer import learning_rate, samples_before, stage_steps

STAGES = (Stage(10, steps=30), Stage(20, steps=50, learning_rate_scale=0.1), Stage(5, steps=40))
STEPS = [30, 50, 40]
CONFIG = OptimizerConfig(learning_rate=1e-3, warmup_steps=20)


def test_steps_of_a_stage() -> None:
    stages = (Stage(8, epochs=2), Stage(16, epochs=0.5), Stage(64, epochs=0.1), Stage(8, steps=7))
    # 2 x 100 / 8 and 0.5 x 100 / 16, rounded; a stage is never empty
    assert stage_steps(stages, pairs=100) == [25, 3, 1, 7]


def test_warmup_and_cosine() -> None:
    rate = learning_rate(CONFIG, (Stage(10, steps=120),), [120])
    for step, expected in ((0, 1e-3 / 20), (9, 0.5e-3), (19, 1e-3), (20, 1e-3), (70, 0.5e-3), (120, 0.0), (500, 0.0)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-9), step


@pytest.mark.parametrize("warmup", [0, 20])
def test_equal_to_open_clips_schedule(warmup: int) -> None:
    load_open_clip()
    from open_clip_train.scheduler import cosine_lr

    class Optimizer:
        param_groups: tuple = ()

    theirs = cosine_lr(Optimizer(), 1e-3, warmup, 120)
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup)
    ours = learning_rate(config, (Stage(10, steps=120),), [120])(np.arange(120))
    assert np.abs(ours - np.array([theirs(step) for step in range(120)])).max() <= 1e-6 * 1e-3


def test_a_stage_has_its_own_factor() -> None:
    plain = learning_rate(CONFIG, (Stage(10, steps=120),), [120])(np.arange(130))
    staged = learning_rate(CONFIG, STAGES, STEPS)(np.arange(130))
    factor = np.repeat([1, 0.1, 1], [30, 50, 50])  # after the last step the last stage's holds
    assert np.allclose(staged, plain * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (20, 0.0), (20, 2e-4)])
def test_a_straight_line_after_the_warmup(warmup: int, final: float) -> None:
    """Polynomial decay of power 1 (METER): from the peak, right after the warm-up, to the end, and no further."""
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup, schedule="linear", final_learning_rate=final)
    step = np.arange(150)
    left = np.clip((120 - step) / (120 - warmup), 0, 1)
    expected = np.where(step < warmup, 1e-3 * (step + 1) / max(warmup, 1), final + (1e-3 - final) * left)
    rates = learning_rate(config, (Stage(10, steps=120),), [120])(step)
    assert np.abs(rates - expected).max() <= 1e-6 * 1e-3
    staged = learning_rate(config, STAGES, STEPS)(step)
    assert np.allclose(staged, expected * np.repeat([1, 0.1, 1], [30, 50, 70]), rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("warmup", [0, 20])
def test_a_constant_rate_after_the_warmup(warmup: int) -> None:
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup, schedule="constant")
    rates = learning_rate(config, (Stage(10, steps=120),), [120])(np.arange(150))
    expected = np.minimum(np.arange(1, 151) / warmup, 1) if warmup else np.ones(150)
    assert np.abs(rates - 1e-3 * expected).max() <= 1e-6 * 1e-3
    staged = learning_rate(config, STAGES, STEPS)(np.arange(150))
    assert np.allclose(staged, rates * np.repeat([1, 0.1, 1], [30, 50, 70]), rtol=1e-6, atol=0)


def test_a_stage_with_an_optimizer_of_its_own_has_a_curve_of_its_own() -> None:
    """CLEFT's second stage: warm-up and cosine from the start, to a rate above 0; the other stages go on as one run."""
    own = OptimizerConfig(learning_rate=1e-4, final_learning_rate=1e-5, warmup_steps=10, rule="sgd")
    stages = (STAGES[0], dataclasses.replace(STAGES[1], optimizer=own), STAGES[2])
    rates = np.asarray(learning_rate(CONFIG, stages, STEPS)(np.arange(120)))
    shared = np.asarray(learning_rate(CONFIG, (Stage(10, steps=70),), [70])(np.arange(70)))
    assert np.allclose(np.concatenate([rates[:30], rates[80:]]), shared, rtol=1e-6, atol=0)
    here = np.arange(50)
    falling = 1e-5 + 9e-5 * 0.5 * (1 + np.cos(np.pi * (here - 10) / 40))
    assert np.allclose(rates[30:80], 0.1 * np.where(here < 10, 1e-4 * (here + 1) / 10, falling), rtol=1e-5, atol=0)


def test_position_in_the_data() -> None:
    sizes = [stage.batch_size for stage, count in zip(STAGES, STEPS, strict=True) for _ in range(count)]
    assert [samples_before(step, STAGES, STEPS) for step in range(121)] == [0, *np.cumsum(sizes)]
