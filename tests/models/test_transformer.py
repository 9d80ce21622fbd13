"""Dropout, drawn for each example, layer and position whatever the padding; and BERT's pools under it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import tiny
from helpers.tiny_step import QUICKLY
from jax import Array

from biomedclip_jax.config import BertConfig, BertPool, ComputeConfig
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.models.transformer import BlockShape, attention_dropout, dropout, run_blocks, stack_blocks
from biomedclip_jax.sharding import BATCH, make_mesh

LONGEST = 40


def keys(count: int, seed: int = 0) -> Array:
    return jax.random.split(jax.random.key(seed, impl="threefry2x32"), count)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4), compiler_options=QUICKLY)
def _token_mask(keys: Array, n: int, width: int, rate: float, site: int) -> Array:
    return dropout(jnp.ones((len(keys), n, width)), rate, keys, site)


def token_mask(keys: Array, n: int, width: int, rate: float = 0.25, site: int = 1) -> np.ndarray:
    """What is left of ones [B, N, D]."""
    return np.asarray(_token_mask(keys, n, width, rate, site))


@functools.partial(jax.jit, static_argnums=(1, 2, 3), compiler_options=QUICKLY)
def _attention_mask(keys: Array, n: int, heads: int, rate: float) -> Array:
    return attention_dropout(jnp.ones((len(keys), heads, n, n)), rate, keys, LONGEST)


def attention_mask(keys: Array, n: int, heads: int, rate: float = 0.25) -> np.ndarray:
    """What is left of ones [B, H, N, N]."""
    return np.asarray(_attention_mask(keys, n, heads, rate))


# also where the four draws of a block do not come out even
@pytest.mark.parametrize(("n", "width"), [(1, 6), (7, 32), (24, 1)])
def test_the_mask_of_the_first_tokens_is_the_same_for_any_padded_length(n: int, width: int) -> None:
    assert np.array_equal(token_mask(keys(3), n, width), token_mask(keys(3), LONGEST, width)[:, :n])
    attention = attention_mask(keys(3), LONGEST, width)
    assert np.array_equal(attention_mask(keys(3), n, width), attention[:, :, :n, :n])


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_the_kept_share_and_the_mean(rate: float) -> None:
    for mask in (token_mask(keys(8), LONGEST, 256, rate), attention_mask(keys(8), LONGEST, 6, rate)):
        kept = mask > 0
        deviation = (rate * (1 - rate) / mask.size) ** 0.5
        assert abs(kept.mean() - (1 - rate)) < 4 * deviation
        # the rate is a number of 65536ths: kept ones are scaled so that the expectation is exactly 1
        exact = 1 - round(rate * 65536) / 65536
        assert np.abs(mask[kept] * exact - 1).max() <= 1e-6
        assert abs(mask.mean() - 1) < 4 * deviation / (1 - rate)


def same(a: np.ndarray, b: np.ndarray) -> float:
    """Share of positions where two masks of rate 1/2 agree: 1/2 if they have nothing to do with each other."""
    return float(((a > 0) == (b > 0)).mean())


def test_examples_sites_tokens_and_heads_differ() -> None:
    tokens, attention = token_mask(keys(2), LONGEST, 256, 0.5), attention_mask(keys(2), LONGEST, 8, 0.5)
    elsewhere = token_mask(keys(2), LONGEST, 256, 0.5, site=2)
    pairs = {
        "examples": (tokens[0], tokens[1]),
        "sites": (tokens, elsewhere),
        "tokens": (tokens[:, 1:], tokens[:, :-1]),
        "attention of examples": (attention[0], attention[1]),
        "heads": (attention[:, 1:], attention[:, :-1]),
        "queries": (attention[:, :, 1:], attention[:, :, :-1]),
        "looked at and looking": (attention, attention.transpose(0, 1, 3, 2)),
        "attention and branch": (attention[:, :, :, :32], token_mask(keys(2), 8 * LONGEST, 32, 0.5).reshape(2, 8, LONGEST, 32)),
    }
    agree = {name: same(*pair) for name, pair in pairs.items()}
    # on the diagonal a query looks at itself: one position of 40 agrees with its own transpose
    agree["looked at and looking"] -= 0.5 / LONGEST
    assert all(abs(share - 0.5) < 0.015 for share in agree.values()), agree


def test_the_four_draws_of_a_block_are_independent() -> None:
    """One threefry block of 64 bits is read as four numbers of 16: also such that share a word must not hang together."""
    draws = 1 << 16
    # the rows are quarters: lanes 0..3 of the same counter stand a quarter of the width apart
    kept = token_mask(keys(1), draws // 64, 256, 0.1)[0].reshape(-1, 4, 64).transpose(1, 0, 2).reshape(4, -1) > 0
    assert kept.shape == (4, draws)
    correlation = np.corrcoef(kept)
    assert np.abs(correlation - np.eye(4)).max() < 4 / draws**0.5
    # all four at once: how often none, one, ... of them is dropped is binomial
    dropped = np.bincount(4 - kept.sum(axis=0), minlength=5)[:4] / draws
    binomial = np.array([0.6561, 0.2916, 0.0486, 0.0036])
    assert np.all(np.abs(dropped - binomial) < 4 * (binomial * (1 - binomial) / draws) ** 0.5)


def test_no_keys_or_no_rate_is_the_identity() -> None:
    x = jnp.ones((2, 3, 3, 3))
    assert np.array_equal(dropout(x[0], 0.5, None, 1), x[0])
    assert np.array_equal(dropout(x[0], 0.0, keys(3), 1), x[0])
    assert np.array_equal(attention_dropout(x, 0.5, None, 3), x)
    assert np.array_equal(attention_dropout(x, 0.0, keys(2), 3), x)


def test_the_same_draws_in_jit_vmap_and_shard_map() -> None:
    both = functools.partial(_both, n=9)
    expected = both(keys(8))
    one_by_one = jax.vmap(lambda key: jax.tree.map(lambda x: x[0], both(key[None])))(keys(8))
    on_mesh = jax.jit(jax.shard_map(both, mesh=make_mesh(fsdp=2), in_specs=BATCH, out_specs=BATCH))(keys(8))
    for found in (jax.jit(both)(keys(8)), one_by_one, on_mesh):
        assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


def _both(keys: Array, n: int) -> tuple[Array, Array]:
    x = jnp.ones((len(keys), 8, n, n))
    return dropout(x[:, 0], 0.25, keys, 1), attention_dropout(x, 0.25, keys, LONGEST)


# --- in the tower ---------------------------------------------------------------------------------------------------


def test_each_layer_and_place_draws_its_own() -> None:
    """Read off blocks whose four branches are constants, 1, 2, 4 and 8: a sum tells which of them were dropped."""
    shape = BlockShape(32, 4, 64, 2, "gelu", 1e-6, pre_norm=True, dropout=0.5)
    graph, state = nnx.split(stack_blocks(shape, ComputeConfig(), nnx.Rngs(0)))
    weights = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(state))
    weights["attention"]["out"]["bias"] += jnp.array([[1.0], [2.0]])
    weights["mlp"]["fc2"]["bias"] += jnp.array([[4.0], [8.0]])
    x = jnp.zeros((8, LONGEST, 32))
    sums = run_blocks(nnx.merge(graph, weights), x, None, keys(8), ComputeConfig())
    found = np.asarray(sums).astype(int) // 2  # what is kept is doubled
    kept = [found >> bit & 1 for bit in range(4)]
    for one, mask in enumerate(kept):
        assert abs(mask.mean() - 0.5) < 0.02
        assert all(abs(same(mask, other) - 0.5) < 0.02 for other in kept[:one])


BERT: BertConfig = dataclasses.replace(tiny.MODEL.text, context_length=LONGEST, positions=LONGEST)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["cls", "cls_pooler", "mean", "max"])
def test_padding_changes_neither_features_nor_gradient_of_any_pool(pool: BertPool) -> None:
    """With both dropouts on: what lets captions be computed at their own length."""
    config = dataclasses.replace(BERT, pool=pool, dropout=0.2, attention_dropout=0.3)
    graph, state = nnx.split(Bert(config, ComputeConfig(), nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, (6, LONGEST))
    tokens[np.arange(LONGEST) >= np.array([[2], [5], [7], [11], [12], [12]])] = 0
    weights = rng.normal(size=(6, 32)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def both(state: Any, tokens: Array) -> tuple[Array, Any]:
        def loss(state: Any) -> tuple[Array, Array]:
            features = nnx.merge(graph, state)(tokens, keys(6))
            return (weights * features).sum(), features

        gradient, features = jax.grad(loss, has_aux=True)(state)
        return features, gradient

    (features, gradient), (expected, wanted) = both(state, tokens[:, :12]), both(state, tokens)
    assert np.abs(features - expected).max() <= 1e-5
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * max(1e-3, np.abs(theirs).max())
