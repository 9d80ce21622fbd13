"""PMC-CLIP's text tower: a BERT that looks at padding, as it did in training, where no mask was given."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.models.bert import Bert


@dataclass(frozen=True)
class PmcClipTextConfig(BertConfig):
    """A BERT whose texts are always as long as `context_length`, padding included."""

    quirk: ClassVar[str] = "it looks at padding, as PMC-CLIP's does"

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "PmcClipText":
        """The tower with fresh parameters."""
        return PmcClipText(self, compute, rngs)


class PmcClipText(Bert):
    """tokens [B, N] -> [B, D]. Whatever padding is missing up to `context_length` is added, so that N does not matter."""

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """Features of word embeddings float32 [B, N, D]; `tokens` only tells pooling what is padding."""
        pad = self.config.pad_id
        missing = self.config.context_length - tokens.shape[1]
        if missing > 0:
            rows = len(tokens)
            tokens = jnp.concatenate([tokens, jnp.full((rows, missing), pad, tokens.dtype)], axis=1)
            padding = jnp.broadcast_to(self.word[pad], (rows, missing, words.shape[-1]))
            words = jnp.concatenate([words, padding.astype(words.dtype)], axis=1)
        return self.pool(self.hidden(words, None, keys)[0], tokens != pad)
