"""Tasks of few labels: what a model makes of the images, and which of them each budget and seed has to learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.evaluation.probe.sampling import Budget, Split, split
from biomedclip_jax.prompts.templates import Prompts, class_embeddings


@dataclass(frozen=True, eq=False)
class Tasks:
    """Those of one candidate.

    text: zero-shot weights, float32 [C, E]. known, test: the images that can be read. left_out: the others, with the reason.
    draws: by budget and seed; a budget of all labels has the first seed alone.
    """

    candidate: Candidate
    embeddings: Embeddings
    prompts: Prompts
    text: np.ndarray
    known: Part
    test: Part
    left_out: list[dict[str, str]]
    draws: dict[Budget, dict[int, Split]]

    def __len__(self) -> int:
        return sum(map(len, self.draws.values()))

    def of(self, budget: Budget) -> Iterator[FewShot]:
        """One for each seed, made when it is asked for: each has copies of the embeddings."""
        for seed, at in self.draws[budget].items():
            parts = (self.known.subset(at.given), self.known.subset(at.train), self.known.subset(at.validation), self.test)
            yield FewShot(self.candidate, self.embeddings, self.prompts, self.text, *parts, seed)


def make_tasks(
    candidate: Candidate,
    train: Labelled,
    test: Labelled,
    prompts: Prompts,
    embeddings: Embeddings,
    *,
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    search_shots: int | None = None,
) -> Tasks:
    """Embed the images and draw the labels. search_shots: see `few_shot.split`.

    Raises UserError where a budget cannot be drawn from `train`, and where an embedding is not finite.
    """
    known, unread = _readable(embeddings, candidate, train)
    tested, unread_test = _readable(embeddings, candidate, test)
    draws = {budget: _draws(known, len(train.classes), budget, seeds, search_shots) for budget in budgets}
    text = class_embeddings(embeddings.texts(candidate, prompts.flat), prompts)
    return Tasks(candidate, embeddings, prompts, text, known, tested, unread + unread_test, draws)


def check_classes(train: Labelled, test: Labelled, prompts: Prompts) -> None:
    """UserError where the classes of the three differ."""
    if train.classes != test.classes:
        raise UserError(
            f"{train.name} has the classes {', '.join(train.classes)}, {test.name} has {', '.join(test.classes)}; "
            "expected the same ones in the same order"
        )
    if len(prompts.sentences) != len(train.classes):
        raise UserError(f"prompts of {len(prompts.sentences)} classes for {len(train.classes)}: expected some for each class")


def _readable(embeddings: Embeddings, candidate: Candidate, data: Labelled) -> tuple[Part, list[dict[str, str]]]:
    """The images that can be read, and those that cannot, with the reason."""
    found = embeddings.images(candidate, data.images, data.fingerprint)
    if not np.isfinite(found.features).all():
        bad = data.names[int(found.kept[(~np.isfinite(found.features)).any(axis=1).argmax()])]
        raise UserError(f"{candidate.name}: the embedding of {bad} is not finite; is the model, or the image, broken?")
    left_out = [{"image": data.names[position], "reason": reason} for position, reason in found.errors.items()]
    return Part(data.subset(found.kept), found.rows, found.features), left_out


def _draws(known: Part, classes: int, budget: Budget, seeds: Sequence[int], search_shots: int | None) -> dict[int, Split]:
    """By seed."""
    try:
        used = seeds[:1] if budget.fraction == 1 else seeds
        return {seed: split(known.labels, classes, budget, seed, search_shots) for seed in used}
    except UserError as error:
        raise UserError(f"{known.data.name}: {error}") from None
