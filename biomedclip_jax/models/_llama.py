"""LLaMA as text tower (transformers `LlamaModel`): meditron-7b, CLEFT's second choice, and any other size.

There is no dropout but that of an adapter.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from biomedclip_jax.config import ComputeConfig, LlamaConfig
from biomedclip_jax.models._gpt import pooled, read_tokens, seen, text_lengths, with_end
from biomedclip_jax.models._shapes import Features, Hidden, Index, Keys, Tokens, Words
from biomedclip_jax.models.layers import einsum, linear
from biomedclip_jax.models.transformer import BlockLinear, Gather, prefix_length, run_blocks, stacked


def rms_norm(config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """x / sqrt(mean(x²) + eps) · scale, the mean in float32."""
    return nnx.RMSNorm(config.width, epsilon=config.rms_norm_eps, dtype=jnp.dtype(compute.dtype), rngs=rngs)


def rotate(x: Float[Array, "B *H N K"], theta: float, first: int = 0) -> Float[Array, "B *H N K"]:
    """x with each pair (k, k + K/2) of its numbers turned by n · theta^(-2k/K), n the position of the token.

    first: position of the first token.
    """
    n, half = x.shape[-2], x.shape[-1] // 2
    angle = jnp.arange(first, first + n, dtype=jnp.float32)[:, None] * theta ** -(jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _dense(d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs) -> BlockLinear:
    return linear(d_in, d_out, compute, rngs, bias=False, kind=BlockLinear)


class GroupedAttention(nnx.Module):
    """Self-attention in which groups of H / G neighbouring query heads share one head of keys and values."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.config = c
        narrow = c.width // c.heads * c.key_value_heads
        self.query = _dense(c.width, c.width, compute, rngs)
        self.key = _dense(c.width, narrow, compute, rngs)
        self.value = _dense(c.width, narrow, compute, rngs)
        self.out = _dense(c.width, c.width, compute, rngs)
        self.prefix: Any = nnx.data(None)  # or `adapters.Prefix`

    def __call__(self, x: Hidden, mask: Bool[Array, "B 1 N N"], keys: Keys | None, index: Index) -> Hidden:
        """mask is True where a token may be looked at; keys and index are for adapters."""
        c, (b, n, d) = self.config, x.shape
        groups, k = c.key_value_heads, d // c.heads
        query = self.query(x, keys, index).reshape(b, n, groups, c.heads // groups, k).transpose(0, 2, 3, 1, 4)
        narrow = (layer(x, keys, index) for layer in (self.key, self.value))
        key, value = (each.reshape(b, n, groups, k).transpose(0, 2, 1, 3) for each in narrow)
        query, key = (rotate(each, c.rope_theta, prefix_length(self)) for each in (query, key))
        if self.prefix is not None:  # its keys are not turned: transformers keeps past keys as they were used
            key, value, mask = self.prefix(key, value, mask)  # type: ignore[assignment]
        scores = einsum("bgrnk,bgmk->bgrnm", query, key, preferred_element_type=jnp.float32) * k**-0.5
        scores = jnp.where(mask[:, :, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = einsum("bgrnm,bgmk->bgrnk", weights, value)
        return self.out(y.transpose(0, 3, 1, 2, 4).reshape(b, n, d), keys, index)


class GatedMLP(nnx.Module):
    """LLaMA's MLP (SwiGLU): down(silu(gate(x)) · up(x)), three dense layers without biases."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.gate = _dense(c.width, c.mlp_width, compute, rngs)
        self.up = _dense(c.width, c.mlp_width, compute, rngs)
        self.down = _dense(c.mlp_width, c.width, compute, rngs)

    def __call__(self, x: Hidden, keys: Keys | None, index: Index) -> Hidden:
        """keys and index, of the block, are for adapters."""
        return self.down(jax.nn.silu(self.gate(x, keys, index)) * self.up(x, keys, index), keys, index)


class LlamaBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        self.norm1 = rms_norm(config, compute, rngs)
        self.attention = GroupedAttention(config, compute, rngs)
        self.norm2 = rms_norm(config, compute, rngs)
        self.mlp = GatedMLP(config, compute, rngs)

    def __call__(self, x: Hidden, mask: Bool[Array, "B 1 N N"], keys: Keys | None, index: Index) -> Hidden:
        x = x + self.attention(self.norm1(x), mask, keys, index)
        return x + self.mlp(self.norm2(x), keys, index)


class Llama(nnx.Module):
    """tokens [B, N] -> features [B, D] of one token, after the final norm. N may be any length up to `context_length`."""

    def __init__(
        self,
        config: LlamaConfig,
        compute: ComputeConfig,
        rngs: nnx.Rngs,
        gather: Gather | None = None,
    ):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.word = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (c.vocab_size, c.width)))
        self.blocks = stacked(lambda rngs: LlamaBlock(c, compute, rngs), c.depth, rngs)
        self.norm = rms_norm(c, compute, rngs)

    def __call__(self, tokens: Tokens, keys: Keys | None = None) -> Features:
        """tokens int32 [B, N], padded on the right with `pad_id`; keys: one an example, turns the dropout of an adapter on."""
        tokens = with_end(tokens, self.config)
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Words, tokens: Tokens, keys: Keys | None = None) -> Features:
        """Features of word embeddings float32 [B, N, D], learned ones among them; `tokens` only tells where a text ends."""
        x, lengths = self._run(words, tokens, keys)
        return self.norm(pooled(x, lengths, self.config))

    def token_states(self, tokens: Tokens, keys: Keys | None = None) -> tuple[Float[Array, "B m D"], Bool[Array, "B m"]]:
        """States of all tokens after the final norm, and which of them belong to the text (`read_tokens`)."""
        tokens = with_end(tokens, self.config)
        x, lengths = self._run(self.word[tokens], tokens, keys)
        return self.norm(x), read_tokens(lengths, x.shape[1], self.config)

    def _run(self, words: Words, tokens: Tokens, keys: Keys | None) -> tuple[Hidden, Int[Array, " B"]]:
        """States after the last block, before the norm, and the length of each text."""
        lengths = text_lengths(tokens, self.config.pad_id)
        mask = seen(lengths, tokens.shape[1])
        return run_blocks(self.blocks, jnp.asarray(words, self.compute.dtype), mask, keys, self.compute, self.gather), lengths
