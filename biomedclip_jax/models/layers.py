"""Layers that all towers share: dense ones, and dropout keyed by example.

The product of a dense layer has a gradient rule of its own. JAX's makes the kernel's gradient as (gradientᵀ · x)ᵀ; XLA
for CPU then copies the whole transposed gradient and packs both operands against the grain: an eighth of the
training step at BiomedCLIP's size. Here the narrower of the two operands is the transposed one. The numbers are the
same. On an A100 and on a TPU v5e it costs nothing: steps compiled for them have the same copies, transposes and
memory either way.

Dropout takes `keys`, an array of B keys, from which each site derives its own. So the mask of a caption depends
neither on its row in a batch nor on how far it is padded: the random bits are made from counters by hand, because
those of `jax.random.bernoulli` for attention weights change with the length. What that costs in compiled steps is in
docs/measurements.md: nothing on an A100, 14 % more bytes on v5e.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.random import threefry2x32_p
from jaxtyping import Bool, Float, UInt, UInt32

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.models._shapes import Hidden, Keys

# Far above any block index, so that the dropout of a text tower's embeddings never shares a mask with a block's.
EMBEDDING_SITE = 1 << 20

# The name by which a checkpoint policy knows what the backward pass of `_fused_attention.py` needs besides its input.
KEPT_OF_ATTENTION = "fused attention"
# And those of what else is small and kept: means and scales of a LayerNorm, and the bits of dropout.
KEPT_OF_NORM = "statistics of LayerNorm"
KEPT_OF_DROPOUT = "bits of dropout"

_Kind = TypeVar("_Kind", bound="Linear")


def spread(x: Float[Array | np.ndarray, "*m"], shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "*n"]:
    """A parameter, or some of its rows, repeated along the leading axes of `shape`, in `dtype`.

    Its gradient is the sum over what it was repeated for, and a sum of thousands of rows in bfloat16, as some GPUs make
    it, is off by percents. So it is repeated as float32, and the conversion is a part of the sum.
    """
    return jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape).astype(dtype)


def precision(*operands: Array) -> lax.Precision | None:
    """What is asked of a product: float32 means all of its digits, also on TPUs and GPUs, whose default is fewer."""
    return lax.Precision.HIGHEST if jnp.result_type(*operands) == jnp.float32 else None


def einsum(subscripts: str, a: Array, b: Array, **options: Any) -> Array:
    """`jnp.einsum` of two arrays with the `precision` that belongs to them."""
    return jnp.einsum(subscripts, a, b, precision=precision(a, b), **options)


def product(x: Float[Array, "*n D"], kernel: Float[Array, "D F"]) -> Float[Array, "*n F"]:
    """The matrix product x · kernel of a dense layer."""
    # the derivative of a custom rule must vary over the same mesh axes as its argument; plain operations see to it
    # themselves
    over_x, over_kernel = (jax.typeof(a).manual_axis_type.varying for a in (x, kernel))
    if over_x != over_kernel:
        x = lax.pcast(x, tuple(over_kernel - over_x), to="varying")
        kernel = lax.pcast(kernel, tuple(over_x - over_kernel), to="varying")
    return _product(x, kernel)


def _dot(a: Array, b: Array, of_a: tuple[int, ...], of_b: tuple[int, ...]) -> Array:
    return lax.dot_general(a, b, ((of_a, of_b), ((), ())), precision=precision(a, b))


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return _dot(x, kernel, (x.ndim - 1,), (0,))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    # spelled out again, so that a checkpoint policy sees a product here and not a custom rule
    return _dot(x, kernel, (x.ndim - 1,), (0,)), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    into_x = _dot(gradient, kernel, (x.ndim - 1,), (1,))
    if x.shape[-1] <= gradient.shape[-1]:
        return into_x, _dot(x, gradient, rows, rows)
    return into_x, _dot(gradient, x, rows, rows).T


_product.defvjp(_forward, _backward)


class Linear(nnx.Linear):
    """A dense layer, x·W + b, multiplied and added in its `dtype`; the gradient of b is summed in float32."""

    def __call__(self, x: Float[Array | np.ndarray, "*n D"]) -> Float[Array, "*n F"]:  # pyright: ignore
        dtype = jnp.dtype(self.dtype)
        y = product(jnp.asarray(x, dtype), jnp.asarray(self.kernel[...], dtype))
        return y if self.bias is None else y + spread(self.bias[...], y.shape, dtype)


def linear(
    d_in: int, d_out: int, compute: ComputeConfig, rngs: nnx.Rngs, *, bias: bool = True, kind: type[_Kind] = Linear
) -> _Kind:
    """Dense layer, kernel [in, out] (the transpose of PyTorch's).

    Initial variance 1 / (3·in): that of PyTorch's default, 0.021² at width 768 (BERT and ViT-B use 0.02²). kind: a class
    derived from `Linear`.
    """
    init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "truncated_normal")
    dtype = jnp.dtype(compute.dtype)
    return kind(d_in, d_out, use_bias=bias, dtype=dtype, kernel_init=init, rngs=rngs)


def _draws(keys: Keys, site: int, counters: UInt32[Array, "*n"]) -> tuple[Array, ...]:
    """Four numbers of 16 bits for each counter, each uint32 [B, *n].

    They are one threefry block of 64 bits: a number is a function of key, site, counter and lane alone.
    """

    def one(key: Array) -> tuple[Array, ...]:
        k1, k2 = jax.random.key_data(jax.random.fold_in(key, site))
        k1, k2, high = (jnp.broadcast_to(x, counters.shape) for x in (k1, k2, jnp.uint32(0)))
        a, b = threefry2x32_p.bind(k1, k2, high, counters)
        return a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16

    return jax.vmap(one)(keys)


def _kept(draws: UInt32[Array, "*n"], rate: float) -> Bool[Array, "*n"]:
    """True with probability 1 - rate."""
    return draws >= jnp.uint32(round(rate * (1 << 16)))


def kept_share(rate: float) -> float:
    """The probability of `_kept`, which what is kept is divided by; above 0 also where the rate is 1."""
    return max(1, (1 << 16) - round(rate * (1 << 16))) / (1 << 16)


def _dropped(x: Float[Array, "*n"], keep: Bool[Array, "*n"], rate: float) -> Float[Array, "*n"]:
    return jnp.where(keep, x * jnp.asarray(1 / kept_share(rate), x.dtype), 0)


def dropout(x: Hidden, rate: float, keys: Keys | None, site: int) -> Hidden:
    """Inverted dropout with one key an example; `site` is a number that tells the uses inside a block apart.

    The mask of a token does not depend on N: the same caption has the same mask however long it is padded.
    """
    if keys is None or rate == 0:
        return x
    _, n, d = x.shape
    quarter = -(-d // 4)
    counters = jnp.arange(n * quarter, dtype=jnp.uint32).reshape(n, quarter)
    # four in a byte, of numbers that are a quarter of the width apart: a pass of an eighth of the size of a bfloat16 x
    bits = sum(_kept(draws, rate).astype(jnp.uint8) << lane for lane, draws in enumerate(_draws(keys, site, counters)))
    bits = checkpoint_name(bits, KEPT_OF_DROPOUT)[:, :, None]
    keep = bits >> jnp.arange(4, dtype=jnp.uint8)[:, None] & 1 != 0
    return _dropped(x, keep.reshape(len(x), n, 4 * quarter)[..., :d], rate)


def attention_dropout(
    weights: Float[Array, "B H N m"], rate: float, keys: Keys | None, longest: int
) -> Float[Array, "B H N m"]:
    """Inverted dropout of attention weights of N queries and m keys, m at most `longest`; the mask depends on neither."""
    if keys is None or rate == 0:
        return weights
    _, heads, n, m = weights.shape
    quarter = -(-heads // 4)
    group, row, column = jnp.ogrid[:quarter, :n, :m]
    counters = ((group * longest + row) * longest + column).astype(jnp.uint32)
    keep = _kept(jnp.concatenate(_draws(keys, 0, counters), axis=1), rate)[:, :heads]
    return _dropped(weights, keep, rate)


def attention_bits(keys: Keys, rate: float, heads: int, n: int, longest: int) -> UInt[Array, "B {n} {n}"]:
    """Which weights `attention_dropout` keeps, of n queries and n keys: bit h of a number is that of head h.

    uint16 up to 16 heads, uint32 up to 32.
    """
    quarter = -(-heads // 4)
    row, column = (lax.broadcasted_iota(jnp.uint32, (n, n), axis) for axis in (0, 1))
    bits = jnp.uint32(0)
    for group in range(quarter):
        counters = (group * longest + row) * longest + column
        for lane, draws in enumerate(_draws(keys, 0, counters)):
            head = lane * quarter + group
            if head < heads:
                bits |= _kept(draws, rate).astype(jnp.uint32) << head
    return bits.astype(jnp.uint16 if heads <= 16 else jnp.uint32)
