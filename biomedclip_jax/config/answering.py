"""What answers questions about images on top of the two towers: METER's co-attention, or QCR."""

from dataclasses import dataclass

from biomedclip_jax.config.checks import check, check_positive


@dataclass(frozen=True)
class MeterConfig:
    """METER (arXiv 2111.02387): co-attention layers between the tokens of the image and of the question, and a classifier."""

    answers: tuple[str, ...] = ()
    """Answers that the classifier knows, normalised, closed ones and open ones alike. (): those of the training questions,
    the most frequent first, which the run folder then keeps here."""
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
    """Whether the last block of the image tower is left out, as in METER."""

    def __post_init__(self) -> None:
        check_positive(self, "question_length", "layers", "width", "heads", "mlp_width")
        check(self.width % self.heads == 0, self, "width", f"a multiple of heads = {self.heads}")
        check(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")


AnsweringConfig = MeterConfig
