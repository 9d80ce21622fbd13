"""The classifier that ELEVATER puts behind an image tower: BatchNorm without scale and shift, and a linear layer.

Source: `evaluation/full_model_finetune.py` of Computer-Vision-in-the-Wild/Elevater_Toolkit_IC. The linear layer starts as the
zero-shot classifier; SGD with momentum 0.9 and a constant learning rate, weight decay on everything, biases too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.evaluation.metrics import softmax

# Which epoch of a training counts. "last": the last one, of the trainings of the search, too (ELEVATER's
# SEARCH_RESULT_ON_LAST_EPOCH). "best_test_epoch": the one that is best on what is predicted, be it the validation images of the
# search or the test images: what ELEVATER publishes, and too good.
Selection = Literal["last", "best_test_epoch"]
Tree = Any

BATCH_SIZE = 64
SEARCH_EPOCHS, EPOCHS = 10, 50  # of each candidate in the search; of the final training

_MOMENTUM = 0.9
_EPSILON, _UPDATE = 1e-5, 0.1  # torch's BatchNorm1d: eps, momentum


@dataclass(frozen=True, eq=False)
class Batches:
    """index: int32 [epochs, steps, rows], positions of images. used: float32, the same shape, 0 where a batch is filled up."""

    index: np.ndarray
    used: np.ndarray


def batches(images: int, epochs: int, seed: int, batch_size: int = BATCH_SIZE) -> Batches:
    """Every image once an epoch, in an order of its own each epoch.

    The last batch is smaller; if it would have one image it is left out, as in ELEVATER: one image has no variance.
    """
    rows = min(batch_size, images)
    steps = max(0, -(-(images - 1) // rows))
    index = np.zeros((epochs, steps * rows), np.int32)
    length = min(images, steps * rows)
    for epoch in range(epochs):
        index[epoch, :length] = np.random.default_rng([seed, epoch]).permutation(images)[:length]
    used = np.zeros((epochs, steps * rows), np.float32)
    used[:, :length] = 1
    return Batches(index.reshape(epochs, steps, rows), used.reshape(epochs, steps, rows))


def start(text: np.ndarray) -> dict[str, dict[str, Array]]:
    """{"linear": what is trained, "seen": running statistics}. text: zero-shot weights [C, E]."""
    classes, width = text.shape
    linear = {"kernel": jnp.asarray(text.T), "bias": jnp.zeros(classes)}
    return {"linear": linear, "seen": {"mean": jnp.zeros(width), "var": jnp.ones(width)}}


def standardised(features: Array, used: Array, total: Callable[[Array], Array] = lambda x: x) -> tuple[Array, dict[str, Array]]:
    """Features [B, E] by the mean and variance of the used rows [B], and these (the variance unbiased).

    total: makes a sum over this device's rows one over all.
    """
    count = total(used.sum())
    mean = total((used[:, None] * features).sum(axis=0)) / count
    centred = features - mean
    var = total((used[:, None] * jnp.square(centred)).sum(axis=0)) / count
    return centred * lax.rsqrt(var + _EPSILON), {"mean": mean, "var": var * count / jnp.maximum(count - 1, 1)}


def updated(seen: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
    """Running statistics after one more batch."""
    return {name: (1 - _UPDATE) * seen[name] + _UPDATE * batch[name] for name in seen}


def cross_entropy(linear: dict[str, Array], x: Array, labels: Array, used: Array) -> Array:
    """Sum over the used rows."""
    logits = jnp.matmul(x, linear["kernel"], precision=lax.Precision.HIGHEST) + linear["bias"]
    own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return -(used * own).sum()


def sgd(params: Tree, gradient: Tree, velocity: Tree, rate: Array, decay: Array) -> tuple[Tree, Tree]:
    """torch's SGD with momentum and weight decay: (parameters, velocity) after one update."""
    velocity = jax.tree.map(lambda v, g, p: _MOMENTUM * v + g + decay * p, velocity, gradient, params)
    return jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity


def scores(head: dict[str, dict[str, Array]], features: Array) -> Array:
    """Logits [n, C] by the running statistics."""
    seen, linear = head["seen"], head["linear"]
    x = (features - seen["mean"]) * lax.rsqrt(seen["var"] + _EPSILON)
    return jnp.matmul(x, linear["kernel"], precision=lax.Precision.HIGHEST) + linear["bias"]


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of rows whose largest logit is that of the label; 0 if any is not finite, as for ELEVATER a run that fails."""
    right = (logits.argmax(axis=-1) == labels).mean() if len(labels) else jnp.float32(0)
    return jnp.where(jnp.isfinite(logits).all(), right, 0.0)


def score(accuracies: np.ndarray, selection: Selection) -> np.ndarray:
    """Of a training in the search, [...], from its accuracies after each epoch [..., epochs]."""
    return accuracies[..., -1] if selection == "last" else accuracies.max(axis=-1)


def probabilities(head: dict[str, dict[str, Array]], features: np.ndarray) -> np.ndarray:
    """float64 [n, C]."""
    return softmax(np.asarray(scores(head, jnp.asarray(features))))
