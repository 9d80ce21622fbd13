"""MedCLIP's text tower: a BERT of which three blocks are read."""

from dataclasses import dataclass
from typing import ClassVar

from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.config.checks import check
from biomedclip_jax.models.bert import Bert, mean_of_tokens


@dataclass(frozen=True)
class MedCLIPTextConfig(BertConfig):
    """A BERT, pooled as MedCLIP does it; `pool` is not used."""

    quirk: ClassVar[str] = "open_clip does not have MedCLIP's pooling"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.depth > 1, self, "depth", "at least 2, of which the first two are read")

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "MedCLIPText":
        """The tower with fresh parameters."""
        return MedCLIPText(self, compute, rngs)


class MedCLIPText(Bert):
    """tokens [B, N] -> [B, D]: the mean over tokens of the outputs of the first, the second and the last block."""

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """Features of word embeddings float32 [B, N, D]; `tokens` only tells what is padding."""
        mask = tokens != self.config.pad_id
        _, means = self.hidden(words, mask, keys, lambda x: mean_of_tokens(x, mask))
        return (means[0] + means[1] + means[-1]) / 3
