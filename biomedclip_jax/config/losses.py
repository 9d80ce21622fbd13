"""The losses that a stage can learn by, with the choices that each really has; the formulas are in `losses.py`.

Every loss says, as a field or as a class variable where there is no choice: `prompted`, whether texts are labels that
stand after the learned context; `negatives`, the size of the groups within which pairs are compared, None for the
whole batch; `equal_captions`, what pairs with the same caption are to each other; and a loss of pairs `directions`,
what is made of its sums over images and over texts, None where the first is all.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from biomedclip_jax.config.checks import check, check_choices, check_positive

Directions = Literal["mean", "sum"]
StageText = Literal["caption", "label"]
EqualCaptions = Literal["negatives", "positives"]


@dataclass(frozen=True)
class Softmax:
    """CLIP's loss: each image must find its text among the others, and each text its image (InfoNCE)."""

    directions: Directions = "mean"
    """"mean" of the two directions, as in CLIP and BiomedCLIP, or their "sum", as in CLEFT's released code."""
    negatives: int | None = None
    """Pairs are compared within groups of so many that follow one another in the batch, as on GPUs that exchange no
    embeddings (CLEFT: 72); the result is the same on any number of devices. None compares all pairs of the batch."""
    text: StageText = "caption"
    """"caption" uses each image's caption; "label" puts the learned context before the image's label and leaves
    dropout out of the text tower (CLEFT's second stage as its code ran)."""
    equal_captions: EqualCaptions = "negatives"
    """What pairs of a batch are to each other whose captions are the same tokens: "negatives", as in CLIP, or "positives",
    each as likely as the other (UniCL, arXiv 2204.03610): for captions that many images share, such as those of labels."""

    def __post_init__(self) -> None:
        check_choices(self, directions=Directions, equal_captions=EqualCaptions, text=StageText)
        apart = self.equal_captions == "negatives" or self.text == "caption"
        check(apart, self, "equal_captions", '"negatives" with text="label"; Classification() has one text a class')
        if self.negatives is not None:
            check_positive(self, "negatives")

    @property
    def prompted(self) -> bool:
        """Whether texts are labels that stand after the learned context."""
        return self.text == "label"


@dataclass(frozen=True)
class Sigmoid:
    """SigLIP's loss: every image and every text are a pair or not, each decided alone. It needs `model.init_logit_bias`."""

    prompted: ClassVar[bool] = False
    negatives: ClassVar[None] = None
    directions: ClassVar[None] = None
    equal_captions: EqualCaptions = "negatives"
    """What an image is with the caption of another pair that is the same tokens as its own: "negatives", no pair, as in
    SigLIP, or "positives", a pair: for captions that many images share, such as those of labels."""

    def __post_init__(self) -> None:
        check_choices(self, equal_captions=EqualCaptions)


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of an image against the learned prompts of all classes, one of which is right (CLEFT's second stage)."""

    prompted: ClassVar[bool] = True
    negatives: ClassVar[None] = None
    equal_captions: ClassVar[EqualCaptions] = "negatives"


@dataclass(frozen=True)
class MultiLabel:
    """Binary cross-entropy of an image against the learned prompt of each class, any number of which may be right."""

    prompted: ClassVar[bool] = True
    negatives: ClassVar[None] = None
    equal_captions: ClassVar[EqualCaptions] = "negatives"


@dataclass(frozen=True)
class Answers:
    """The loss of `model.answering`: which answer is right to the question about the image (METER, QCR)."""

    prompted: ClassVar[bool] = False
    negatives: ClassVar[None] = None
    equal_captions: ClassVar[EqualCaptions] = "negatives"


@dataclass(frozen=True)
class QuestionTypes:
    """Cross-entropy of QCR's classifier of questions, closed or open, which is trained before the answers."""

    prompted: ClassVar[bool] = False
    negatives: ClassVar[None] = None
    equal_captions: ClassVar[EqualCaptions] = "negatives"


PairLoss = Softmax | Sigmoid
ClassLoss = Classification | MultiLabel
AnswerLoss = Answers | QuestionTypes
Loss = PairLoss | ClassLoss | AnswerLoss
