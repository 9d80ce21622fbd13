"""Attention, MLP and block, in the pre-norm form of ViT and CLIP and in the post-norm form of BERT; scanned over depth.

Parameters are float32. Matrix products run in the compute dtype; LayerNorm, softmax and residual sums of their inputs are
taken in float32 where it matters (see DESIGN section 5). Dropout is keyed by *example*: `keys` is an array of B keys, from
which each site derives its own, so that a caption's mask does not depend on where in which batch it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.extend.random import threefry2x32_p

from biomedclip_jax.config import Activation, ComputeConfig
from biomedclip_jax.models.dense import product

Gather = Callable[[dict[str, Any]], dict[str, Any]]


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


@jax.custom_jvp
def exact_gelu(x: Array) -> Array:
    """x·Φ(x), with Φ by the error function."""
    return jax.nn.gelu(x, approximate=False)


@exact_gelu.defjvp
def _exact_gelu_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # by hand, because jax 0.12.0 cannot differentiate erf inside shard_map (0.10 can)
    (x,), (dx,) = primals, tangents
    below = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    density = jnp.exp(-0.5 * x * x) * (2 * jnp.pi) ** -0.5
    return exact_gelu(x), dx * (below + x * density)


def activate(x: Array, kind: Activation) -> Array:
    """GELU exactly as the checkpoint was trained with it: erf form, tanh form, or CLIP's x·sigmoid(1.702x)."""
    if kind == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=True) if kind == "gelu_tanh" else exact_gelu(x)


