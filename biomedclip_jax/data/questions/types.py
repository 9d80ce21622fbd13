"""Questions about images with their answers, and a data set of them, divided into parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from biomedclip_jax.data.images.load import ImageSource
from biomedclip_jax.data.pairs import Reject

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one image.

    id: what the data set calls it. image: names the image; all questions about it have the same name.
    question, answer: as the data set writes them, with blanks of any kind as one. closed: whether it is answered by a
    choice, most often yes or no, as the data set says. types: what it is about, "MODALITY", "PLANE"; there may be several.
    """

    id: str
    image: str
    question: str
    answer: str
    closed: bool
    types: tuple[str, ...] = ()
    language: str = "en"


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """A data set of questions, of one split of it.

    name: "vqa-rad", "slake", "pathvqa", or what the user calls a table. split: how it is divided: "official", "mevf" ...
    images: of those that are there, by `Question.image`. leaked: for each test question whether a paraphrase of it, about
    the same image, is in the training part; None where no paraphrases are known to be.
    notes: what was found and done, a line each. caveats: what has to be said beside every number.
    rejects: test questions that cannot be measured, and why; `row` is their id. not_learned: those of the other parts.
    """

    name: str
    split: str
    language: str
    train: tuple[Question, ...]
    validation: tuple[Question, ...]
    test: tuple[Question, ...]
    images: Mapping[str, ImageSource]
    leaked: tuple[bool, ...] | None = None
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    rejects: tuple[Reject, ...] = field(default=())
    not_learned: Mapping[Part, tuple[Reject, ...]] = field(default_factory=dict)

    def part(self, name: Part) -> tuple[Question, ...]:
        """The questions of a part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def left_out(self, name: Part) -> tuple[Reject, ...]:
        """The questions of a part that cannot be used, and why."""
        return self.rejects if name == "test" else self.not_learned.get(name, ())
