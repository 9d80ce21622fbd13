"""LLaMA as text tower (transformers `LlamaModel`): meditron-7b, CLEFT's second choice, and any other size. No dropout."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import ComputeConfig, LlamaConfig
from biomedclip_jax.models.causal import pooled, seen, text_lengths, with_end
from biomedclip_jax.models.transformer import Gather, linear, run_blocks, stacked


def rms_norm(config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """x / sqrt(mean(x²) + eps) · scale, the mean in float32."""
    return nnx.RMSNorm(config.width, epsilon=config.rms_norm_eps, dtype=jnp.dtype(compute.dtype), rngs=rngs)


def rotate(x: Array, theta: float) -> Array:
    """x [B, ..., N, K] with each pair (k, k + K/2) of its numbers turned by n · theta^(-2k/K), n the place of the token."""
    n, half = x.shape[-2], x.shape[-1] // 2
    angle = jnp.arange(n, dtype=jnp.float32)[:, None] * theta ** -(jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class GroupedAttention(nnx.Module):
    """Self-attention in which groups of R neighbouring query heads share one head of keys and values."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.config = c
        narrow = c.width // c.heads * c.key_value_heads
        self.query = linear(c.width, c.width, compute, rngs, bias=False)
        self.key = linear(c.width, narrow, compute, rngs, bias=False)
        self.value = linear(c.width, narrow, compute, rngs, bias=False)
        self.out = linear(c.width, c.width, compute, rngs, bias=False)

    def __call__(self, x: Array, mask: Array) -> Array:
        """x [B, N, D]; mask bool [B, 1, N, N], True where a token may be looked at."""
        c, (b, n, d) = self.config, x.shape
        groups, k = c.key_value_heads, d // c.heads
        query = self.query(x).reshape(b, n, groups, c.heads // groups, k).transpose(0, 2, 3, 1, 4)
        key, value = (each(x).reshape(b, n, groups, k).transpose(0, 2, 1, 3) for each in (self.key, self.value))
        query, key = rotate(query, c.rope_theta), rotate(key, c.rope_theta)
        scores = jnp.einsum("bgrnk,bgmk->bgrnm", query, key, preferred_element_type=jnp.float32) * k**-0.5
        scores = jnp.where(mask[:, :, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = jnp.einsum("bgrnm,bgmk->bgrnk", weights, value)
        return self.out(y.transpose(0, 3, 1, 2, 4).reshape(b, n, d))


class LlamaBlock(nnx.Module):
    """x + attention(norm(x)), then x + down(silu(gate(norm(x))) · up(norm(x)))."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        c = config
        self.norm1 = rms_norm(c, compute, rngs)
        self.attention = GroupedAttention(c, compute, rngs)
        self.norm2 = rms_norm(c, compute, rngs)
        self.gate = linear(c.width, c.mlp_width, compute, rngs, bias=False)
        self.up = linear(c.width, c.mlp_width, compute, rngs, bias=False)
        self.down = linear(c.mlp_width, c.width, compute, rngs, bias=False)

    def __call__(self, x: Array, mask: Array, keys: Array | None, index: Array) -> Array:
        x = x + self.attention(self.norm1(x), mask)
        y = self.norm2(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y))


class Llama(nnx.Module):
    """tokens [B, N] -> features [B, D] of one token, after the final norm. N may be any length up to `context_length`."""

    def __init__(self, config: LlamaConfig, compute: ComputeConfig, rngs: nnx.Rngs, gather: Gather | None = None):
        c = config
        self.config = c
        self.compute = compute
        self.gather = gather
        self.word = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (c.vocab_size, c.width)))
        self.blocks = stacked(lambda rngs: LlamaBlock(c, compute, rngs), c.depth, rngs)
        self.norm = rms_norm(c, compute, rngs)

    def __call__(self, tokens: Array, keys: Array | None = None) -> Array:
        """tokens int32 [B, N], padded on the right with `pad_id`; `keys` is there for symmetry."""
        tokens = with_end(tokens, self.config)
        return self.from_words(self.word[tokens], tokens, keys)

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """The same of word embeddings float32 [B, N, D], as `GPT.from_words`."""
        lengths = text_lengths(tokens, self.config.pad_id)
        mask = seen(lengths, tokens.shape[1])
        x = run_blocks(self.blocks, words.astype(self.compute.dtype), mask, None, self.compute, self.gather)
        return self.norm(pooled(x, lengths, self.config))
