"""ELEVATER's linear probe: a classifier on frozen features, with its learning rate and weight decay searched for.

What differs from ELEVATER: the order of the images is seeded, too, but not PyTorch's; and the epoch that counts is the last,
where ELEVATER takes the best on the test set, which is there by name (`head.Selection`).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.evaluation.probe.head import (
    EPOCHS,
    SEARCH_EPOCHS,
    Selection,
    accuracy,
    batches,
    cross_entropy,
    probabilities,
    score,
    scores,
    sgd,
    standardised,
    start,
    updated,
)
from biomedclip_jax.evaluation.probe.methods import FewShot, Part, Prediction
from biomedclip_jax.evaluation.probe.search import full_search

Head = dict[str, dict[str, Array]]


@dataclass(frozen=True, eq=False)
class Trained:
    """Of K candidates: the head after the last epoch and after the best one, and the accuracy of each epoch [K, epochs].

    The leaves of the heads have a leading axis K. Of equal epochs the first is the best.
    """

    last: Head
    best: Head
    accuracies: np.ndarray


def train_heads(
    train: Part, scored: Part | None, text: np.ndarray, pairs: Sequence[tuple[float, float]], epochs: int, seed: int
) -> Trained:
    """A head for each (learning rate, weight decay), all side by side in one program, on the same batches.

    scored: what accuracy is measured on after each epoch; None: 0 everywhere.
    """
    scored = scored or train.subset(np.zeros(0, np.int64))
    plan = batches(len(train), epochs, seed)
    # few different sizes, so that few programs are compiled: a search asks for 42 pairs, and then for up to 12
    whole = 1 if len(pairs) == 1 else -(-len(pairs) // 12) * 12
    rates, decays = np.array([*pairs, *[pairs[-1]] * (whole - len(pairs))], np.float32).T
    learned_from, measured_on = ((part.features, part.labels.astype(np.int32)) for part in (train, scored))
    given = learned_from, measured_on, (plan.index, plan.used), rates, decays
    last, best, accuracies = _train(start(text), *jax.tree.map(jnp.asarray, given))
    last, best = jax.tree.map(lambda x: x[: len(pairs)], (last, best))
    return Trained(last, best, np.asarray(accuracies)[: len(pairs)])


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, 0))
def _train(
    head: Head,
    train: tuple[Array, Array],
    scored: tuple[Array, Array],
    plan: tuple[Array, Array],
    rate: Array,
    decay: Array,
) -> tuple[Head, Head, Array]:
    """One head. train, scored: features and labels. plan: rows of each batch, and which of them count.

    What does not depend on rate and decay, the batches and their statistics, `vmap` leaves the same for all candidates.
    """
    features, labels = train

    def step(state: tuple[Head, dict[str, Array]], batch: tuple[Array, Array]) -> tuple[tuple[Head, dict[str, Array]], None]:
        head, velocity = state
        rows, used = batch
        x, statistics = standardised(features[rows], used)
        gradient = jax.grad(cross_entropy)(head["linear"], x, labels[rows], used / used.sum())
        linear, velocity = sgd(head["linear"], gradient, velocity, rate, decay)
        return ({"linear": linear, "seen": updated(head["seen"], statistics)}, velocity), None

    def epoch(carry: tuple, plan: tuple[Array, Array]) -> tuple[tuple, Array]:
        state, best, reached = carry
        state, _ = lax.scan(step, state, plan)
        now = accuracy(scores(state[0], scored[0]), scored[1])
        better = now > reached
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state[0], best)
        return (state, best, jnp.maximum(now, reached)), now

    state = head, jax.tree.map(jnp.zeros_like, head["linear"])
    (state, best, _), accuracies = lax.scan(epoch, (state, head, jnp.float32(0)), plan)
    return state[0], best, accuracies


@dataclass(frozen=True)
class LinearProbe:
    """The method. selection: which epoch counts, see `head.Selection`."""

    selection: Selection = "last"

    @property
    def name(self) -> str:
        """Of the task."""
        return "probe"

    def __call__(self, task: FewShot) -> Prediction:
        """See `Method`."""

        def validated(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
            trained = train_heads(task.train, task.validation, task.text, pairs, SEARCH_EPOCHS, task.seed)
            return score(trained.accuracies, self.selection)

        found = full_search(validated)
        chosen = [(found.learning_rate, found.weight_decay)]
        scored = task.test if self.selection == "best_test_epoch" else None
        trained = train_heads(task.given, scored, task.text, chosen, EPOCHS, task.seed)
        head = jax.tree.map(lambda x: x[0], trained.last if scored is None else trained.best)
        return Prediction(probabilities(head, task.test.features), {"selection": self.selection} | found.settings())
