"""LayerNorm against its definition, and its own gradient against autodiff of that definition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.models.transformer import layer_norm

ROWS, WIDTH, EPS = (3, 50), 40, 1e-5


def plain(x: Array, scale: Array, bias: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPS) * scale + bias


def made(dtype: str, offset: float = 0.0) -> tuple[Any, Array, Array]:
    """A norm whose scale and bias differ from their start, an input of its dtype, and weights of the results."""
    norm: Any = layer_norm(WIDTH, EPS, ComputeConfig(dtype=dtype), nnx.Rngs(0))  # type: ignore[arg-type]
    keys = jax.random.split(jax.random.key(0), 4)
    norm.scale[...] = 1 + 0.3 * jax.random.normal(keys[0], (WIDTH,))
    norm.bias[...] = jax.random.normal(keys[1], (WIDTH,))
    x = offset + 2 * jax.random.normal(keys[2], (*ROWS, WIDTH))
    return norm, x.astype(dtype), jax.random.normal(keys[3], (*ROWS, WIDTH))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_the_gradient_is_that_of_the_definition(dtype: str, bound: float, offset: float) -> None:
    norm, x, weights = made(dtype, offset)

    def ours(x: Array, scale: Array, bias: Array) -> Array:
        again = nnx.merge(graph, nnx.State({"scale": nnx.Param(scale), "bias": nnx.Param(bias)}))
        return jnp.sum(again(x).astype(jnp.float32) * weights)

    graph = nnx.graphdef(norm)
    arguments = x.astype(jnp.float32), norm.scale[...], norm.bias[...]
    expected = jax.grad(lambda *arguments: jnp.sum(plain(*arguments) * weights), argnums=(0, 1, 2))(*arguments)
    found = jax.grad(ours, argnums=(0, 1, 2))(x, *arguments[1:])
    assert [g.dtype for g in found] == [dtype, "float32", "float32"]
    for mine, theirs in zip(found, expected, strict=True):
        difference = np.abs(np.asarray(mine, np.float32) - np.asarray(theirs))
        assert difference.max() < bound * np.abs(np.asarray(theirs)).max()
    assert np.abs(np.asarray(norm(x), np.float32) - plain(*arguments)).max() < bound * 5


def test_one_pass_over_bfloat16_loses_nothing_that_its_numbers_have() -> None:
    """A mean of forty deviations: numbers are rounded to a quarter of a deviation, statistics to far less."""
    norm, x, _ = made("bfloat16", offset=80.0)
    exact = np.asarray(plain(*(jnp.asarray(a, jnp.float32) for a in (x, norm.scale[...], norm.bias[...]))))
    assert np.abs(np.asarray(norm(x), np.float32) - exact).max() < 2e-2 * np.abs(exact).max()
