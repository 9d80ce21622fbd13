"""Attention, MLP and block, in the pre-norm form of ViT and CLIP and in the post-norm form of BERT; scanned over depth.

Parameters are float32. Matrix products run in the compute dtype; the statistics of a LayerNorm, attention scores
and their softmax are float32. Dropout is keyed by example (`layers.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float

from biomedclip_jax.config import Activation, ComputeConfig
from biomedclip_jax.models._layer_norm import LayerNorm
from biomedclip_jax.models._shapes import Features, Hidden, Index, Keys, Mask
from biomedclip_jax.models.layers import (
    KEPT_OF_ATTENTION,
    KEPT_OF_DROPOUT,
    KEPT_OF_NORM,
    Linear,
    attention_bits,
    attention_dropout,
    dropout,
    einsum,
    kept_share,
    linear,
    spread,
)

Gather = Callable[[dict[str, Any]], dict[str, Any]]
Streams = Any  # what blocks take and return: hidden states [B, N, D], or a tuple of such


@dataclass(frozen=True)
class BlockShape:
    """What a stack of blocks is made of; both towers reduce to this."""

    width: int
    heads: int
    mlp_width: int
    depth: int
    activation: Activation
    layer_norm_eps: float
    pre_norm: bool
    layer_scale: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    longest: int = 0  # tokens of the longest sequence; needed with attention_dropout
    inverse_layer_scale: bool = False  # scores of block i, counted from 1, are divided by i (BioMedLM)


def block_shape(config: Any, *, pre_norm: bool, **more: Any) -> BlockShape:
    """The shape of a tower's blocks: sizes from its config, which every one has; more: other fields of `BlockShape`."""
    c = config
    sizes = (c.width, c.heads, c.mlp_width, c.depth, c.activation, c.layer_norm_eps)
    return BlockShape(*sizes, pre_norm=pre_norm, **more)


@jax.custom_jvp
def exact_gelu(x: Array) -> Array:
    """x·Φ(x), with Φ by the error function, as PyTorch computes it. `jax.nn.gelu` has erfc: digits that only count far
    below 0, at 2.6 times the work on CPU. In float32: XLA for GPUs writes an argument rounded to bfloat16 to memory.
    """
    wide = x.astype(jnp.float32)
    return (wide * _below(wide)).astype(x.dtype)


