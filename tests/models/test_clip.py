"""The joined model: shapes without numbers, unit length, dropout that belongs to the example, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.tiny import MODEL, batch

from biomedclip_jax.config import CLIPConfig, ComputeConfig
from biomedclip_jax.models import abstract_model, init_params, unit_length


def test_biomedclip_is_described_without_making_it() -> None:
    _, shapes = abstract_model(CLIPConfig())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 195_902_721
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


def test_what_is_made_fits_the_description() -> None:
    _, shapes = abstract_model(MODEL)
    params = init_params(MODEL, seed=0)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    same, other = init_params(MODEL, seed=0), init_params(MODEL, seed=1)
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(same)))
    assert not np.array_equal(params["image"]["patch"]["kernel"], other["image"]["patch"]["kernel"])


def test_unit_length_of_nothing_is_nothing_with_a_finite_gradient() -> None:
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    assert np.allclose(unit_length(x), [[0.6, 0.8], [0.0, 0.0]])
    assert np.isfinite(jax.grad(lambda x: unit_length(x).sum())(x)).all()


def test_dropout_belongs_to_the_example() -> None:
    graph, _ = abstract_model(MODEL)
    clip = nnx.merge(graph, init_params(MODEL, seed=0))
    tokens = batch(4)["tokens"]
    keys = jax.random.split(jax.random.key(0), 4)
    dropped = clip.encode_text(tokens, keys)
    assert np.abs(clip.encode_text(tokens[::-1], keys[::-1]) - dropped[::-1]).max() <= 1e-6
    assert np.abs(clip.encode_text(tokens, keys[::-1]) - dropped).max() > 1e-3
    assert np.abs(clip.encode_text(tokens) - dropped).max() > 1e-3


def test_bfloat16_gives_float32_unit_embeddings_near_the_exact_ones() -> None:
    params, rows = init_params(MODEL, seed=0), batch(4)
    exact, half = (nnx.merge(abstract_model(MODEL, ComputeConfig(dtype=d))[0], params) for d in ("float32", "bfloat16"))
    for name, method in (("images", "encode_image"), ("tokens", "encode_text")):
        ours, expected = getattr(half, method)(rows[name]), getattr(exact, method)(rows[name])
        assert ours.dtype == jnp.float32
        assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
        assert 0 < np.abs(ours - expected).max() < 0.05
