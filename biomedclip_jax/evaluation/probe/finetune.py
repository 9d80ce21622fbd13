"""Fine-tuning of the whole image tower by ELEVATER's routine: the probe's classifier behind it, and everything is trained.

Resize and centre crop, no augmentation. BatchNorm inside an image tower stays frozen (ELEVATER trains it). All local devices
share each batch; the result does not depend on their number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.head import EPOCHS, SEARCH_EPOCHS, Selection, batches, probabilities, score
from biomedclip_jax.evaluation.probe.image_tower import Tower, decoded
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.probe.search import Search, full_search, small_search
from biomedclip_jax.support.terminal import progress_bar

State = dict[str, Any]
Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Images:
    """pixels: uint8 [m, S, S, 3] of images, of which these are those `at`: int64 [n]. labels: int64 [n]."""

    pixels: np.ndarray
    at: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Tuned:
    """state: after the last epoch. losses: float32, of each step. accuracies: of the scored images, after each epoch.

    best: their probabilities [n, C] after the first of the best epochs; None if none was right.
    """

    state: State
    losses: np.ndarray
    accuracies: np.ndarray
    best: np.ndarray | None


def tune(
    tower: Tower, images: Images, scored: Images | None, text: np.ndarray, pair: tuple[float, float], epochs: int, seed: int
) -> Tuned:
    """Train with a (learning rate, weight decay). It ends when the loss is no longer finite: accuracies are 0 from there on.

    scored: what is predicted after each epoch. text: zero-shot weights [C, E].
    """
    state = tower.start(text)
    plan = batches(len(images.labels), epochs, seed)
    losses, accuracies = [], np.zeros(epochs)
    best = None
    with progress_bar(epochs * plan.index.shape[1], "step") as bar:
        for epoch in range(epochs):
            for index, used in zip(plan.index[epoch], plan.used[epoch], strict=True):
                state, loss = tower.step(state, images.pixels[images.at[index]], images.labels[index], used, *pair)
                losses.append(loss)
                bar.update(1)
            if losses and not np.isfinite(float(losses[-1])):
                break
            if scored is not None:
                found = predicted(tower, state, scored)
                accuracies[epoch] = (found.argmax(axis=1) == scored.labels).mean()
                if accuracies[epoch] > accuracies[:epoch].max(initial=0):
                    best = found
    return Tuned(state, np.array(losses, np.float32), accuracies, best)


def predicted(tower: Tower, state: State, images: Images) -> np.ndarray:
    """Probabilities, float64 [n, C]."""
    return probabilities(state["head"], tower.features(state, images.pixels, images.at))


@dataclass(frozen=True)
class FineTune:
    """The method.

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
        """Of the task."""
        return "finetune"

    def __call__(self, task: FewShot) -> Prediction:
        """See `Method`."""
        clip = task.candidate.clip
        tower = _kept(self._towers, task.candidate.fingerprint, lambda: Tower(clip, self.microbatch))
        # a part is made of the same objects as the others: each image is decoded once
        parts = (task.given.data, task.train.data, task.validation.data)
        distinct = {id(image): (image, name) for part in parts for image, name in zip(part.images, part.names, strict=True)}
        place = {key: position for position, key in enumerate(distinct)}
        images, names = zip(*distinct.values(), strict=True)
        pixels = decoded(images, names, clip.processor.config)
        given, train, validation = (
            Images(pixels, np.array([place[id(image)] for image in part.images]), part.labels) for part in parts
        )
        data, config = task.test.data, clip.processor.config
        pixels = _kept(self._pixels, f"{data.fingerprint} {config}", lambda: decoded(data.images, data.names, config))
        test = Images(pixels, np.arange(len(data)), data.labels)
        run = partial(tune, tower, text=task.text, seed=task.seed)

        def validated(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
            runs = (run(train, validation, pair=pair, epochs=SEARCH_EPOCHS) for pair in pairs)
            return np.array([score(each.accuracies, self.selection) for each in runs])

        settings: dict[str, Any] = {"selection": self.selection, "search": self.search, "epochs": EPOCHS}
        pair = self.learning_rate, self.weight_decay
        if self.search == "none":
            settings |= {"learning_rate": pair[0], "weight_decay": pair[1]}
        else:
            found = full_search(validated) if self.search == "full" else small_search(validated)
            pair = found.learning_rate, found.weight_decay
            settings |= found.settings()
        tuned = run(given, test if self.selection == "best_test_epoch" else None, pair=pair, epochs=EPOCHS)
        probabilities = tuned.best if self.selection == "best_test_epoch" else predicted(tower, tuned.state, test)
        if probabilities is None or not np.isfinite(probabilities).all():
            raise UserError(
                f"fine-tuning {task.candidate.name} diverged with learning rate {pair[0]:g} and weight decay {pair[1]:g}: "
                "its loss is no longer a number; try --search full, or a smaller learning rate"
            )
        return Prediction(probabilities, settings)


def _kept(known: dict[str, Kept], key: str, make: Callable[[], Kept]) -> Kept:
    """The newest alone: what was there goes before the new one comes."""
    if key not in known:
        known.clear()
        known[key] = make()
    return known[key]