def _below(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


@exact_gelu.defjvp
def _exact_gelu_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # by hand, because jax 0.12.0 cannot differentiate erf inside shard_map (0.10 can)
    (x,), (dx,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (2 * jnp.pi) ** -0.5
    return exact_gelu(x), dx * (_below(wide) + wide * density).astype(x.dtype)


def activate(x: Float[Array, "*n"], kind: Activation) -> Float[Array, "*n"]:
    """GELU exactly as the checkpoint was trained with it: erf form, tanh form, or CLIP's x·sigmoid(1.702x)."""
    if kind == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=True) if kind == "gelu_tanh" else exact_gelu(x)


def layer_norm(width: int, eps: float, compute: ComputeConfig, rngs: nnx.Rngs) -> LayerNorm:
    """A LayerNorm of the compute dtype."""
    return LayerNorm(width, epsilon=eps, dtype=jnp.dtype(compute.dtype), rngs=rngs)


class BlockLinear(Linear):
    """A dense layer of a block, x·W + b.

    It is called with the example's keys and the block's index, too, for the layers that adapters put in its place
    (`adapters.py`).
    """

    def __call__(  # pyright: ignore
        self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0
    ) -> Float[Array, "B *n F"]:
        return super().__call__(x)


class Attention(nnx.Module):
    """Multi-head self-attention; queries, keys and values from one fused kernel [D, 3D], in this order."""

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.qkv = linear(shape.width, 3 * shape.width, compute, rngs, kind=BlockLinear)
        self.out = linear(shape.width, shape.width, compute, rngs, kind=BlockLinear)
        self.prefix: Any = nnx.data(None)  # or `adapters.Prefix`
        self.heads = shape.heads
        self.dropout = shape.attention_dropout
        self.longest = shape.longest
        self.inverse_layer_scale = shape.inverse_layer_scale
        width = shape.width // shape.heads
        # blocks of a kernel have powers of two of numbers, its masks 32 bits
        fits = width in (16, 32, 64, 128) and shape.heads <= 32 and not shape.inverse_layer_scale
        self.fused = compute.attention == "fused" and fits

    def __call__(
        self, x: Hidden, mask: Mask | None, keys: Keys | None, index: Index | int, first: int | None = None
    ) -> Float[Array, "B _ D"]:
        """mask: broadcastable to [B, H, N, N], True where a token may be looked at; index: of the block.

        first: how many of the tokens look at all of them, from the first on; the others are not in the result. None: all.
        """
        b, n, d = x.shape
        qkv = self.qkv(x, keys, index).reshape(b, n, 3, self.heads, d // self.heads)
        if self.fused and first is None and self.prefix is None and (mask is None or mask.shape[1:3] == (1, 1)):
            return self.out(self._fused(qkv, mask, keys), keys, index)
        # [3, B, H, N, K] in one transposition: on CPU the products then run on contiguous heads
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        if self.prefix is not None:
            k, v, mask = self.prefix(k, v, mask)
        q = q[:, :, :first]
        q = q * jnp.asarray((d // self.heads) ** -0.5, q.dtype)  # a power of two for K = 64, and fewer numbers than the scores
        scores = einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
        if self.inverse_layer_scale:
            scores = scores / (index + 1)
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1)
        weights = attention_dropout(weights, self.dropout, keys, self.longest + prefix_length(self)).astype(x.dtype)
        y = einsum("bhnm,bhmk->bhnk", weights, v)  # turned afterwards: as one einsum, CPU multiplies it transposed
        return self.out(y.transpose(0, 2, 1, 3).reshape(b, -1, d), keys, index)

    def _fused(self, qkv: Float[Array, "B N 3 H K"], mask: Mask | None, keys: Keys | None) -> Hidden:
        """The same in one kernel. mask: of keys, [B, 1, 1, N]."""
        from biomedclip_jax.models._fused_attention import fused_attention  # Pallas takes half a second to import

        seen = None if mask is None else jnp.broadcast_to(mask[:, 0, 0], qkv.shape[:2])
        if keys is None or self.dropout == 0:
            return fused_attention(qkv, seen, None)
        keep = attention_bits(keys, self.dropout, self.heads, qkv.shape[1], self.longest)
        return fused_attention(qkv, seen, keep, kept_share(self.dropout))


def prefix_length(attention: Any) -> int:
    """How many trained keys stand before those of the tokens, in one attention or in those of stacked blocks.

    Positions of tokens are counted on from them, as transformers does with past keys.
    """
    return 0 if attention.prefix is None else attention.prefix.virtual_keys.shape[-2]


class MLP(nnx.Module):
    """Two dense layers with an activation between."""

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.fc1 = linear(shape.width, shape.mlp_width, compute, rngs, kind=BlockLinear)
        self.fc2 = linear(shape.mlp_width, shape.width, compute, rngs, kind=BlockLinear)
        self.activation: Activation = shape.activation

    def __call__(self, x: Float[Array, "B *n D"], keys: Keys | None = None, index: Index | int = 0) -> Float[Array, "B *n D"]:
        """keys and index, of the block, are for adapters."""
        return self.fc2(activate(self.fc1(x, keys, index), self.activation), keys, index)


class Block(nnx.Module):
    """A transformer block: attention, then an MLP. Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x)). LayerScale: f times
    a learned vector.
    """

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.norm1 = layer_norm(shape.width, shape.layer_norm_eps, compute, rngs)
        self.attention = Attention(shape, compute, rngs)
        self.norm2 = layer_norm(shape.width, shape.layer_norm_eps, compute, rngs)
        self.mlp = MLP(shape, compute, rngs)
        if shape.layer_scale:
            self.scale1 = nnx.Param(jnp.full(shape.width, 1e-5))
            self.scale2 = nnx.Param(jnp.full(shape.width, 1e-5))
        self.pre_norm = shape.pre_norm
        self.layer_scale = shape.layer_scale
        self.dropout = shape.dropout

    def __call__(
        self, x: Hidden, mask: Mask | None, keys: Keys | None, index: Index | int, first: int | None = None
    ) -> Float[Array, "B _ D"]:
        """first: how many tokens to work out, from the first on; None: all."""
        if self.pre_norm:
            x = x[:, :first] + self.branch(self.attention(self.norm1(x), mask, keys, index, first), keys, 1)
            return x + self.branch(self.mlp(self.norm2(x), keys, index), keys, 2)
        x = self.norm1(x[:, :first] + self.branch(self.attention(x, mask, keys, index, first), keys, 1))
        return self.norm2(x + self.branch(self.mlp(x, keys, index), keys, 2))

    def branch(self, y: Array, keys: Array | None, site: int) -> Array:
        """What attention (site 1) or MLP (site 2) gave, as it is added: by its LayerScale, after dropout."""
        if self.layer_scale:
            y = y * spread((self.scale1 if site == 1 else self.scale2)[...], y.shape, y.dtype)
        return dropout(y, self.dropout, keys, site)


def stacked(make: Callable[[nnx.Rngs], Any], depth: int, rngs: nnx.Rngs) -> Any:
    """`depth` modules as one whose parameters carry a leading axis L. make: one of them."""
    return nnx.split_rngs(splits=depth)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)


def stack_blocks(shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs) -> Block:
    """The blocks of a tower as one module (`stacked`)."""
    return stacked(lambda rngs: Block(shape, compute, rngs), shape.depth, rngs)


def _keep_all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in ("all_gather", "custom_vjp_call", "convert_element_type")


def remat(body: Callable, compute: ComputeConfig, gathers: bool = False, depth: int = 2) -> Callable:
    """The body of a scan of `depth` turns, with what its backward pass is to recompute (`ComputeConfig.remat`).

    gathers: the body puts split weights together; these are never kept for the backward pass but gathered again.
    """
    if compute.remat == "none" and not gathers:
        return body
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    kept = jax.checkpoint_policies.save_only_these_names(KEPT_OF_ATTENTION, KEPT_OF_NORM, KEPT_OF_DROPOUT)
    policy = {
        "none": _keep_all_but_weights,
        "dots": jax.checkpoint_policies.save_from_both_policies(dots, kept),
        "full": None,
    }[compute.remat]
    # barriers where no loop parts the two passes, and XLA would merge them (for CPU see `train/_compiler_options.py`)
    return jax.checkpoint(body, policy=policy, prevent_cse=compute.unroll > 1 or depth == 1)


def run_blocks(
    blocks: Any,
    x: Streams,
    mask: Mask | None,
    keys: Keys | None,
    compute: ComputeConfig,
    gather: Gather | None = None,
) -> Streams:
    """x through the stacked blocks, as one `lax.scan`: compile time does not grow with depth.

    blocks: `stacked` modules that are called as a `Block` is, with (x, mask, keys, index), and return what x is then.

    gather: makes the whole weights of one block from split ones, just before they are used, in the backward pass again.
    """
    return read_blocks(blocks, x, mask, keys, compute, gather, lambda x: None)[0]


def read_blocks(
    blocks: Any,
    x: Streams,
    mask: Mask | None,
    keys: Keys | None,
    compute: ComputeConfig,
    gather: Gather | None,
    read: Callable[[Streams], Any],
) -> tuple[Streams, Any]:
    """Run the blocks as `run_blocks` does; returns x, and read(x) after each block, stacked [L, ...]."""
    graph, state = nnx.split(blocks)
    depth = jax.tree.leaves(state)[0].shape[0]

    def body(x: Streams, layer: tuple) -> tuple[Streams, Any]:
        weights, index = layer
        layer_keys = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        if gather is not None:
            weights = gather(nnx.to_pure_dict(weights))
        x = nnx.merge(graph, weights)(x, mask, layer_keys, index)
        return x, read(x)

    body = remat(body, compute, gather is not None, depth)
    return lax.scan(body, x, (state, jnp.arange(depth)), unroll=compute.unroll)


def first_token(blocks: Any, x: Hidden, mask: Mask | None) -> Features:
    """The first token [B, D] after the stacked blocks, without dropout; for inference.

    The last block works out nothing else, which saves most of it. Blocks take their weights out of the whole stack, so
    that the others' are not copied for the scan to end one block early; the gradient would be slow that way.
    """
    graph, state = nnx.split(blocks)
    depth = jax.tree.leaves(state)[0].shape[0]

    def block(index: Index | int) -> Any:
        return nnx.merge(graph, jax.tree.map(lambda stack: stack[index], state))

    x = lax.fori_loop(0, depth - 1, lambda index, x: block(index)(x, mask, None, index), x)
    return block(depth - 1)(x, mask, None, depth - 1, first=1)[:, 0]
