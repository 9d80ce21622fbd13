"""Questions about images through a model that answers them: batches of both in, answers with probabilities out."""

from collections.abc import Callable, Sequence

import numpy as np

from biomedclip_jax.data.processor import ImageSource, Processor
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.parallel import read_ahead

Asked = Sequence[tuple[ImageSource, str]]  # images, each with the question about it
Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]  # pixels [n, S, S, 3], tokens [n, N] -> logits of answers [n, C]


def checked_questions(images: Sequence[ImageSource], questions: Sequence[str]) -> Asked:
    """Each image with its question. UserError unless there is a sentence for each image."""
    if len(images) != len(questions):
        raise UserError(f"questions: expected one for each of the {len(images)} images, found {len(questions)}")
    for question in questions:
        if not isinstance(question, str) or not question.strip():
            raise UserError(f"questions: expected sentences, found {question!r}")
    return list(zip(images, questions, strict=True))


def scored(
    processor: Processor,
    asked: Asked,
    scores: Scores,
    at_once: int,
    on_error: Callable[[int, UserError], object] | None = None,
) -> list[np.ndarray | None]:
    """The logits of all answers to each question, float32 [C]; None where the image cannot be read.

    at_once: questions in a batch. on_error: called with position and error of such an image; without it the error is
    raised.
    """
    found: list[np.ndarray | None] = []
    waiting: dict[int, np.ndarray] = {}  # position -> pixels

    def compute() -> None:
        tokens = processor.questions([asked[position][1] for position in waiting])
        for position, row in zip(waiting, scores(np.stack(list(waiting.values())), tokens), strict=True):
            found[position] = row
        waiting.clear()

    for position, pixels in enumerate(read_ahead(processor.image, [image for image, _ in asked], ahead=2 * at_once)):
        found.append(None)
        if isinstance(pixels, UserError):
            if on_error is None:
                raise pixels
            on_error(position, pixels)
        else:
            waiting[position] = pixels
        if len(waiting) == at_once:
            compute()
    if waiting:
        compute()
    return found


def best_answers(answers: Sequence[str], logits: np.ndarray, top: int | None = None) -> list[tuple[str, float]]:
    """The `top` most probable answers (None: all that a question of its kind can have), best first, with probabilities.

    logits: float32 [C]; an answer of -inf is none.
    """
    best: list[int] = np.argsort(-logits, kind="stable")[:top].tolist()
    return [(answers[j], float(1 / (1 + np.exp(-np.float64(logits[j]))))) for j in best if np.isfinite(logits[j])]
