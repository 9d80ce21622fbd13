"""LayerNorm whose backward pass reads its input and the gradient, and keeps nothing but a mean and a scale a token.

JAX's own gradient of it goes back through mean and variance one after the other, and XLA for GPUs writes float32
arrays of the size of the input between them: the gradient is one formula here. docs/measurements.md has what it saves.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from biomedclip_jax.models.layers import KEPT_OF_NORM


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over the last axis, with float32 statistics, scale and bias; the result is of its `dtype`."""

    def __call__(self, x: Float[Array | np.ndarray, "*n D"]) -> Float[Array, "*n D"]:  # pyright: ignore
        numbers: Any = self  # both are there
        parts = jnp.asarray(x, self.dtype), numbers.scale[...], numbers.bias[...]
        # the derivative of a custom rule must vary over the same mesh axes as its argument
        over = [jax.typeof(part).manual_axis_type.varying for part in parts]
        everywhere = frozenset().union(*over)
        varying = (lax.pcast(part, tuple(everywhere - own), to="varying") for part, own in zip(parts, over, strict=True))
        return _normalised(self.epsilon, *varying)


def _statistics(eps: float, x: Array) -> tuple[Array, Array]:
    """Mean and 1 / standard deviation of each row, float32 [*n, 1].

    Of float32 numbers the variance takes two passes, as PyTorch's. What one pass loses (6e-8 times the squared ratio of mean
    and deviation) is far less than what such a mean has already cost numbers rounded to bfloat16.
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    if x.dtype == jnp.float32:
        variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    else:
        variance = jnp.maximum(jnp.square(wide).mean(axis=-1, keepdims=True) - jnp.square(mean), 0)
    return mean, lax.rsqrt(variance + eps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(eps: float, x: Array, scale: Array, bias: Array) -> Array:
    mean, inverse = _statistics(eps, x)
    return ((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype)


def _forward(eps: float, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    mean, inverse = (checkpoint_name(a, KEPT_OF_NORM) for a in _statistics(eps, x))
    return ((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_gradient(eps: float, saved: tuple[Array, ...], gradient: Array) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = saved
    gradient = gradient.astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * inverse
    scaled = gradient * scale
    along = (scaled * normal).mean(axis=-1, keepdims=True)
    into_x = (scaled - scaled.mean(axis=-1, keepdims=True) - normal * along) * inverse
    rows = tuple(range(x.ndim - 1))
    return into_x.astype(x.dtype), (gradient * normal).sum(axis=rows), gradient.sum(axis=rows)


_normalised.defvjp(_forward, _layer_norm_gradient)