def layer_norm(width: int, eps: float, compute: ComputeConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with float32 statistics. The two-pass variance is the one PyTorch uses; the fast one loses digits."""
    return nnx.LayerNorm(width, epsilon=eps, dtype=jnp.dtype(compute.dtype), use_fast_variance=False, rngs=rngs)


def linear(d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs, *, bias: bool = True) -> nnx.Linear:
    """Dense layer, kernel [in, out] (the transpose of PyTorch's).

    Initial variance 1 / (3·in): that of PyTorch's default, 0.021² at width 768 (BERT and ViT-B use 0.02²).
    """
    init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "truncated_normal")
    dtype = jnp.dtype(compute.dtype)
    return nnx.Linear(d_in, d_out, use_bias=bias, dtype=dtype, kernel_init=init, dot_general=product, rngs=rngs)


def _keeps(keys: Array, site: int, rate: float, counters: Array) -> Array:
    """Which draws are kept: bool [B, 4, ...] for B keys and counters uint32 [...], each kept with probability 1 - rate.

    One threefry block of 64 bits gives four draws of 16 bits; a draw is a function of key, site, counter and lane alone.
    """

    def one(key: Array) -> Array:
        k1, k2 = jax.random.key_data(jax.random.fold_in(key, site))
        k1, k2, high = (jnp.broadcast_to(x, counters.shape) for x in (k1, k2, jnp.uint32(0)))
        a, b = threefry2x32_p.bind(k1, k2, high, counters)
        return jnp.stack([a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16]) >= jnp.uint32(round(rate * (1 << 16)))

    return jax.vmap(one)(keys)


def _dropped(x: Array, keep: Array, rate: float) -> Array:
    kept = max(1, (1 << 16) - round(rate * (1 << 16))) / (1 << 16)
    return jnp.where(keep, x * jnp.asarray(1 / kept, x.dtype), 0)


def dropout(x: Array, rate: float, keys: Array | None, site: int) -> Array:
    """Inverted dropout of x [B, N, D] with one key an example; `site` tells the places inside a block apart.

    The mask of a token does not depend on N: the same caption has the same mask however long it is padded.
    """
    if keys is None or rate == 0:
        return x
    b, n, d = x.shape
    quarter = -(-d // 4)
    counters = jnp.arange(n * quarter, dtype=jnp.uint32).reshape(n, quarter)
    keep = _keeps(keys, site, rate, counters).transpose(0, 2, 1, 3).reshape(b, n, 4 * quarter)[..., :d]
    return _dropped(x, keep, rate)


def attention_dropout(weights: Array, rate: float, keys: Array | None, longest: int) -> Array:
    """Inverted dropout of attention weights [B, H, N, N], N at most `longest`; the mask does not depend on N either."""
    if keys is None or rate == 0:
        return weights
    b, heads, n, _ = weights.shape
    quarter = -(-heads // 4)
    group, row, column = jnp.ogrid[:quarter, :n, :n]
    counters = ((group * longest + row) * longest + column).astype(jnp.uint32)
    keep = _keeps(keys, 0, rate, counters).reshape(b, 4 * quarter, n, n)[:, :heads]
    return _dropped(weights, keep, rate)


class Attention(nnx.Module):
    """Multi-head self-attention; queries, keys and values from one fused kernel [D, 3D], in this order."""

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.qkv = linear(shape.width, 3 * shape.width, compute, rngs)
        self.out = linear(shape.width, shape.width, compute, rngs)
        self.heads = shape.heads
        self.dropout = shape.attention_dropout
        self.longest = shape.longest

    def __call__(self, x: Array, mask: Array | None, keys: Array | None) -> Array:
        """x [B, N, D]; mask bool, broadcastable to [B, H, N, N], True where a token may be looked at."""
        b, n, d = x.shape
        # [3, B, H, N, K] in one transposition: on CPU the products then run on contiguous heads
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).transpose(2, 0, 3, 1, 4)
        q = q * jnp.asarray((d // self.heads) ** -0.5, q.dtype)  # a power of two for K = 64, and fewer numbers than the scores
        scores = jnp.einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1)
        weights = attention_dropout(weights, self.dropout, keys, self.longest).astype(x.dtype)
        y = jnp.einsum("bhnm,bhmk->bhnk", weights, v)  # turned afterwards: as one einsum, CPU multiplies it transposed
        return self.out(y.transpose(0, 2, 1, 3).reshape(b, n, d))


class MLP(nnx.Module):
    """Two dense layers with an activation between."""

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.fc1 = linear(shape.width, shape.mlp_width, compute, rngs)
        self.fc2 = linear(shape.mlp_width, shape.width, compute, rngs)
        self.activation: Activation = shape.activation

    def __call__(self, x: Array) -> Array:
        return self.fc2(activate(self.fc1(x), self.activation))


class Block(nnx.Module):
    """One transformer block. Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x)). LayerScale multiplies f."""

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

    def __call__(self, x: Array, mask: Array | None, keys: Array | None) -> Array:
        if self.pre_norm:
            x = x + self._branch(self.attention(self.norm1(x), mask, keys), keys, 1)
            return x + self._branch(self.mlp(self.norm2(x)), keys, 2)
        x = self.norm1(x + self._branch(self.attention(x, mask, keys), keys, 1))
        return self.norm2(x + self._branch(self.mlp(x), keys, 2))

    def _branch(self, y: Array, keys: Array | None, site: int) -> Array:
        if self.layer_scale:
            y = y * (self.scale1 if site == 1 else self.scale2)[...].astype(y.dtype)
        return dropout(y, self.dropout, keys, site)


def stack_blocks(shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs) -> Block:
    """`depth` blocks as one module whose parameters carry a leading axis L."""

    @nnx.split_rngs(splits=shape.depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs: nnx.Rngs) -> Block:
        return Block(shape, compute, rngs)

    return make(rngs)


def _keep_all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name not in ("all_gather", "custom_vjp_call", "convert_element_type")


def remat(body: Callable, compute: ComputeConfig, gathers: bool) -> Callable:
    """The body of a scan, with what its backward pass is to recompute (`ComputeConfig.remat`).

    gathers: the body puts split weights together; these are never kept for the backward pass but gathered again.
    """
    if compute.remat == "none" and not gathers:
        return body
    policy = {
        "none": _keep_all_but_weights,
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": None,
    }[compute.remat]
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def run_blocks(
    blocks: Block, x: Array, mask: Array | None, keys: Array | None, compute: ComputeConfig, gather: Gather | None = None
) -> Array:
    """x [B, N, D] through the stacked blocks, as one `lax.scan`: compile time does not grow with depth.

    gather: makes the whole weights of one block from split ones, just before they are used, in the backward pass again.
    """
    graph, state = nnx.split(blocks)
    depth = jax.tree.leaves(state)[0].shape[0]

    def body(x: Array, layer: tuple) -> tuple[Array, None]:
        weights, index = layer
        layer_keys = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        if gather is not None:
            weights = gather(nnx.to_pure_dict(weights))
        return nnx.merge(graph, weights)(x, mask, layer_keys), None

    return lax.scan(remat(body, compute, gather is not None), x, (state, jnp.arange(depth)), unroll=compute.unroll)[0]


class Head(nnx.Module):
    """From pooled features to the joint space: one dense layer, two with an exact GELU between, or nothing."""

    def __init__(self, kind: str, widths: tuple[int, ...], biases: tuple[bool, ...], compute: ComputeConfig, rngs: nnx.Rngs):
        """widths = (in, out) for "linear", (in, hidden, out) for "mlp", anything for "none"; biases one a layer."""
        self.kind = kind
        if kind == "linear":
            self.proj = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
        elif kind == "mlp":
            self.fc1 = linear(widths[0], widths[1], compute, rngs, bias=biases[0])
            self.fc2 = linear(widths[1], widths[2], compute, rngs, bias=biases[1])

    def __call__(self, x: Array) -> Array:
        if self.kind == "linear":
            return self.proj(x)
        if self.kind == "mlp":
            return self.fc2(activate(self.fc1(x), "gelu"))
        return x
