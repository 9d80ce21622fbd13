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
from biomedclip_jax.models.layers import KEPT_OF_ATTENTION

Inputs = dict[str, Array]  # qkv [B, N, 3·H, K] and, where they are given, seen and keep


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
    shape = Shape(b, n, heads, width, qkv.dtype, kept)
    # with the name, the sum with the bias is kept and not the product, so that the sum is a part of the matrix product
    inputs = {"qkv": checkpoint_name(qkv.reshape(b, n, 3 * heads, width), KEPT_OF_ATTENTION)}
    inputs |= {} if seen is None else {"seen": seen.astype(jnp.int8)}
    inputs |= {} if keep is None else {"keep": checkpoint_name(keep, KEPT_OF_ATTENTION)}
    out: Any = _attention(shape, _all_varying(inputs))
    return out.reshape(b, n, heads * width)


def _all_varying(inputs: Inputs) -> Inputs:
    # a kernel's arguments must vary over the same mesh axes; plain operations see to it themselves
    over = {name: jax.typeof(x).manual_axis_type.varying for name, x in inputs.items()}
    everywhere = frozenset().union(*over.values())
    return {name: lax.pcast(x, tuple(everywhere - over[name]), to="varying") for name, x in inputs.items()}


def _like(x: Array, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def _refs(shape: Shape, inputs: Inputs) -> dict[str, Any]:
    """What both kernels read, as `Shape.call` takes it."""
    heads = {name: (inputs["qkv"], shape.of_head(first * shape.heads)) for first, name in enumerate("qkv")}
    seen, keep = shape.of_example(shape.tokens), shape.of_example(shape.tokens, shape.tokens)
    return heads | {"seen": (inputs.get("seen"), seen), "keep": (inputs.get("keep"), keep)}


def _outputs(shape: Shape, qkv: Array) -> dict[str, Any]:
    """What the forward kernel writes for the backward one."""
    out = _like(qkv, (shape.batch, shape.tokens, shape.heads, shape.width), qkv.dtype)
    number = _like(qkv, (shape.batch, shape.heads, shape.tokens), jnp.float32)
    return {"out": (out, shape.of_head()), "largest": (number, shape.numbers), "inverse": (number, shape.numbers)}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(shape: Shape, inputs: Inputs) -> Array:
    only = {"out": _outputs(shape, inputs["qkv"])["out"]}
    return shape.call(forward_kernel, "attention", _refs(shape, inputs), only)[0]


def _forward(shape: Shape, inputs: Inputs) -> tuple[Array, tuple[Inputs, list[Array]]]:
    made = shape.call(forward_kernel, "attention", _refs(shape, inputs), _outputs(shape, inputs["qkv"]))
    made = [checkpoint_name(x, KEPT_OF_ATTENTION) for x in made]
    return made[0], (inputs, made)


def _backward(shape: Shape, saved: tuple[Inputs, list[Array]], d_out: Array) -> tuple[dict[str, Any]]:
    inputs, made = saved
    qkv = inputs["qkv"]
    blocks = [block for _, block in _outputs(shape, qkv).values()]
    again = dict(zip(("out", "largest", "inverse"), zip(made, blocks, strict=True), strict=True))
    refs = _refs(shape, inputs) | again | {"d_out": (d_out, shape.of_head())}
    outputs = {"d_qkv": (_like(qkv, qkv.shape, qkv.dtype), shape.of_example(*qkv.shape[1:]))}
    (d_qkv,) = shape.call(backward_kernel, "attention_gradient", refs, outputs)
    nothing = {name: np.zeros(x.shape, jax.dtypes.float0) for name, x in inputs.items() if name != "qkv"}
    return ({"qkv": d_qkv, **nothing},)


_attention.defvjp(_forward, _backward)
