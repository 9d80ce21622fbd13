"""The joined model: shapes without numbers, unit length, dropout that belongs to the example, bfloat16."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.tiny import MODEL, batch

from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, ComputeConfig, PrefixConfig
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


PREFIXED = Adaptation(text=PrefixConfig(tokens=3))


@pytest.mark.parametrize(
    ("image_pool", "text_pool", "adaptation"),
    [("cls", "cls", UNADAPTED), ("mean", "cls_pooler", PREFIXED), ("cls", "mean", UNADAPTED)],
)
def test_inference_works_out_less_and_gives_the_same(image_pool: Any, text_pool: Any, adaptation: Adaptation) -> None:
    image = dataclasses.replace(MODEL.vit, pool=image_pool)
    text = dataclasses.replace(MODEL.text, pool=text_pool, positions=16)  # type: ignore[type-var]
    config = dataclasses.replace(MODEL, image=image, text=text)
    params, rows = init_params(config, 0, adaptation), batch(4)
    rows["tokens"][1, 5:] = config.text.pad_id

    def encode(inference: bool) -> Any:
        graph, shapes = abstract_model(config, adaptation=adaptation, inference=inference)
        assert jax.tree.structure(shapes) == jax.tree.structure(params)

        def both(params: Any, images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            clip = nnx.merge(graph, params)
            return clip.encode_image(images), clip.encode_text(tokens)

        return jax.jit(both).lower(params, rows["images"], rows["tokens"]).compile()

    plain, less = encode(False), encode(True)
    for expected, found in zip(*(program(params, rows["images"], rows["tokens"]) for program in (plain, less)), strict=True):
        assert np.abs(expected - found).max() <= 1e-6


def test_bfloat16_gives_float32_unit_embeddings_near_the_exact_ones() -> None:
    params, rows = init_params(MODEL, seed=0), batch(4)
    exact, half = (nnx.merge(abstract_model(MODEL, ComputeConfig(dtype=d))[0], params) for d in ("float32", "bfloat16"))
    for name, method in (("images", "encode_image"), ("tokens", "encode_text")):
        ours, expected = getattr(half, method)(rows[name]), getattr(exact, method)(rows[name])
        assert ours.dtype == jnp.float32
        assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
        assert 0 < np.abs(ours - expected).max() < 0.05
