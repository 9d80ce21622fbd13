"""What learns from few labels: the contract between the table of few-label results and the methods in it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.prompts.templates import Prompts

if TYPE_CHECKING:
    from biomedclip_jax.prompts.learned import LearnedPrompts


@dataclass(frozen=True, eq=False)
class Part:
    """Images of known classes, all of which can be read, and what the candidate's image tower makes of them.

    unit: unit embeddings, float32 [n, E]. features: the same before they are made unit length.
    """

    data: Labelled
    unit: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]."""
        return self.data.labels

    def subset(self, positions: np.ndarray) -> "Part":
        """The images at these positions, in this order."""
        return Part(self.data.subset(positions), self.unit[positions], self.features[positions])


@dataclass(frozen=True, eq=False)
class FewShot:
    """One task for a method: learn from `given`, predict `test`.

    given: all labels of the budget: what the final training learns from.
    train, validation: for choosing settings; no image is in both. `given` is both together, but with one shot per class
        `train` alone, and where the search is limited (`few_shot.split`) more than both.
    test: for predictions, never for choices, except by a selection that is called "best_test_epoch".
    text: zero-shot weights, float32 [C, E]: the normalised mean of the unit embeddings of each class's sentences in `prompts`.
    seed: of the choice of the images, and of whatever else the method draws.
    """

    candidate: Candidate
    embeddings: Embeddings  # of further sentences
    prompts: Prompts
    text: np.ndarray
    given: Part
    train: Part
    validation: Part
    test: Part
    seed: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """probabilities: float64 [test images, C], rows sum to 1. settings: what was chosen: learning rate, weight decay ...

    prompts: of a method that learns some, to be kept.
    """

    probabilities: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    prompts: "LearnedPrompts | None" = None


class Method(Protocol):
    """Something that learns from few labels: usually a frozen dataclass of its options, with `__call__`.

    name: the task of its rows in results.json ("probe", "finetune", "coop" ...) and its entry in the legend of the plot.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    def __call__(self, task: FewShot) -> Prediction:
        """Deterministic: the same task gives the same prediction."""
        ...


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    scores = scores.astype(np.float64)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)
