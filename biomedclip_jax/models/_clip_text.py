"""The text tower of CLIP, causal and read at the end-of-text token, and of SigLIP, which reads padding, too.

Sources: open_clip `transformer.py: TextTransformer`, transformers `modeling_siglip.py` (the same under other names).
"""

import jax.numpy as jnp
from flax import nnx

from biomedclip_jax.config import ClipTextConfig, ComputeConfig
from biomedclip_jax.models._shapes import Features, Keys, Tokens, Words
from biomedclip_jax.models.transformer import Gather, block_shape, layer_norm, run_blocks, stack_blocks


class ClipText(nnx.Module):
    """tokens [B, N] -> features [B, D] of the token that `pool` says: the largest id, `eos_id` or the last."""

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
        c, n = self.config, tokens.shape[1]
        if c.reads_padding and n < c.context_length:  # padding that was cut off to save work, or is not there yet
            rows, missing = len(tokens), c.context_length - n
            words = jnp.concatenate([words, jnp.broadcast_to(self.word[c.pad_id], (rows, missing, c.width))], axis=1)
            n = c.context_length
        x = jnp.asarray(words + self.position[:n]).astype(self.compute.dtype)
        mask = jnp.tril(jnp.ones((n, n), bool)) if c.causal else None
        x = run_blocks(self.blocks, x, mask, keys, self.compute, self.gather)
        if c.pool == "last":
            return self.norm(x[:, -1])
        end = (tokens if c.pool == "end" else tokens == c.eos_id).argmax(axis=-1)[:, None, None]
        return self.norm(jnp.take_along_axis(x, end, axis=1)[:, 0])
