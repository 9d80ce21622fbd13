"""BERT and RoBERTa as text tower (transformers `BertModel`, `RobertaModel`, open_clip `HFTextEncoder`), with its ways of
pooling.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.models._shapes import Features, Hidden, Keys, Tokens, Words
from biomedclip_jax.models.layers import EMBEDDING_SITE, dropout, linear
from biomedclip_jax.models.transformer import (
    Gather,
    block_shape,
    first_token,
    layer_norm,
    prefix_length,
    read_blocks,
    stack_blocks,
)


class Bert(nnx.Module):
    """tokens [B, N] -> pooled features [B, D]. Padding is told by `pad_id`; N may be any length up to `positions`."""

    def __init__(
        self,
        config: BertConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.inference = False
        normal = nnx.initializers.normal(0.02)
        self.word = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width)))
        self.position = nnx.Param(normal(rngs.params(), (c.positions, c.width)))
        self.token_type = nnx.Param(normal(rngs.params(), (c.token_types, c.width)))
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)
        shape = block_shape(c, pre_norm=False, dropout=c.dropout, attention_dropout=c.attention_dropout, longest=c.positions)
        self.blocks = stack_blocks(shape, compute, rngs)
        if c.pool == "cls_pooler":
            self.pooler = linear(c.width, c.width, compute, rngs)

    def __call__(self, tokens: Tokens, keys: Keys | None = None) -> Features:
        """tokens int32 [B, N]; keys: one an example, turns dropout on."""
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Words, tokens: Tokens, keys: Keys | None = None) -> Array:
        """Features of word embeddings float32 [B, N, D], learned ones among them; `tokens` only tells what is padding."""
        mask = tokens != self.config.pad_id
        if self.inference and keys is None and self.config.pool in ("cls", "cls_pooler"):
            x = first_token(self.blocks, self._embed(words, None), mask[:, None, None, :])
            return self.pool(x[:, None], mask[:, :1])
        return self.pool(self.hidden(words, mask, keys)[0], mask)

    def token_states(self, tokens: Tokens, keys: Keys | None = None) -> tuple[Hidden, Bool[Array, "B N"]]:
        """States [B, N, D] of all tokens after the last block, and which tokens are no padding."""
        mask = jnp.asarray(tokens != self.config.pad_id)
        return self.hidden(self.word[tokens], mask, keys)[0], mask

    def hidden(
        self,
        words: Words,
        mask: Bool[Array | np.ndarray, "B N"] | None,
        keys: Keys | None,
        read: Callable[[Array], Any] = lambda x: None,
    ) -> tuple[Array, Any]:
        """States [B, N, D] of the last block, and what `read` makes of those of each block, stacked [L, ...].

        words: float32 [B, N, D]; mask: bool [B, N], False where no token may look; None: they look at all.
        """
        seen = None if mask is None else mask[:, None, None, :]
        return read_blocks(self.blocks, self._embed(words, keys), seen, keys, self.compute, self.gather, read)

    def _embed(self, words: Words, keys: Keys | None) -> Hidden:
        first = self.config.position_offset + prefix_length(self.blocks.attention)
        x = self.norm(words + self.position[first : first + words.shape[1]] + self.token_type[0])
        return dropout(x, self.config.dropout, keys, EMBEDDING_SITE)

    def pool(self, x: Hidden, mask: Bool[Array | np.ndarray, "B N"]) -> Array:
        """[B, D] of the states of the last block; mask: False where a token is padding."""
        match self.config.pool:
            case "cls":
                return x[:, 0]
            case "cls_pooler":
                return jnp.tanh(self.pooler(x[:, 0]))
            case "max":
                return jnp.where(mask[..., None], x, -jnp.inf).max(axis=1)
        return mean_of_tokens(x, mask)


def mean_of_tokens(x: Hidden, mask: Bool[Array | np.ndarray, "B N"]) -> Features:
    """The mean over the tokens where the mask is True."""
    mask = mask[..., None]
    return jnp.where(mask, x, 0).sum(axis=1) / mask.sum(axis=1).astype(x.dtype)
