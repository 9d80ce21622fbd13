"""Tasks of few labels, and the contract between the table of their results and the methods that learn from them.

`FewLabels` is what a user has: labelled images, budgets of labels and seeds. `make_tasks` embeds the images with one
model and draws the labels; each draw is one `FewShot`, from which a `Method` makes a `Prediction`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._completeness import completeness
from biomedclip_jax.evaluation._metrics import softmax
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.sampling import BUDGETS, SEEDS, Budget, Split, shortages, split
from biomedclip_jax.prompts.templates import Prompts, class_embeddings

if TYPE_CHECKING:
    from biomedclip_jax.prompts.learned import LearnedPrompts


@dataclass(frozen=True, eq=False)
class FewLabels:
    """Labelled images to learn from and to be tested on, and how many labels are learned from.

    prompts: sentences for each class, of the zero-shot classifier that methods start from.
    seeds: one draw of labels each; a budget of all labels leaves nothing to draw and has the first seed alone.
    search_shots: images of each class, at most, on which settings are chosen; None: no limit (see `sampling.split`).
    """

    train: Labelled
    test: Labelled
    prompts: Prompts
    budgets: Sequence[Budget] = BUDGETS
    seeds: Sequence[int] = SEEDS
    search_shots: int | None = None

    def check_classes(self) -> None:
        """Raise a UserError where the classes of `train`, `test` and `prompts` differ."""
        train, test, prompted = self.train, self.test, len(self.prompts.sentences)
        if train.classes != test.classes:
            raise UserError(
                f"{train.name} has the classes {', '.join(train.classes)}, {test.name} has {', '.join(test.classes)}; "
                "expected the same ones in the same order"
            )
        if prompted != len(train.classes):
            raise UserError(f"prompts of {prompted} classes for {len(train.classes)}: expected some for each class")


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
        """The class index of each image, int64 [n]."""
        return self.data.labels

    def subset(self, positions: np.ndarray) -> "Part":
        """The images at these positions, in this order."""
        return Part(self.data.subset(positions), self.unit[positions], self.features[positions])


@dataclass(frozen=True, eq=False)
class FewShot:
    """One task for a method: learn from `given`, predict `test`.

    given: all labels of the budget, which the final training learns from.
    train, validation: for choosing settings; no image is in both. `given` is both together, but with one shot per class
        `train` alone, and where the search is limited (`sampling.split`) more than both.
    test: for predictions, never for choices, except by a selection that is called "best_test_epoch".
    text: zero-shot weights, float32 [C, E]: for each class the normalised mean of the unit embeddings of its sentences.
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
    """What a method answers for the test images of a task.

    logits: float64 [n, C], of which images are ranked, too. settings: what was chosen, such as the learning rate.
    prompts: of a method that learns some, to be kept as a file.
    validation: logits float64 [m, C] of the validation images by a training that has not seen them, where there are some.
    caveats: what has to be said beside every number of it.
    """

    logits: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    prompts: "LearnedPrompts | None" = None
    caveats: tuple[str, ...] = ()
    validation: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, float64 [n, C]."""
        return softmax(self.logits)


class Method(Protocol):
    """Something that learns from few labels: usually a frozen dataclass of its options, with `__call__`."""

    @property
    def name(self) -> str:
        """The task of its rows in results.json ("probe", "finetune", "coop" ...) and its name in the plot's legend."""
        ...

    def __call__(self, task: FewShot) -> Prediction:
        """Learn the task. Deterministic: the same task gives the same prediction."""
        ...


@dataclass(frozen=True, eq=False)
class Tasks:
    """The tasks of one candidate on one data set, by budget and seed.

    text: zero-shot weights, float32 [C, E]. known, test: the images that can be read. about: what results say of data
    that are not all there, see `completeness`.
    """

    candidate: Candidate
    embeddings: Embeddings
    prompts: Prompts
    text: np.ndarray
    known: Part
    test: Part
    about: dict[str, Any]
    draws: dict[Budget, dict[int, Split]]

    def __len__(self) -> int:
        return sum(map(len, self.draws.values()))

    def details(self, budget: Budget) -> dict[str, Any]:
        """What the result of a budget says of its data: `left_out`, and `caveats`, such as of classes with fewer images."""
        fewer = shortages(self.known.labels, self.known.data.classes, budget)
        caveats = [*self.about.get("caveats", ()), *fewer]
        return self.about | ({"caveats": caveats} if caveats else {})

    def of(self, budget: Budget) -> Iterator[FewShot]:
        """One task for each seed, made when it is asked for: each has copies of the embeddings."""
        for seed, drawn in self.draws[budget].items():
            parts = (self.known.subset(drawn.given), self.known.subset(drawn.train), self.known.subset(drawn.validation))
            yield FewShot(self.candidate, self.embeddings, self.prompts, self.text, *parts, self.test, seed)


def make_tasks(candidate: Candidate, embeddings: Embeddings, data: FewLabels) -> Tasks:
    """Embed the images with one model and draw the labels of each budget and seed.

    Raises UserError where a budget cannot be drawn from `data.train`, and where an embedding is not finite.
    """
    known, of_train = _readable(embeddings, candidate, data.train, "training images")
    tested, of_test = _readable(embeddings, candidate, data.test, "images")
    lists = [name for name in {**of_test, **of_train} if name != "cut_off"]
    about: dict[str, Any] = {name: [*of_test.get(name, ()), *of_train.get(name, ())] for name in lists}
    about |= {name: of_test[name] for name in ("cut_off",) if name in of_test}
    draws = {budget: _draws(known, budget, data) for budget in data.budgets}
    text = class_embeddings(embeddings.texts(candidate, data.prompts.flat, "prompts"), data.prompts)
    return Tasks(candidate, embeddings, data.prompts, text, known, tested, about, draws)


def _readable(embeddings: Embeddings, candidate: Candidate, data: Labelled, of: str) -> tuple[Part, dict[str, Any]]:
    """The images that can be read, and what is to be said of the others; of: what messages call these images."""
    found = embeddings.images(candidate, data.images, data.fingerprint)
    if not np.isfinite(found.features).all():
        bad = data.names[int(found.kept[(~np.isfinite(found.features)).any(axis=1).argmax()])]
        raise UserError(f"{candidate.name}: the embedding of {bad} is not finite; is the model, or the image, broken?")
    about = completeness(data, len(found.kept), found.errors, of)
    if of == "images" and found.cut_off:
        about["cut_off"] = found.cut_off
    if of != "images" and "left_out" in about:
        about["left_out"] = [each | {"reason": f"{each['reason']}, of {of}"} for each in about["left_out"]]
    return Part(data.subset(found.kept), found.rows, found.features), about


def _draws(known: Part, budget: Budget, data: FewLabels) -> dict[int, Split]:
    """The draw of each seed."""
    try:
        seeds = data.seeds[:1] if budget.fraction == 1 else data.seeds
        return {seed: split(known.labels, len(data.train.classes), budget, seed, data.search_shots) for seed in seeds}
    except UserError as error:
        raise UserError(f"{known.data.name}: {error}") from None
