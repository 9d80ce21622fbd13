"""Answers of a model to the questions of a data set: with the right image, and with another one in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.types import Question
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained


@dataclass(frozen=True)
class Given:
    """The best answer to each question, "" where its image cannot be read; errors: why, by the image's name."""

    answers: tuple[str, ...]
    errors: dict[str, UserError]

    def right(self, questions: Sequence[Question]) -> np.ndarray:
        """Whether each answer is that of the question, bool [n]."""
        pairs = zip(self.answers, questions, strict=True)
        return np.array([bool(own) and own == normalised(each.answer) for own, each in pairs], bool)


def answers_of(
    clip: Pretrained, questions: Sequence[Question], images: Mapping[str, ImageSource], batch_size: int = 32
) -> Given:
    """The model's best answer to each question, about the image of its name."""
    bad: dict[int, UserError] = {}
    found = clip.answer(
        [images[each.image] for each in questions],
        [each.question for each in questions],
        1,
        batch_size=batch_size,
        on_error=bad.__setitem__,
    )
    errors = {questions[position].image: error for position, error in bad.items()}
    return Given(tuple(own[0][0] if own else "" for own in found), errors)


def other_images(
    questions: Sequence[Question], images: Mapping[str, ImageSource], seed: int
) -> Mapping[str, ImageSource] | None:
    """For the name of each image that is asked about another of these images, drawn at random; None where there is only one.

    What a model answers then tells what the pictures are worth to it.
    """
    names = sorted({each.image for each in questions})
    if len(names) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    return {names[own]: images[names[other]] for own, other in zip(order, [*order[1:], order[0]], strict=True)}


def by_predicted_type(right: np.ndarray, closed: np.ndarray, taken: np.ndarray) -> dict[str, str | float]:
    """QCR's own metric, for comparison with published numbers only, and how often the type is found, each a bool array [n].

    accuracy_closed_as_taken, accuracy_open_as_taken: of the questions that the model *takes* to be closed, or open
    (github.com/Awenbocc/med-vqa). A closed question that is taken for an open one is then missing among the closed ones.
    """
    found: dict[str, str | float] = {"type_accuracy": float((taken == closed).mean())}
    parts = {"accuracy_closed_as_taken": taken, "accuracy_open_as_taken": ~taken}
    return found | {name: float(right[own].mean()) for name, own in parts.items() if own.any()}
