"""Which labels a method may learn from: shots per class or a share of all, and the part of them that validates.

The sampling rules are those of ELEVATER (Computer-Vision-in-the-Wild/Elevater_Toolkit_IC, `evaluation/feature.py`,
with `sample_few_shot_subset` of vision-datasets 0.2.17): the same images in the same file order give exactly the same
shots.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.errors import UserError

VALIDATION = 0.2  # of each class


@dataclass(frozen=True)
class Budget:
    """How many labels there are: `shots` images of each class, or a `fraction` of the images of each class."""

    shots: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if (self.shots is None) == (self.fraction is None):
            raise UserError("a budget of labels: expected either shots per class or a fraction of all labels")
        if self.shots is not None and self.shots < 1:
            raise UserError(f"shots = {self.shots}: expected a whole number above 0")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(f"fraction of the labels = {self.fraction}: expected above 0, at most 1")

    def __str__(self) -> str:
        return f"{self.shots} per class" if self.shots is not None else f"{100 * (self.fraction or 0):g} %"

    @property
    def in_file_names(self) -> str:
        """The budget as a part of a file name, such as "5-per-class" or "10-percent"."""
        return str(self).replace("%", "percent").replace(" ", "-")

    @staticmethod
    def parse(text: str) -> "Budget":
        """ "5" is 5 shots per class, "10%" a tenth of all labels. UserError for anything else."""
        try:
            if text.strip().endswith("%"):
                return Budget(fraction=float(text.strip()[:-1]) / 100)
            return Budget(shots=int(text))
        except ValueError:
            raise UserError(f"labels = {text!r}: expected shots per class (5), or a share of all labels (10%)") from None


BUDGETS = (
    Budget(shots=5),
    Budget(shots=20),
    Budget(shots=50),
    Budget(fraction=0.01),
    Budget(fraction=0.1),
    Budget(fraction=1.0),
)
SEEDS = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of images in the training set, int64.

    given: all labels of the budget. train, validation: for choosing settings.
    The final training uses `given`: `train` and `validation` together, except that one shot per class borrows a second
    image for validation, which `given` leaves out.
    """

    given: np.ndarray
    train: np.ndarray
    validation: np.ndarray


def split(labels: np.ndarray, classes: int, budget: Budget, seed: int, search_shots: int | None = None) -> Split:
    """The images of a budget, drawn with `seed`, and their deterministic division into train and validation.

    labels: int64 [n], in file order. search_shots: images of each class, at most, on which settings are chosen (ELEVATER:
        10,000 for PCam with all labels); None: no limit.
    With one shot, as in ELEVATER, two images of each class are drawn: one validates, the final training has the other.
    Raises UserError where a class has no image at all, or no image remains to train on.
    """
    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing):
        raise UserError(f"the training set has no image of class {int(missing[0])}; expected some of each of the {classes}")
    given = _drawn(labels, budget, seed)
    searched = given
    if search_shots is not None and np.bincount(labels[given]).max() > search_shots:
        searched = given[shots(labels[given], search_shots, seed)]
    validates = first_of_each_class(labels[searched])
    train, validation = searched[~validates], searched[validates]
    if not len(train):
        raise UserError(f"{budget}: {len(given)} labels leave none to train on beside those that validate; give more labels")
    return Split(train if budget.shots == 1 else given, train, validation)


def shortages(labels: np.ndarray, classes: Sequence[str], budget: Budget) -> list[str]:
    """What is to be said of classes that have fewer images than a budget asks for, or too few for its share of them."""
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    if budget.shots is not None:
        few = [f"{count} of {name!r}" for name, count in counts.items() if count < max(2, budget.shots)]
        second = ", and one more to validate" if budget.shots == 1 else ""
        return [f"{budget}{second}, but there are only {_some(few)}"] if few else []
    share = budget.fraction or 0
    few = [f"{min(2, count)} of {name!r}" for name, count in counts.items() if share < 1 and round(count * share, 6) <= 1]
    return [f"{budget} of a class is less than two images, of which one validates: taken are {_some(few)}"] if few else []


def _some(parts: Sequence[str], most: int = 5) -> str:
    return ", ".join(parts[:most]) + (f" and of {len(parts) - most} more" if len(parts) > most else "")


def _drawn(labels: np.ndarray, budget: Budget, seed: int) -> np.ndarray:
    if budget.shots is not None:
        return shots(labels, max(2, budget.shots), seed)
    assert budget.fraction is not None
    if budget.fraction == 1:
        return np.arange(len(labels))
    return share(labels, budget.fraction, seed)


def shots(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of `count` images of each class (all where there are fewer), in the shuffled order in which they are met."""
    return _first_in_shuffle(labels, np.full(labels.max() + 1, count), seed)


def share(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a fraction of each class, rounded up, of two images at least, because one must validate.

    With the same seed a smaller share is a part of a greater one.
    """
    counts = np.bincount(labels)
    # without the rounding first, 0.07 * 100 = 7.000000000000001 is 8 images
    wanted = np.ceil(np.round(counts * fraction, 6)).astype(np.int64)
    return _first_in_shuffle(labels, np.maximum(wanted, 2), seed)


def _first_in_shuffle(labels: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)  # Python's own generator, as vision-datasets has it
    shuffled = np.array(order)
    return shuffled[_position_in_class(labels[shuffled]) < wanted[labels[shuffled]]]


def first_of_each_class(labels: np.ndarray, fraction: float = VALIDATION) -> np.ndarray:
    """Which images validate in ELEVATER, bool [n]: the first ceil(20 %) of each class in the order given, without chance."""
    wanted = np.array([math.ceil(count * fraction) for count in np.bincount(labels)])
    return _position_in_class(labels) < wanted[labels]


def _position_in_class(labels: np.ndarray) -> np.ndarray:
    """How many images of the same class come before each."""
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))[:-1]])
    position = np.empty(len(labels), np.int64)
    position[order] = np.arange(len(labels)) - starts[labels[order]]
    return position
