"""Fine-tuning of a whole image tower by ELEVATER's routine, with the probe's classifier behind it.

Resize and centre crop, no augmentation. BatchNorm inside an image tower stays frozen (ELEVATER trains it). All local
devices share each batch; the result does not depend on their number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._trainer import State
from biomedclip_jax.evaluation.probe._head import (
    EPOCHS,
    SEARCH_EPOCHS,
    Selection,
    accuracy,
    batches,
    final_training,
    predict,
    score,
)
from biomedclip_jax.evaluation.probe._image_tower import Tower, decoded
from biomedclip_jax.evaluation.probe._search import Search, full_search, small_search
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.support.terminal import progress_bar

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Images:
    """Some n of m decoded images, with their labels.

    pixels: uint8 [m, S, S, 3], of all. positions: int64 [n], which of them are meant. labels: int64 [n],
    or of several findings int8 [n, F].
    """

    pixels: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tower that was fine-tuned, and how it went.

    state: after the last epoch. losses: float32, of each step. accuracies: of the scored images, after each epoch.
    best: their logits, float64 [n, C], after the first of the best epochs; None if no answer was ever right.
    """

    state: State
    losses: np.ndarray
    accuracies: np.ndarray
    best: np.ndarray | None


def tune(
    tower: Tower, images: Images, scored: Images | None, text: np.ndarray, pair: tuple[float, float], epochs: int, seed: int
) -> Tuned:
    """Train the tower with a (learning rate, weight decay).

    Training ends when the loss is no longer finite: accuracies are 0 from there on.
    scored: images that are predicted after each epoch. text: zero-shot weights [C, E].
    """
    accuracies, best = np.zeros(epochs), None
    for epoch, (state, losses) in enumerate(trained(tower, images, text, pair, epochs, seed)):
        if scored is not None and np.isfinite(losses[-1:]).all():
            found = predicted(tower, state, scored)
            accuracies[epoch] = (found.argmax(axis=1) == scored.labels).mean()
            if accuracies[epoch] > accuracies[:epoch].max(initial=0):
                best = found
    return Tuned(state, losses, accuracies, best)


def trained(
    tower: Tower, images: Images, text: np.ndarray, pair: tuple[float, float], epochs: int, seed: int
) -> Iterator[tuple[State, np.ndarray]]:
    """The state after each epoch, which the next one takes, and the losses of all steps so far, float32.

    Ends when the loss is no longer finite. pair: learning rate and weight decay. text: weights [C, E] to start with.
    """
    state = tower.start(text)
    plan = batches(len(images.labels), epochs, seed)
    told = np.zeros(0, np.float32)
    with progress_bar(epochs * plan.shape[1], "step") as bar:
        for rows_of_epoch in plan:
            losses = []
            for rows in rows_of_epoch:
                used = (rows >= 0).astype(np.float32)  # the others only fill up a batch
                state, loss = tower.step(state, images.pixels[images.positions[rows]], images.labels[rows], used, *pair)
                losses.append(loss)
                bar.update(1)
            told = np.concatenate([told, np.array(losses, np.float32)])
            yield state, told
            if not np.isfinite(told[-1:]).all():
                return


def predicted(tower: Tower, state: State, images: Images) -> np.ndarray:
    """Logits float64 [n, C] of images by a fine-tuned tower."""
    head = {"linear": state.params["linear"], "seen": state.statistics}
    return predict(head, tower.features(state, images.pixels, images.positions))


@dataclass(frozen=True)
class FineTune:
    """Fine-tuning as a method of few labels.

    search: "full" is ELEVATER's, about 90 trainings of ten epochs; "small" has 8 of them (`small_search`); "none" takes
        `learning_rate` and `weight_decay`.
    microbatch: images a device at once, 64 / devices where None; fewer take less memory and a third more time.
    selection: which epoch counts, see `head.Selection`.
    """

    search: Search = "small"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    microbatch: int | None = None
    selection: Selection = "last"
    # what the next task may need again: the test images, and the tower with its compiled step
    _pixels: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    _towers: dict[str, Tower] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The task in results.json and tables: "finetune"."""
        return "finetune"

    def __call__(self, task: FewShot) -> Prediction:
        """Search for the settings on the validation images, train with them on all labels, and predict the test images.

        Raises UserError where the final training diverged, or an image cannot be read.
        """
        clip = task.candidate.clip
        tower = kept(self._towers, task.candidate.fingerprint, lambda: Tower(clip, self.microbatch))
        # a part is made of the same objects as the others: each image is decoded once
        parts = (task.given.data, task.train.data, task.validation.data)
        distinct = {id(image): (image, name) for part in parts for image, name in zip(part.images, part.names, strict=True)}
        position = {key: number for number, key in enumerate(distinct)}
        images, names = zip(*distinct.values(), strict=True)
        pixels = decoded(images, names, clip.processor.config)
        given, train, validation = (
            Images(pixels, np.array([position[id(image)] for image in part.images]), part.labels) for part in parts
        )
        data, config = task.test.data, clip.processor.config
        pixels = kept(self._pixels, f"{data.fingerprint} {config}", lambda: decoded(data.images, data.names, config))
        test = Images(pixels, np.arange(len(data)), data.labels)
        run = partial(tune, tower, text=task.text, seed=task.seed)

        def validated(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
            runs = (run(train, validation, pair=pair, epochs=SEARCH_EPOCHS) for pair in pairs)
            return np.array([score(each.accuracies, self.selection) for each in runs])

        settings: dict[str, Any] = {"selection": self.selection, "search": self.search}
        validated_share = 0.0  # without a search there is nothing that a training could fall below
        pair = self.learning_rate, self.weight_decay
        if self.search == "none":
            settings |= {"learning_rate": pair[0], "weight_decay": pair[1]}
        else:
            found = full_search(validated) if self.search == "full" else small_search(validated)
            pair = found.learning_rate, found.weight_decay
            validated_share = found.score
            settings |= found.settings()

        def final(epochs: int) -> tuple[np.ndarray, float]:
            state = run(given, None, pair=pair, epochs=epochs).state
            right = accuracy(jnp.asarray(predicted(tower, state, validation)), jnp.asarray(validation.labels))
            return predicted(tower, state, test), float(right)

        caveats: tuple[str, ...] = ()
        if self.selection == "best_test_epoch":
            logits, epochs = run(given, test, pair=pair, epochs=EPOCHS).best, EPOCHS
        else:
            logits, epochs, caveats = final_training(final, validated_share, EPOCHS, SEARCH_EPOCHS)
        if logits is None or not np.isfinite(logits).all():
            raise UserError(
                f"fine-tuning {task.candidate.name} diverged with learning rate {pair[0]:g} and weight decay {pair[1]:g}: "
                "its loss is no longer a number; try --search full, or a smaller learning rate"
            )
        return Prediction(logits, settings | {"epochs": epochs}, caveats=caveats)


def kept(known: dict[str, Kept], key: str, make: Callable[[], Kept]) -> Kept:
    """The value of the newest key alone: the one before is let go before the new one is made."""
    if key not in known:
        known.clear()
        known[key] = make()
    return known[key]
