"""CLIP's own text tower: a causal transformer read at the end-of-text token (open_clip `TextTransformer`)."""

import jax.numpy as jnp
from flax import nnx

from biomedclip_jax.config import ClipTextConfig, ComputeConfig
from biomedclip_jax.models._shapes import Features, Keys, Tokens, Words
from biomedclip_jax.models.transformer import Gather, block_shape, layer_norm, run_blocks, stack_blocks


class ClipText(nnx.Module):
    """tokens [B, N] -> features [B, D] of the end-of-text token, the largest id of a row."""

    def __init__(
        self,
        config: ClipTextConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.word = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (c.vocab_size, c.width)))
        self.position = nnx.Param(nnx.initializers.normal(0.01)(rngs.params(), (c.context_length, c.width)))
        shape = block_shape(c, pre_norm=True)
        self.blocks = stack_blocks(shape, compute, rngs)
        self.norm = layer_norm(c.width, c.layer_norm_eps, compute, rngs)

    def __call__(self, tokens: Tokens, keys: Keys | None = None) -> Features:
        """tokens int32 [B, N], N up to `context_length`. keys: one an example, for an adapter's dropout; the tower has none."""
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Words, tokens: Tokens, keys: Keys | None = None) -> Features:
        """Features of word embeddings float32 [B, N, D], learned ones among them; `tokens` only tells where a text ends."""
        n = tokens.shape[1]
        x = jnp.asarray(words + self.position[:n]).astype(self.compute.dtype)
        causal = jnp.tril(jnp.ones((n, n), bool))
        x = run_blocks(self.blocks, x, causal, keys, self.compute, self.gather)
        end = tokens.argmax(axis=-1)[:, None, None]
        return self.norm(jnp.take_along_axis(x, end, axis=1)[:, 0])
