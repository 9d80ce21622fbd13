"""Attention, MLP and block, in the pre-norm form of ViT and CLIP and in the post-norm form of BERT; scanned over depth.

Parameters are float32. Matrix products run in the compute dtype; LayerNorm, softmax and residual sums of their inputs are
taken in float32 where it matters (see DESIGN section 5). Dropout is keyed by *example*: `keys` is an array of B keys, from
which each site derives its own, so that a caption's mask does not depend on where in which batch it stands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from biomedclip_jax.config import Activation, ComputeConfig


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
    return nnx.Linear(d_in, d_out, use_bias=bias, dtype=jnp.dtype(compute.dtype), kernel_init=init, rngs=rngs)


def dropout(x: Array, rate: float, keys: Array | None, site: int) -> Array:
    """Inverted dropout of x [B, ...] with one key an example; `site` tells the places inside a block apart."""
    if keys is None or rate == 0:
        return x

    def one(key: Array, row: Array) -> Array:
        keep = jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate, row.shape)
        return jnp.where(keep, row / (1 - rate), 0)

    return jax.vmap(one)(keys, x)


class Attention(nnx.Module):
    """Multi-head self-attention; queries, keys and values from one fused kernel [D, 3D], in this order."""

    def __init__(self, shape: BlockShape, compute: ComputeConfig, rngs: nnx.Rngs):
        self.qkv = linear(shape.width, 3 * shape.width, compute, rngs)
        self.out = linear(shape.width, shape.width, compute, rngs)
        self.heads = shape.heads
        self.dropout = shape.attention_dropout

    def __call__(self, x: Array, mask: Array | None, keys: Array | None) -> Array:
        """x [B, N, D]; mask bool, broadcastable to [B, H, N, N], True where a token may be looked at."""
        b, n, d = x.shape
        # [3, B, H, N, K] in one transposition: on CPU the products then run on contiguous heads
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
        scores = scores * (d // self.heads) ** -0.5
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1)
        weights = dropout(weights, self.dropout, keys, site=0).astype(x.dtype)
        return self.out(jnp.einsum("bhnm,bhmk->bnhk", weights, v).reshape(b, n, d))


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


def remat(body: Callable, compute: ComputeConfig) -> Callable:
    """The body of a scan, with what its backward pass is to recompute (`ComputeConfig.remat`)."""
    if compute.remat == "none":
        return body
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if compute.remat == "dots" else None
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def run_blocks(blocks: Block, x: Array, mask: Array | None, keys: Array | None, compute: ComputeConfig) -> Array:
    """x [B, N, D] through the stacked blocks, as one `lax.scan`: compile time does not grow with depth."""
    graph, state = nnx.split(blocks)
    depth = jax.tree.leaves(state)[0].shape[0]

    def body(x: Array, layer: tuple) -> tuple[Array, None]:
        weights, index = layer
        layer_keys = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        return nnx.merge(graph, weights)(x, mask, layer_keys), None

    return lax.scan(remat(body, compute), x, (state, jnp.arange(depth)), unroll=compute.unroll)[0]


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
