"""ELEVATER's linear probe: a classifier on frozen features, with its learning rate and weight decay searched for.

Three things differ from ELEVATER: the order of the images is seeded, but not as PyTorch shuffles; the epoch that
counts is the last, where ELEVATER takes the best on the test set, which can be asked for by name (`head.Selection`);
and where the last one lost what the search had found, there are as many epochs as in the search
(`head.final_training`).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.evaluation._trainer import State, begin, epoch, sgd
from biomedclip_jax.evaluation.probe._head import (
    EPOCHS,
    SEARCH_EPOCHS,
    Head,
    Selection,
    accuracy,
    batches,
    cross_entropy,
    final_training,
    predict,
    score,
    scores,
    standardised,
    start,
    updated,
)
from biomedclip_jax.evaluation.probe._search import full_search
from biomedclip_jax.evaluation.probe.methods import FewShot, Part, Prediction


@dataclass(frozen=True, eq=False)
class Trained:
    """Heads trained with K candidate settings, each after the last epoch and after the best one.

    The leaves of the heads have a leading axis K. Of equal epochs the first is the best.
    accuracies: after each epoch, [K, epochs].
    """

    last: Head
    best: Head
    accuracies: np.ndarray


def train_heads(
    train: Part, scored: Part | None, text: np.ndarray, pairs: Sequence[tuple[float, float]], epochs: int, seed: int
) -> Trained:
    """Train a head for each (learning rate, weight decay), all side by side in one program, on the same batches.

    scored: images on which the accuracy is measured after each epoch; None: the accuracies are 0.
    """
    scored = scored or train.subset(np.zeros(0, np.int64))
    plan = batches(len(train), epochs, seed)
    # few different sizes, so that few programs are compiled: a search asks for 42 pairs, and then for up to 12
    whole = 1 if len(pairs) == 1 else -(-len(pairs) // 12) * 12
    rates, decays = np.array([*pairs, *[pairs[-1]] * (whole - len(pairs))], np.float32).T
    learned_from, measured_on = ((part.features, part.labels.astype(np.int32)) for part in (train, scored))
    given = learned_from, measured_on, plan, rates, decays
    last, best, accuracies = _train(start(text), *jax.tree.map(jnp.asarray, given))
    last, best = jax.tree.map(lambda x: x[: len(pairs)], (last, best))
    return Trained(last, best, np.asarray(accuracies)[: len(pairs)])


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, 0))
def _train(
    head: Head, train: tuple[Array, Array], scored: tuple[Array, Array], plan: Array, rate: Array, decay: Array
) -> tuple[Head, Head, Array]:
    """One head. train, scored: features and labels. plan: the positions of each batch's images, -1 for none.

    What does not depend on rate and decay, the batches and their statistics, `vmap` leaves the same for all candidates.
    """
    features, labels = train
    optimizer = sgd(rate, decay)

    def loss(linear: dict[str, Array], seen: dict[str, Array], rows: Array) -> tuple[Array, dict[str, Array]]:
        used = (rows >= 0).astype(jnp.float32)
        x, statistics = standardised(features[rows], used)
        return cross_entropy(linear, x, labels[rows], used / used.sum()), updated(seen, statistics)

    def one_epoch(carry: tuple[State, Head, Array], rows: Array) -> tuple[tuple[State, Head, Array], Array]:
        state, best, reached = carry
        state, _ = epoch(optimizer, jax.value_and_grad(loss, has_aux=True), state, rows)
        now = accuracy(scores(_head(state), scored[0]), scored[1])
        better = now > reached
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), _head(state), best)
        return (state, best, jnp.maximum(now, reached)), now

    state = begin(optimizer, head["linear"], head["seen"])
    (state, best, _), accuracies = lax.scan(one_epoch, (state, head, jnp.float32(0)), plan)
    return _head(state), best, accuracies


def _head(state: State) -> Head:
    return {"linear": state.params, "seen": state.statistics}


def _first(heads: Head) -> Head:
    return jax.tree.map(lambda x: x[0], heads)


@dataclass(frozen=True)
class LinearProbe:
    """ELEVATER's linear probe as a method of few labels. selection: which epoch counts, see `head.Selection`."""

    selection: Selection = "last"

    @property
    def name(self) -> str:
        """The task in results.json and tables: "probe"."""
        return "probe"

    def __call__(self, task: FewShot) -> Prediction:
        """Search for the settings on the validation images, train with them on all labels, and predict the test images."""

        def validated(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
            trained = train_heads(task.train, task.validation, task.text, pairs, SEARCH_EPOCHS, task.seed)
            return score(trained.accuracies, self.selection)

        found = full_search(validated)
        chosen = [(found.learning_rate, found.weight_decay)]
        settings = {"selection": self.selection} | found.settings()
        if self.selection == "best_test_epoch":
            trained = train_heads(task.given, task.test, task.text, chosen, EPOCHS, task.seed)
            return Prediction(predict(_first(trained.best), task.test.features), settings | {"epochs": EPOCHS})

        def final(epochs: int) -> tuple[np.ndarray, float]:
            trained = train_heads(task.given, task.validation, task.text, chosen, epochs, task.seed)
            return predict(_first(trained.last), task.test.features), float(trained.accuracies[0, -1])

        logits, epochs, caveats = final_training(final, found.score, EPOCHS, SEARCH_EPOCHS)
        unseen = None
        if len(task.text) == 2:
            trained = train_heads(task.train, None, task.text, chosen, SEARCH_EPOCHS, task.seed)
            unseen = predict(_first(trained.last), task.validation.features)
        return Prediction(logits, settings | {"epochs": epochs}, caveats=caveats, validation=unseen)
