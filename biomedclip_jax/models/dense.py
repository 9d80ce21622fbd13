"""The matrix product of the dense layers, with the gradient of the kernel in the order that a CPU multiplies fastest.

JAX's own rule makes the kernel's gradient as (gradientᵀ · x)ᵀ. XLA for CPU then copies the whole transposed gradient and
packs both operands against the grain: an eighth of the training step at BiomedCLIP's size. Here the narrower of the two
operands is the transposed one. The numbers are the same; other platforms lay out the operands as they like in either form.
"""

from typing import Any

import jax
from jax import Array, lax


def product(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """x [..., D] · kernel [D, F] -> [..., F]; takes the place of `lax.dot_general` in `nnx.Linear`."""
    # the derivative of a custom rule must vary over the same mesh axes as its argument; plain operations see to it themselves
    over_x, over_kernel = (jax.typeof(a).manual_axis_type.varying for a in (x, kernel))
    if over_x != over_kernel:
        x = lax.pcast(x, tuple(over_kernel - over_x), to="varying")
        kernel = lax.pcast(kernel, tuple(over_x - over_kernel), to="varying")
    return _product(x, kernel)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    # spelled out again, so that a checkpoint policy sees a product here and not a custom rule
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ()))), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    into_x = lax.dot_general(gradient, kernel, (((x.ndim - 1,), (1,)), ((), ())))
    if x.shape[-1] <= gradient.shape[-1]:
        return into_x, lax.dot_general(x, gradient, ((rows, rows), ((), ())))
    return into_x, lax.dot_general(gradient, x, ((rows, rows), ((), ()))).T


_product.defvjp(_forward, _backward)
