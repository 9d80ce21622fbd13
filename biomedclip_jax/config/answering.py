"""What answers questions about images on top of the two towers: METER's co-attention, or QCR."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from biomedclip_jax.config.checks import check, check_choices, check_positive
from biomedclip_jax.config.pixels import OPENAI_MEAN, OPENAI_STD
from biomedclip_jax.errors import UserError

Vision = Literal["clip", "maml", "autoencoder"]
VocabularyOf = Literal["train", "train+test"]


@dataclass(frozen=True)
class MeterConfig:
    """METER (arXiv 2111.02387): co-attention layers between the tokens of the image and of the question, and a classifier."""

    answers: tuple[str, ...] = ()
    """Answers that the classifier knows, normalised, closed ones and open ones alike. (): those of the training questions,
    the most frequent first, which the run folder then keeps here."""
    vocabulary: VocabularyOf = "train"
    """Whose answers are known where none are named: those of the training part, or of all parts of the data ("train+test"), as
    some have published, which knows answers that only the test has."""
    question_length: int = 32
    """Tokens of a question, of the model's own tokenizer; longer ones are cut."""
    layers: int = 6
    """Co-attention layers of each modality."""
    width: int = 768
    """Numbers in the vector of a token in these layers, a multiple of heads."""
    heads: int = 12
    """Attention heads in a layer."""
    mlp_width: int = 3072
    """Width of the hidden layer of a layer's MLP."""
    dropout: float = 0.1
    """Probability that a number is dropped in these layers in training, attention weights included."""
    drop_last_block: bool = False
    """Whether the last block of the image tower is left out, as in METER; nothing then trains it."""

    def __post_init__(self) -> None:
        check_choices(self, vocabulary=VocabularyOf)
        check_positive(self, "question_length", "layers", "width", "heads", "mlp_width")
        check(self.width % self.heads == 0, self, "width", f"a multiple of heads = {self.heads}")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        _check_texts(self, "answers")
        _check_once(self, "answers", self.answers, "each answer once")


@dataclass(frozen=True)
class QCRConfig:
    """QCR (Zhan et al., ACM MM 2020): bilinear attention between image and question, for closed and open answers apart.

    The defaults are the original's. PubMedCLIP's is vision = ("clip", "autoencoder"), glimpses = 10.
    """

    answers: tuple[str, ...] = ()
    """Answers that the classifiers know, normalised, all closed ones before all open ones; one that occurs as both stands
    twice. (): those of the training questions, which the run folder then keeps here."""
    vocabulary: VocabularyOf = "train"
    """Whose answers are known where none are named: those of the training part, or of all parts of the data ("train+test"), as
    some have published, which knows answers that only the test has."""
    closed_answers: int = 0
    """How many of the answers, from the first on, are closed."""
    words: tuple[str, ...] = ()
    """Words that questions are read in. (): those of the training questions, which the run folder then keeps here."""
    question_length: int = 12
    """Words of a question; longer ones are cut."""
    vision: tuple[Vision, ...] = ("maml", "autoencoder")
    """What sees the image, one after the other: the image tower with its head (clip), a small network that was trained by
    meta-learning (maml), an auto-encoder (autoencoder). The last two see it in gray and have weights of their own."""
    glimpses: int = 2
    """Attention maps of each of the two branches, at most 32."""
    word_width: int = 300
    """Numbers in the vector of a word; as many as those of `glove` have."""
    width: int = 1024
    """Numbers in the state of a word in its question, and in the features of a question and its image; a multiple of 16."""
    input_dropout: float = 0.2
    """Probability that a number is dropped, in training, before the layers of the branches."""
    dropout: float = 0.5
    """Probability that a number is dropped, in training, in the attention's view of the image and in the hidden layers of
    modulation, classifiers and type classifier."""
    drops_in_evaluation: bool = False
    """Whether type classifier and modulation drop numbers in evaluation too, as PubMedCLIP's code does; for comparison with
    its numbers only."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of red, green and blue that the preprocessing subtracts, which gray images are made without."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of red, green and blue that the preprocessing divides by, which gray images are made without."""
    glove: str | None = None
    """File with the vectors of words to start from, such as glove.6B.300d.txt. None: random vectors."""
    maml: str | None = None
    """File with the weights of the network maml to start from, pretrained_maml.weights. None: random weights."""
    autoencoder: str | None = None
    """File with the weights of the auto-encoder to start from, pretrained_ae.pth. None: random weights."""

    def __post_init__(self) -> None:
        check_choices(self, vocabulary=VocabularyOf)
        check_positive(self, "question_length", "glimpses", "word_width", "width")
        _check_texts(self, "answers", "words")
        counts = isinstance(self.closed_answers, int) and 0 <= self.closed_answers <= len(self.answers)
        check(counts, self, "closed_answers", f"from 0 to the number of answers, {len(self.answers)}")
        for answers in (self.answers[: self.closed_answers], self.answers[self.closed_answers :]):
            _check_once(self, "answers", answers, "each once among the closed ones, and once among the open ones")
        _check_once(self, "words", self.words, "each word once")
        known, kinds = get_args(Vision), self.vision
        fits = isinstance(kinds, tuple) and 0 < len(kinds) == len(set(kinds)) and set(kinds) <= set(known)
        check(fits, self, "vision", f"one or more of {', '.join(known)}, none of them twice")
        check(self.glimpses <= 32, self, "glimpses", "at most 32")
        check(self.width % 16 == 0, self, "width", "a multiple of 16")
        for field in ("input_dropout", "dropout"):
            check(0 <= getattr(self, field) < 1, self, field, "at least 0 and below 1")
        for field in ("mean", "std"):
            check(len(getattr(self, field)) == 3, self, field, "three numbers, one a colour channel")
        check(all(s > 0 for s in self.std), self, "std", "numbers above 0")

    @property
    def sees_gray(self) -> bool:
        """Whether a part of it sees gray images, which are made without mean and std."""
        return self.vision != ("clip",)


AnsweringConfig = MeterConfig | QCRConfig


def _check_texts(owner: MeterConfig | QCRConfig, *fields: str) -> None:
    """UserError for a field that is not a tuple of texts."""
    for field in fields:
        values = getattr(owner, field)
        texts = isinstance(values, tuple) and all(isinstance(value, str) for value in values)
        check(texts, owner, field, 'a tuple of texts, such as ("yes", "no")')


def _check_once(owner: MeterConfig | QCRConfig, field: str, values: tuple[str, ...], expected: str) -> None:
    """UserError for a value that is there twice, without the whole list, which may be of hundreds."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UserError(f"{type(owner).__name__}.{field}: {twice[0]!r} is there more than once: expected {expected}")
