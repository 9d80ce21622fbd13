"""Attention without arrays of N x N numbers in memory, forward and backward: `_attention_kernels.py` as one function."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, UInt

from biomedclip_jax.models._attention_kernels import Shape, backward_kernel, forward_kernel

KEPT = "fused attention"  # the name that a checkpoint policy knows what the backward pass needs by


def fused_attention(
    qkv: Float[Array, "B N 3 H K"],
    seen: Bool[Array, "B N"] | None,
    keep: UInt[Array, "B N N"] | None,
    kept: float = 1.0,
) -> Float[Array, "B N D"]:
    """softmax(q·kᵀ / √K)·v of each head, as the plain form in `transformer.py` has it.

    seen: False where a key is padding; None: all are looked at. keep: bit h of a number says whether dropout keeps this
    weight of head h (`layers.attention_bits`), with probability `kept`; None: no dropout.
    """
    b, n, _, heads, width = qkv.shape
    over = frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in (qkv, seen, keep) if x is not None))
    qkv, seen, keep = (_varying(x, over) for x in (qkv, seen, keep))
    shape = Shape(b, n, heads, width, qkv.dtype, kept)
    # with the name, the sum with the bias is kept and not the product, so that the sum is a part of the matrix product
    qkv = checkpoint_name(qkv.reshape(b, n, 3 * heads, width), KEPT)
    keep = None if keep is None else checkpoint_name(keep, KEPT)
    return _attention(shape, qkv, None if seen is None else seen.astype(jnp.int8), keep).reshape(b, n, heads * width)


def _varying(x: Array | None, over: frozenset[Any]) -> Array | None:
    # a kernel's arguments must vary over the same mesh axes; plain operations see to it themselves
    missing = () if x is None else tuple(over - jax.typeof(x).manual_axis_type.varying)
    return lax.pcast(x, missing, to="varying") if missing else x


def _like(x: Array, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def _inputs(shape: Shape, qkv: Array, seen: Array | None, keep: Array | None) -> dict[str, Any]:
    heads = {name: (qkv, shape.of_head(first * shape.heads)) for first, name in enumerate("qkv")}
    masks = {"seen": (seen, shape.of_example(shape.tokens)), "keep": (keep, shape.of_example(shape.tokens, shape.tokens))}
    return heads | masks


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(shape: Shape, qkv: Array, seen: Array | None, keep: Array | None) -> Array:
    out = _like(qkv, (shape.batch, shape.tokens, shape.heads, shape.width), qkv.dtype)
    return shape.call(forward_kernel, "attention", _inputs(shape, qkv, seen, keep), {"out": (out, shape.of_head())})[0]


def _forward(shape: Shape, qkv: Array, seen: Array | None, keep: Array | None) -> tuple[Array, tuple[Array | None, ...]]:
    out = _like(qkv, (shape.batch, shape.tokens, shape.heads, shape.width), qkv.dtype)
    number = _like(qkv, (shape.batch, shape.heads, shape.tokens), jnp.float32)
    outputs = {"out": (out, shape.of_head()), "largest": (number, shape.numbers), "inverse": (number, shape.numbers)}
    made = shape.call(forward_kernel, "attention", _inputs(shape, qkv, seen, keep), outputs)
    out, largest, inverse = (checkpoint_name(x, KEPT) for x in made)
    return out, (qkv, seen, keep, out, largest, inverse)


def _backward(shape: Shape, saved: tuple[Any, ...], d_out: Array) -> tuple[Array, np.ndarray | None, np.ndarray | None]:
    qkv, seen, keep, out, largest, inverse = saved
    inputs = _inputs(shape, qkv, seen, keep) | {"out": (out, shape.of_head()), "d_out": (d_out, shape.of_head())}
    inputs |= {"largest": (largest, shape.numbers), "inverse": (inverse, shape.numbers)}
    outputs = {"d_qkv": (_like(qkv, qkv.shape, qkv.dtype), shape.of_example(*qkv.shape[1:]))}
    (d_qkv,) = shape.call(backward_kernel, "attention_gradient", inputs, outputs)
    return d_qkv, *(None if x is None else np.zeros(x.shape, jax.dtypes.float0) for x in (seen, keep))


_attention.defvjp(_forward, _backward)
