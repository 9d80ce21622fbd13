"""The small trainer of probes, learned prompts and fine-tuning: shuffled batches and updates by optax.

A method says what its loss is, which optax optimizer makes it smaller, and in which order images are seen. The trainer
of whole models, with its checkpoints and sharded optimizer, is `biomedclip_jax.train`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import optax
from jax import Array, lax

Tree = Any  # of arrays
Rate = float | Array | optax.Schedule
# (params, statistics, batch) -> ((loss, new statistics), gradients), as `jax.value_and_grad(..., has_aux=True)` gives it
Gradient = Callable[[Tree, Tree, Any], tuple[tuple[Array, Tree], Tree]]


class State(NamedTuple):
    """What training changes: parameters, the optimizer's state, and statistics.

    params: trained by gradients. moments: the optimizer's own state. statistics: measured, not trained, such as the
    running mean of a BatchNorm; an empty dictionary where there are none.
    """

    params: Tree
    moments: optax.OptState
    statistics: Tree


def sgd(rate: Rate, weight_decay: float | Array, momentum: float = 0.9) -> optax.GradientTransformation:
    """PyTorch's SGD: weight decay is added to the gradient of every parameter, before the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum))


def begin(optimizer: optax.GradientTransformation, params: Tree, statistics: Tree | None = None) -> State:
    """The state before the first update."""
    return State(params, optimizer.init(params), {} if statistics is None else statistics)


def update(optimizer: optax.GradientTransformation, gradient: Gradient, state: State, batch: Any) -> tuple[State, Array]:
    """The state after one more batch, and the loss before it."""
    (loss, statistics), gradients = gradient(state.params, state.statistics, batch)
    updates, moments = optimizer.update(gradients, state.moments, state.params)
    return State(optax.apply_updates(state.params, updates), moments, statistics), loss


def epoch(optimizer: optax.GradientTransformation, gradient: Gradient, state: State, batches: Any) -> tuple[State, Array]:
    """The state after the batches, whose arrays have a leading axis of steps, and the loss of each step; inside `jax.jit`."""
    return lax.scan(functools.partial(update, optimizer, gradient), state, batches)


def shuffled(orders: Iterable[np.ndarray], batch_size: int, fewest: int = 1) -> np.ndarray:
    """Which images each batch has: positions int32 [epochs, steps, batch_size], where -1 fills up a smaller last batch.

    orders: for each epoch a permutation of all n images. A last batch of less than `fewest` images is left out.
    """
    rows = np.stack([np.asarray(order, np.int32) for order in orders])
    count = rows.shape[1]
    steps = max(0, -(-(count - fewest + 1) // batch_size))
    found = np.full((len(rows), steps * batch_size), -1, np.int32)
    used = min(count, steps * batch_size)
    found[:, :used] = rows[:, :used]
    return found.reshape(len(rows), steps, batch_size)
