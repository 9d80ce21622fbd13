"""The dense product is JAX's own, gradient included; also where only one operand differs from device to device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from biomedclip_jax.models.layers import product


def operands(rows: tuple[int, ...], d_in: int, d_out: int, dtype: str = "float32") -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(*rows, d_in)), dtype), jnp.asarray(rng.normal(size=(d_in, d_out)), dtype)


def gradients(multiply: Callable, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, kernel: jnp.sin(multiply(x, kernel).astype(jnp.float32)).sum(), (0, 1))(x, kernel)


@pytest.mark.parametrize("rows", [(5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("widths", [(8, 24), (24, 8), (8, 8)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_gradient_are_those_of_the_plain_product(rows: tuple, widths: tuple, dtype: str) -> None:
    x, kernel = operands(rows, widths[0], widths[1], dtype)
    np.testing.assert_array_equal(product(x, kernel), jnp.matmul(x, kernel))
    bound = 1e-6 if dtype == "float32" else 2**-7
    for ours, plain in zip(gradients(product, x, kernel), gradients(jnp.matmul, x, kernel), strict=True):
        assert ours.dtype == plain.dtype
        np.testing.assert_allclose(*(np.asarray(g, np.float32) for g in (ours, plain)), rtol=bound, atol=bound * 8)


@pytest.mark.parametrize("split", ["x", "kernel"])
def test_one_operand_that_is_the_same_everywhere(split: str) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = operands((16, 4), 8, 24)
    specs = (P("data"), P()) if split == "x" else (P(), P(None, "data"))
    whole = gradients(product, x, kernel)
    parts = jax.jit(jax.shard_map(lambda *a: gradients(product, *a), mesh=mesh, in_specs=specs, out_specs=specs))(x, kernel)
    for part, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_policy_sees_the_product() -> None:
    """With "dots" saved, the backward pass makes two products a layer and repeats none; with nothing saved it repeats it."""
    x, kernel = operands((2, 4), 8, 24)

    def products(policy) -> int:
        body = jax.checkpoint(lambda x, kernel: jnp.sin(product(jnp.sin(x), kernel)).sum(), policy=policy)
        return str(jax.make_jaxpr(jax.grad(body, (0, 1)))(x, kernel)).count("dot_general[")

    assert products(jax.checkpoint_policies.dots_with_no_batch_dims_saveable) == 3
    assert products(jax.checkpoint_policies.nothing_saveable) == 4


def test_the_kernels_gradient_transposes_the_narrower_operand() -> None:
    """What makes it fast on CPU: x [R, 8] is transposed where the gradient is [R, 24], the gradient where it is [R, 8]."""
    for widths in ((8, 24), (24, 8)):
        x, kernel = operands((4, 16), *widths)
        text = jax.jit(lambda x, kernel, g: jax.vjp(product, x, kernel)[1](g)[1]).lower(x, kernel, x @ kernel).as_text()
        dots = [line for line in text.splitlines() if "dot_general" in line]
        assert len(dots) == 1
        first = dots[0].split(" : (")[1].split(",")[0]
        assert first == "tensor<4x16x8xf32>", dots[0]
