"""Fused attention is the plain form to rounding, with the same dropout; its kernels run in Pallas' interpreter."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.interpreted_kernels import interpreted
from helpers.tiny_step import QUICKLY
from jax import Array

from biomedclip_jax.config import ComputeConfig, PrefixConfig
from biomedclip_jax.models.adapters import Prefix
from biomedclip_jax.models.layers import attention_bits, attention_dropout
from biomedclip_jax.models.transformer import Attention, BlockShape, run_blocks, stack_blocks

pytestmark = pytest.mark.usefixtures(interpreted.__name__)

LONGEST = 90
SHAPE = BlockShape(32, 2, 64, 2, "gelu", 1e-6, pre_norm=True, longest=LONGEST)


def keys(count: int) -> Array:
    return jax.random.split(jax.random.key(0, impl="threefry2x32"), count)


def padding(*lengths: int, n: int) -> Array:
    """Masks of keys [B, 1, 1, n]."""
    return jnp.arange(n) < jnp.array(lengths)[:, None, None, None]


def module(shape: BlockShape, form: Any, dtype: Any = "float32") -> Attention:
    return Attention(shape, ComputeConfig(dtype=dtype, attention=form), nnx.Rngs(0))


def results(attention: Attention, x: Array, mask: Array | None, keys: Array | None) -> list[np.ndarray]:
    """What attention gives, and the gradients by its input and its parameters."""
    graph, state = nnx.split(attention)
    rng = np.random.default_rng(1)
    state = jax.tree.map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32), state)
    above = rng.normal(size=x.shape)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def both(x: Array, state: Any) -> Any:
        y, back = jax.vjp(lambda x, state: nnx.merge(graph, state)(x, mask, keys, 0), x, state)
        return y, back(jnp.asarray(above, y.dtype))

    return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(both(x, state))]


def compared(shape: BlockShape, n: int, mask: Array | None, keys: Array | None, dtype: Any = "float32") -> float:
    """The largest difference between the two forms, relative to the largest number of each array."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, n, shape.width)), dtype)
    fused, plain = (results(module(shape, form, dtype), x, mask, keys) for form in ("fused", "plain"))
    assert module(shape, "fused").fused and not module(shape, "plain").fused
    assert len(plain) == 6 and all(np.abs(leaf).max() > 0.1 for leaf in plain)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(fused, plain, strict=True))


# one block of tokens or several; lengths that fill them, or hang over by all but one
@pytest.mark.parametrize("n", [1, 32, 33, 70])
@pytest.mark.parametrize("masked", [False, True], ids=["all seen", "padded"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_it_is_the_plain_form_in_float32(n: int, masked: bool, rate: float) -> None:
    shape = dataclasses.replace(SHAPE, attention_dropout=rate)
    mask = padding(n, (n + 1) // 2, n=n) if masked else None
    assert compared(shape, n, mask, keys(2)) <= 2e-6


@pytest.mark.parametrize("heads", [1, 2])
def test_it_is_the_plain_form_to_the_rounding_of_bfloat16(heads: int) -> None:
    shape = dataclasses.replace(SHAPE, heads=heads, attention_dropout=0.3)
    assert compared(shape, 70, padding(70, 31, n=70), keys(2), "bfloat16") <= 2**-6


def test_many_heads_share_the_words_of_a_mask() -> None:
    """More than the 16 of a short word, and no multiple of the four draws of a block."""
    shape = dataclasses.replace(SHAPE, width=18 * 16, heads=18, attention_dropout=0.5)
    assert compared(shape, 9, None, keys(2)) <= 2e-6


def test_where_no_key_is_seen_all_weigh_the_same() -> None:
    assert compared(SHAPE, 40, padding(40, 0, n=40), None) <= 2e-6


def test_large_scores_do_not_overflow() -> None:
    x = 300 * jnp.asarray(np.random.default_rng(0).normal(size=(2, 40, 32)), jnp.float32)
    fused, plain = (results(module(SHAPE, form), x, padding(40, 21, n=40), None)[0] for form in ("fused", "plain"))
    assert np.isfinite(plain).all() and np.abs(fused - plain).max() <= 1e-4 * np.abs(plain).max()


@pytest.mark.parametrize("heads", [1, 3, 12, 16, 17, 32])
def test_the_bits_are_the_mask_of_the_plain_form(heads: int) -> None:
    kept = attention_dropout(jnp.ones((2, heads, 7, 7)), 0.5, keys(2), LONGEST) > 0
    bits = attention_bits(keys(2), 0.5, heads, 7, LONGEST)
    assert bits.dtype == (jnp.uint16 if heads <= 16 else jnp.uint32)
    found = np.asarray(bits)[:, None] >> np.arange(heads)[:, None, None] & 1
    assert np.array_equal(found, kept) and not np.array_equal(found[0], found[1])
    assert np.array_equal(bits, attention_bits(keys(2), 0.5, heads, 20, LONGEST)[:, :7, :7]), "however long the padding"


def test_what_the_kernel_has_no_form_for_is_plain() -> None:
    """A mask of queries, a prefix, the first token alone, BioMedLM's scores: as with "plain", to the last bit."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 32)), jnp.float32)
    causal = jnp.tril(jnp.ones((9, 9), bool))
    inverse = dataclasses.replace(SHAPE, inverse_layer_scale=True)
    narrow = dataclasses.replace(SHAPE, heads=4)
    prefix = Prefix(PrefixConfig(tokens=3), 1, 32, nnx.Rngs(0))
    prefix.virtual_keys, prefix.virtual_values = (nnx.Param(x[0]) for x in (prefix.virtual_keys, prefix.virtual_values))

    def of(form: Any) -> list[Array]:
        with_prefix = module(SHAPE, form)
        with_prefix.prefix = prefix
        return [
            module(SHAPE, form)(x, causal, None, 0),
            module(SHAPE, form)(x, jnp.broadcast_to(causal, (2, 1, 9, 9)), None, 0),
            module(SHAPE, form)(x, None, None, 0, first=1),
            module(inverse, form)(x, None, None, 1),
            module(narrow, form)(x, None, None, 0),
            with_prefix(x, padding(9, 4, n=9), None, 0),
        ]

    assert all(map(np.array_equal, of("fused"), of("plain")))


def test_no_scores_of_all_heads_are_made() -> None:
    def text(form: Any) -> str:
        compute = ComputeConfig(attention=form)
        blocks = stack_blocks(dataclasses.replace(SHAPE, attention_dropout=0.1), compute, nnx.Rngs(0))
        graph, state = nnx.split(blocks)

        def loss(state: Any, x: Array) -> Array:
            return run_blocks(nnx.merge(graph, state), x, None, keys(2), compute).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(state, jnp.ones((2, 9, 32))))

    scores = "f32[2,2,9,9]"
    assert text("plain").count("pallas_call[") == 0 and scores in text("plain")
    assert text("fused").count("pallas_call[") == 2 and scores not in text("fused")
