"""GPT-2 as text tower (transformers `GPT2Model`): CLEFT's BioMedLM, and any other size; and what LLaMA shares with it.

Padding is the end-of-text token on the right, as CLEFT pads (`find_last_word_token` in XYPB/CLEFT
`backbones/encoder_cleft.py`, and the tokenizer's attention mask): a text ends where the trailing padding begins,
and no padding token is looked at.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from biomedclip_jax.config import ComputeConfig, GPTConfig, LlamaConfig
from biomedclip_jax.models._shapes import Features, Hidden, Keys, Tokens, Words
from biomedclip_jax.models.layers import EMBEDDING_SITE, dropout
from biomedclip_jax.models.transformer import Gather, block_shape, layer_norm, prefix_length, run_blocks, stack_blocks


class GPT(nnx.Module):
    """tokens [B, N] -> features [B, D] of one token, after the final LayerNorm. N may be any length up to `context_length`."""

    def __init__(
        self,
        config: GPTConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        normal = nnx.initializers.normal(0.02)
        self.word = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width)))
        self.position = nnx.Param(normal(rngs.params(), (c.positions, c.width)))
        shape = block_shape(
            c,
            pre_norm=True,
            dropout=c.dropout,
            attention_dropout=c.attention_dropout,
            longest=c.positions,
            inverse_layer_scale=c.inverse_layer_scale,
        )
        self.blocks = stack_blocks(shape, compute, rngs)
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)

    def __call__(self, tokens: Tokens, keys: Keys | None = None) -> Features:
        """tokens int32 [B, N], padded on the right with `pad_id`; keys: one an example, turns dropout on."""
        tokens = with_end(tokens, self.config)
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Words, tokens: Tokens, keys: Keys | None = None) -> Features:
        """Features of word embeddings float32 [B, N, D], learned ones among them; `tokens` only tells where a text ends.

        With pool "first_eos" a text that fills all N columns counts as cut: `with_end` before, if it is not.
        """
        x, lengths = self._run(words, tokens, keys)
        return self.norm(pooled(x, lengths, self.config))  # the norm works on each token alone: one is enough

    def token_states(self, tokens: Tokens, keys: Keys | None = None) -> tuple[Float[Array, "B m D"], Bool[Array, "B m"]]:
        """States of all tokens after the final norm, and which of them belong to the text (`read_tokens`)."""
        tokens = with_end(tokens, self.config)
        x, lengths = self._run(self.word[tokens], tokens, keys)
        return self.norm(x), read_tokens(lengths, x.shape[1], self.config)

    def _run(self, words: Words, tokens: Tokens, keys: Keys | None) -> tuple[Hidden, Int[Array, " B"]]:
        """States after the last block, before the norm, and the length of each text."""
        n = tokens.shape[1]
        first = prefix_length(self.blocks.attention)
        positions = self.position[first : first + n]
        x = dropout(jnp.asarray(words + positions), self.config.embedding_dropout, keys, EMBEDDING_SITE)
        lengths = text_lengths(tokens, self.config.pad_id)
        x = run_blocks(self.blocks, x.astype(self.compute.dtype), seen(lengths, n), keys, self.compute, self.gather)
        return x, lengths


def with_end(tokens: Tokens, config: GPTConfig | LlamaConfig) -> Int[Array | np.ndarray, "B _"]:
    """The tokens with one more padding token, where "first_eos" would miss it because padding has been cut off.

    A caption that fills N columns then has an end unless N is `context_length`, where the tokenizer has left none.
    """
    if config.pool == "last_token" or tokens.shape[1] >= config.context_length:
        return tokens
    return jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=config.pad_id)


def text_lengths(tokens: Tokens, pad_id: int) -> Int[Array, " B"]:
    """How many tokens there are before the trailing padding; 0 for an empty text."""
    return jnp.max(jnp.where(tokens != pad_id, jnp.arange(1, tokens.shape[1] + 1), 0), axis=1)


def seen(lengths: Int[Array | np.ndarray, " B"], n: int) -> Bool[Array, "B 1 {n} {n}"]:
    """Which key a query looks at, at most its own position and never padding.

    So the token after a text sees all of the text and not itself. The first token of an empty text sees itself alone.
    """
    position = jnp.arange(n)
    real = position < jnp.maximum(lengths, 1)[:, None]
    return (position <= position[:, None]) & real[:, None, None, :]


def read_tokens(lengths: Int[Array | np.ndarray, " B"], n: int, config: GPTConfig | LlamaConfig) -> Bool[Array, "B {n}"]:
    """Which of n tokens belong to a text: those before the padding; with pool "first_eos" the first of it, too, its end.

    Of an empty text it is the first token, as in `seen`.
    """
    end = jnp.maximum(lengths, 1) if config.pool == "last_token" else lengths + 1
    return jnp.arange(n) < end[:, None]


def pooled(x: Words, lengths: Int[Array | np.ndarray, " B"], config: GPTConfig | LlamaConfig) -> Features:
    """The hidden state of the token that `config.pool` means."""
    last = jnp.maximum(lengths - 1, 0)
    first_eos = jnp.where(lengths < x.shape[1], lengths, 0)  # CLEFT's index -n for n padding tokens, also for n = 0
    position = last if config.pool == "last_token" else first_eos
    return jnp.take_along_axis(x, position[:, None, None], axis=1)[:, 0]
