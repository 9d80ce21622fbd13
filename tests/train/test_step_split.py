"""Weights, moments and average split over all devices and put together once a step: the same run, however it is saved."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import tiny
from helpers.tiny_step import QUICKLY, ROWS, Way, parameters
from jax import Array, lax

from biomedclip_jax.config import ComputeConfig, TrainConfig
from biomedclip_jax.sharding import put_batch, shard_axes
from biomedclip_jax.train._checkpoint import About, Checkpoints
from biomedclip_jax.train._gradient import loss_and_gradient
from biomedclip_jax.train.optimizer import Flat
from biomedclip_jax.train.state import TrainState, abstract_state, initial_state, optimizer_for
from biomedclip_jax.train.step import make_step

WHOLE, SPLIT = Way(microbatches=2), Way(microbatches=2, fsdp=8, gather="step")


def config_of(way: Way) -> TrainConfig:
    """eps: where the true gradient is zero, as that of keys' biases, Adam would enlarge rounding."""
    return way.config(ema=0.75, clip_norm=0.5, eps=1e-3)


def abstract(way: Way) -> TrainState:
    config = config_of(way)
    return abstract_state(config, 16, optimizer_for(config), way.mesh())


@functools.cache
def compiled(way: Way) -> Any:
    config = config_of(way)
    run = make_step(config, 0, way.mesh(), optimizer_for(config), lambda _: jnp.float32(1e-2))
    return run.lower(abstract(way), put_batch(tiny.batch(ROWS), way.mesh())).compile(QUICKLY)  # type: ignore[attr-defined]


def start(way: Way) -> TrainState:
    state = initial_state(parameters(), config_of(way), optimizer_for(config_of(way)))
    return jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=compiled(way).input_shardings[0][0])(state)


def after(state: TrainState, first: int, steps: int, way: Way) -> TrainState:
    """The state after some more updates; each has a batch of its own."""
    for number in range(first, first + steps):
        state, _ = compiled(way)(state, put_batch(tiny.batch(ROWS, seed=number), way.mesh()))
    return state


def test_several_updates_are_those_of_a_whole_copy_on_each_device() -> None:
    ours, expected = after(start(SPLIT), 0, 4, SPLIT), after(start(WHOLE), 0, 4, WHOLE)
    before: Flat = flatten_dict(parameters(), sep="/")
    found: Flat = flatten_dict(ours.params, sep="/")
    for path, leaf in flatten_dict(expected.params, sep="/").items():
        moved = np.abs(leaf - before[path]).max()
        assert moved > 1e-4, path
        assert np.abs(np.asarray(found[path]) - leaf).max() <= 2e-5 * moved, path
    for x, y in zip(jax.tree.leaves((ours.opt, ours.ema)), jax.tree.leaves((expected.opt, expected.ema)), strict=True):
        assert np.abs(np.asarray(x) - np.asarray(y)).max() <= 2e-5 * np.abs(y).max()


def test_a_device_keeps_its_part_of_matrices_of_their_moments_and_average() -> None:
    axes: Flat = flatten_dict(shard_axes(parameters(), SPLIT.mesh()), sep="/")
    leaves: Flat = flatten_dict(parameters(), sep="/")
    split = sum(x.nbytes for path, x in leaves.items() if axes[path] >= 0)
    assert split > 0.9 * sum(x.nbytes for x in jax.tree.leaves(parameters()))
    whole, parts = (compiled(way).memory_analysis().argument_size_in_bytes for way in (WHOLE, SPLIT))
    assert whole - parts == 4 * split * 7 // 8


def saved(state: TrainState, folder: Path) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    checkpoints.save(int(state.step), state, About(16, ROWS))
    checkpoints.close()
    return Checkpoints(folder, read_only=True)


@pytest.mark.parametrize(("before", "now"), [(WHOLE, SPLIT), (SPLIT, WHOLE)], ids=["split later", "split before"])
def test_a_checkpoint_is_restored_whether_it_was_split_or_not(before: Way, now: Way, tmp_path: Path) -> None:
    state = after(start(before), 0, 1, before)
    again = saved(state, tmp_path).restore(1, abstract(now))
    for x, y, wanted in zip(*map(jax.tree.leaves, (state, again, abstract(now))), strict=True):
        assert np.array_equal(x, y) and y.sharding == wanted.sharding
    assert int(after(again, 1, 1, now).step) == 2


def test_a_split_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    through = after(start(SPLIT), 0, 3, SPLIT)
    again = saved(after(start(SPLIT), 0, 2, SPLIT), tmp_path).restore(2, abstract(SPLIT))
    assert all(map(np.array_equal, jax.tree.leaves(through), jax.tree.leaves(after(again, 2, 1, SPLIT))))


def test_matrices_of_blocks_travel_in_bfloat16_and_their_gradients_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the bytes: seen in what the collectives are given when the step is traced."""
    sent: list[tuple[str, str, int]] = []
    gather, scatter = lax.all_gather, lax.psum_scatter

    def note(kind: str, function: Any) -> Any:
        def noted(x: Array, *args: Any, **options: Any) -> Array:
            sent.append((kind, str(x.dtype), x.ndim))
            return function(x, *args, **options)

        return noted

    monkeypatch.setattr(lax, "all_gather", note("gather", gather))
    monkeypatch.setattr(lax, "psum_scatter", note("scatter", scatter))
    config = dataclasses.replace(config_of(SPLIT), compute=ComputeConfig(dtype="bfloat16"))
    run = loss_and_gradient(config, SPLIT.stage(), SPLIT.mesh())
    jax.eval_shape(run, abstract(SPLIT).params, put_batch(tiny.batch(ROWS), SPLIT.mesh()))
    of_blocks = {each for each in sent if each[2] == 3}
    assert of_blocks == {("gather", "bfloat16", 3), ("scatter", "float32", 3)}
    assert {kind for _, kind, axes in sent if axes == 2} == {"float32"}, "embeddings, heads and tables"
