"""The classifier that ELEVATER puts behind an image tower: BatchNorm without scale and shift, and a linear layer.

Source: `evaluation/full_model_finetune.py` of Computer-Vision-in-the-Wild/Elevater_Toolkit_IC. The linear layer starts
as the zero-shot classifier; SGD with momentum 0.9, a constant learning rate, and weight decay on everything, biases
too.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from biomedclip_jax.evaluation._trainer import shuffled

# Which epoch of a training counts. "last": the last one, of the trainings of the search, too (ELEVATER's
# SEARCH_RESULT_ON_LAST_EPOCH). "best_test_epoch": the one that is best on what is predicted, be it the validation images of the
# search or the test images: what ELEVATER publishes, and too good.
Selection = Literal["last", "best_test_epoch"]
Head = dict[str, dict[str, Array]]  # "linear": kernel [E, C] and bias [C], trained; "seen": mean [E] and var [E], running

BATCH_SIZE = 64
SEARCH_EPOCHS, EPOCHS = 10, 50  # of each candidate in the search; of the final training

_FALL = 0.01  # of the accuracy on the validation images, by which a final training may be below the search

_EPSILON, _UPDATE = 1e-5, 0.1  # torch's BatchNorm1d: eps, momentum


def batches(images: int, epochs: int, seed: int, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Positions of images, int32 [epochs, steps, rows], -1 where a batch is filled up: every image once an epoch.

    The last batch is smaller; if it would have one image it is left out, as in ELEVATER: one image has no variance.
    """
    orders = (np.random.default_rng([seed, epoch]).permutation(images) for epoch in range(epochs))
    return shuffled(orders, min(batch_size, images), fewest=2)


def start(text: np.ndarray) -> Head:
    """The head before any training: the zero-shot weights [C, E], behind statistics of mean 0 and variance 1."""
    classes, width = text.shape
    linear = {"kernel": jnp.asarray(text.T), "bias": jnp.zeros(classes)}
    return {"linear": linear, "seen": {"mean": jnp.zeros(width), "var": jnp.ones(width)}}


def standardised(features: Array, used: Array, total: Callable[[Array], Array] = lambda x: x) -> tuple[Array, dict[str, Array]]:
    """Features [B, E] by the mean and variance of the used rows [B], and these (the variance unbiased).

    total: makes a sum over this device's rows a sum over those of all devices.
    """
    count = total(used.sum())
    mean = total((used[:, None] * features).sum(axis=0)) / count
    centred = features - mean
    var = total((used[:, None] * jnp.square(centred)).sum(axis=0)) / count
    return centred * lax.rsqrt(var + _EPSILON), {"mean": mean, "var": var * count / jnp.maximum(count - 1, 1)}


def updated(seen: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
    """The running statistics after one more batch."""
    return {name: (1 - _UPDATE) * seen[name] + _UPDATE * batch[name] for name in seen}


def cross_entropy(linear: dict[str, Array], x: Array, labels: Array, weights: Array) -> Array:
    """The sum over standardised features x [B, E] of each row's cross-entropy (nats) times its weight."""
    logits = jnp.matmul(x, linear["kernel"], precision=lax.Precision.HIGHEST) + linear["bias"]
    return (weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)).sum()


def binary_cross_entropy(linear: dict[str, Array], x: Array, answers: Array, weights: Array) -> Array:
    """The sum over standardised features x [B, E] of each row's mean over the findings of the cross-entropies, by its weight.

    answers: int [B, F], 1 or 0; -1, which does not count, adds nothing.
    """
    logits = jnp.matmul(x, linear["kernel"], precision=lax.Precision.HIGHEST) + linear["bias"]
    each = optax.sigmoid_binary_cross_entropy(logits, (answers == 1).astype(jnp.float32))
    return (weights * jnp.where(answers >= 0, each, 0.0).mean(axis=1)).sum()


def scores(head: Head, features: Array) -> Array:
    """Logits [n, C] of features [n, E] by the running statistics."""
    seen, linear = head["seen"], head["linear"]
    x = (features - seen["mean"]) * lax.rsqrt(seen["var"] + _EPSILON)
    return jnp.matmul(x, linear["kernel"], precision=lax.Precision.HIGHEST) + linear["bias"]


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of rows whose largest logit is that of the label; 0 if any is not finite, as for ELEVATER a run that fails."""
    right = (logits.argmax(axis=-1) == labels).mean() if len(labels) else jnp.float32(0)
    return jnp.where(jnp.isfinite(logits).all(), right, 0.0)


def score(accuracies: np.ndarray, selection: Selection) -> np.ndarray:
    """The score [...] of trainings in the search, from their accuracies after each epoch [..., epochs]."""
    return accuracies[..., -1] if selection == "last" else accuracies.max(axis=-1)


# what a training of so many epochs on all labels gives: logits [n, C] of the test images, and the share of the
# validation images that it has right
Final = Callable[[int], tuple[np.ndarray, float]]


def final_training(train: Final, validated: float, longer: int, shorter: int) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Logits of the test images, the epochs of the training that gives them, and what is to be said of it.

    ELEVATER searches with `shorter` trainings than the one that counts, of `longer`, and settings that are the best for
    the few epochs can let the head decay in the many. So where the longer training has clearly fewer of the validation
    images right than the search had (`validated`, a share), although it has learned from them since, the shorter one is
    made, too, and the better of both on these images counts. No test image takes part in this.
    """
    logits, right = train(longer)
    if right >= validated - _FALL:
        return logits, longer, ()
    others, again = train(shorter)
    said = (
        f"after {longer} epochs {right:.1%} of the validation images are right, after {shorter} {again:.1%}, "
        f"in the search {validated:.1%}"
    )
    if again > right:
        return others, shorter, (f"trained for {shorter} epochs, as in the search: {said}",)
    return logits, longer, (said,)


def predict(head: Head, features: np.ndarray) -> np.ndarray:
    """Logits float64 [n, C] of features [n, E] by the running statistics."""
    return np.asarray(scores(head, jnp.asarray(features))).astype(np.float64)
