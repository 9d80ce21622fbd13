"""The text tower of CLIP, causal and read at the end-of-text token, and of SigLIP, which reads padding, too.

Sources: open_clip `transformer.py: TextTransformer`, transformers `modeling_siglip.py` (the same under other names).
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

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
        x, c = self._run(words, tokens, keys), self.config
        if c.pool == "last":
            return self.norm(x[:, -1])
        return self.norm(jnp.take_along_axis(x, self._end(tokens)[:, None, None], axis=1)[:, 0])

    def token_states(self, tokens: Tokens, keys: Keys | None = None) -> tuple[Float[Array, "B m D"], Bool[Array, "B m"]]:
        """States of all tokens after the last norm, and which of them belong to the text, its end included.

        With pool "last" all `context_length` do: such a tower was trained to read padding.
        """
        x = self.norm(self._run(self.word[tokens], tokens, keys))
        if self.config.pool == "last":
            return x, jnp.ones(x.shape[:2], bool)
        return x, jnp.arange(x.shape[1]) <= self._end(tokens)[:, None]

    def _end(self, tokens: Tokens) -> Int[Array | np.ndarray, " B"]:
        """The index of the token that ends a text."""
        return (tokens if self.config.pool == "end" else tokens == self.config.eos_id).argmax(axis=-1)

    def _run(self, words: Words, tokens: Tokens, keys: Keys | None) -> Float[Array, "B _ D"]:
        """States after the last block, before the norm, of all tokens; of `context_length`, where padding is read."""
        c, n = self.config, tokens.shape[1]
        if c.reads_padding and n < c.context_length:  # padding that was cut off to save work, or is not there yet
            rows, missing = tokens.shape[0], c.context_length - n
            words = jnp.concatenate([words, jnp.broadcast_to(self.word[c.pad_id], (rows, missing, c.width))], axis=1)
            n = c.context_length
        x = jnp.asarray(words + self.position[:n]).astype(self.compute.dtype)
        mask = jnp.tril(jnp.ones((n, n), bool)) if c.causal else None
        return run_blocks(self.blocks, x, mask, keys, self.compute, self.gather)
