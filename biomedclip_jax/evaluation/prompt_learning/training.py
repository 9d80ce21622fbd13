"""Learning a few vectors with everything else frozen: the recipe, and an epoch as one compiled program."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._trainer import State, begin, epoch, sgd, shuffled

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Optimizer, learning rate, batches and epochs of a training of prompts or keys.

    The defaults are CoOp's (`configs/trainers/CoOp/vit_b16.yaml`) with Dassl's momentum and weight decay.
    "sgd": the rate is `warmup_learning_rate` for the first `warmup_epochs`, then falls by half a cosine, epoch by epoch; a
    short last batch is left out. "adamw": PyTorch's with eps 1e-4, half a cosine over all steps; a short last batch is
    used (Tip-Adapter). UserError for no epoch, or an empty batch.
    """

    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 2e-3
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    warmup_learning_rate: float = 1e-5

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} = {getattr(self, field)}: expected a whole number above 0")

    def make_optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimizer, with its schedule, for epochs of so many updates."""
        if self.optimizer == "adamw":
            rate = optax.cosine_decay_schedule(self.learning_rate, self.epochs * steps)
            return optax.adamw(rate, eps=1e-4, weight_decay=self.weight_decay)

        def rate_of_epoch(count: ArrayLike) -> Array:
            epoch = jnp.asarray(count) // steps
            falling = 0.5 * self.learning_rate * (1 + jnp.cos(math.pi * (epoch - self.warmup_epochs) / self.epochs))
            return jnp.where(epoch < self.warmup_epochs, self.warmup_learning_rate, falling)

        return sgd(rate_of_epoch, self.weight_decay, self.momentum)


class Loss(Protocol):
    """A loss to be made small; hashable, because a compiled program is kept for each.

    trained: the arrays that are learned. frozen: the model's parameters and whatever else stays.
    images: unit embeddings [B, E]. labels: int [B]. weights: float32 [B], 0 for rows that only fill up a batch.
    """

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch, a scalar."""
        ...


@runtime_checkable
class Descent(Protocol):
    """A direction to be followed where it is not the gradient of one loss; hashable, and called as `Loss` is."""

    def value_and_grad(
        self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array
    ) -> tuple[Array, Arrays]:
        """The loss of a batch that is reported, a scalar, and what stands in for its gradient, an array for each trained."""
        ...


def mean(values: Array, weights: Array) -> Array:
    """The mean of values [B], weighted: rows of weight 0 do not count."""
    return (values * weights).sum() / weights.sum()


def cross_entropy(scores: Array, labels: Array, weights: Array) -> Array:
    """The mean cross-entropy (nats) of scores [B, C] over the rows that count."""
    return mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels), weights)


def batches(count: int, recipe: Recipe, seed: int) -> np.ndarray:
    """Which images each batch has: int32 [epochs, steps, B], each epoch in an order of its own; -1 fills up a short batch."""
    size = min(recipe.batch_size, count)
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(count) for _ in range(recipe.epochs))
    return shuffled(orders, size, fewest=size if recipe.optimizer == "sgd" else 1)


@functools.partial(jax.jit, static_argnames=("loss", "recipe"), donate_argnames="state")
def _epoch(
    loss: Loss | Descent, recipe: Recipe, state: State, frozen: Arrays, images: Array, labels: Array, chosen: Array
) -> tuple[State, Array]:
    followed = loss.value_and_grad if isinstance(loss, Descent) else jax.value_and_grad(loss)

    def gradient(trained: Arrays, statistics: Arrays, rows: Array) -> tuple[tuple[Array, Arrays], Arrays]:
        weights = (rows >= 0).astype(jnp.float32)
        value, gradients = followed(trained, frozen, images[rows], labels[rows], weights)
        return (value, statistics), gradients

    return epoch(recipe.make_optimizer(len(chosen)), gradient, state, chosen)


def fit(
    loss: Loss | Descent, recipe: Recipe, start: Arrays, frozen: Arrays, images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Trained arrays after the last epoch, and the losses float32 [epochs, steps]. UserError where training diverged.

    start: float32 arrays, not changed. images: unit embeddings [n, E]. labels: [n]. seed: of the order of the images.
    """
    order = batches(len(labels), recipe, seed)
    trained = {name: jnp.array(value, jnp.float32) for name, value in start.items()}
    state = begin(recipe.make_optimizer(order.shape[1]), trained)
    frozen, rows, truth = jax.device_put((frozen, np.asarray(images), labels.astype(np.int32)))
    losses = []
    for chosen in order:  # one program an epoch: it can be interrupted, and is compiled once for all seeds
        state, of_epoch = _epoch(loss, recipe, state, frozen, rows, truth, chosen)
        losses.append(np.asarray(of_epoch))
    if not np.isfinite(losses[-1]).all():
        raise UserError(f"learning_rate = {recipe.learning_rate}: training diverged (loss {losses[-1][-1]}); make it smaller")
    return {name: np.asarray(value) for name, value in state.params.items()}, np.stack(losses)
