"""After the last step of a run that answers questions: what its model folder says to the held-out ones."""

import numpy as np

from biomedclip_jax.data.questions.pairs import QuestionPairs
from biomedclip_jax.evaluation.vqa.answering import answers_of, other_images
from biomedclip_jax.pretrained import Pretrained


def answer_results(clip: Pretrained, pairs: QuestionPairs, seed: int) -> dict[str, float | int]:
    """The fields of `Results` that are of questions. Prints which images were left out because they cannot be read."""
    given = answers_of(clip, pairs.questions, pairs.images)
    for error in given.errors.values():
        print(f"left out of the evaluation: {error}")
    kept = np.array([each.image not in given.errors for each in pairs.questions], bool)
    right = given.right(pairs.questions)
    closed = np.array([each.closed for each in pairs.questions], bool)
    parts = {"accuracy": kept, "accuracy_open": kept & ~closed, "accuracy_closed": kept & closed}
    found: dict[str, float | int] = {"held_out_pairs": int(kept.sum())}
    found |= {name: float(right[own].mean()) for name, own in parts.items() if own.any()}
    asked = [each for each, is_kept in zip(pairs.questions, kept, strict=True) if is_kept]
    if (others := other_images(asked, pairs.images, seed)) is not None:
        found["accuracy_other_image"] = float(answers_of(clip, asked, others).right(asked).mean())
    return found
