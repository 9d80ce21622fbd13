"""Position resizing and patch drop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip

from biomedclip_jax.config import ComputeConfig, ViTConfig
from biomedclip_jax.models.vit import ViT, kept_patches, resize_positions

SMALL = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=4, mlp_width=64)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 21), (24, 14), (7, 16), (16, 5), (37, 16)])
def test_positions_are_resized_as_open_clip_and_timm_do(old: int, new: int) -> None:
    open_clip = load_open_clip()
    import torch
    from timm.layers import resample_abs_pos_embed

    table = np.random.default_rng(0).normal(size=(1 + old * old, 12)).astype(np.float32)
    ours = np.asarray(resize_positions(jnp.asarray(table), 1, new))
    timm = resample_abs_pos_embed(torch.from_numpy(table)[None], [new, new], num_prefix_tokens=1)[0].numpy()
    assert np.abs(ours - timm).max() <= 1e-5

    class Model:
        class visual:
            grid_size = (new, new)

    state = {"visual.positional_embedding": torch.from_numpy(table)}
    open_clip.model.resize_pos_embed(state, Model)
    assert np.abs(ours - state["visual.positional_embedding"].numpy()).max() <= 1e-5


def tower(config: ViTConfig) -> ViT:
    return ViT(config, ComputeConfig(), nnx.Rngs(0))


def test_dropped_patches_change_nothing_but_themselves() -> None:
    """Two images that agree on the patches that are kept have the same features; others do not."""
    vit = tower(SMALL)
    key = jax.random.key(3)[None]
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    features = vit(image, key, 0.5)
    changed = []
    for patch in range(16):
        row, column = divmod(patch, 4)
        other = image.copy()
        other[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
        changed.append(bool(np.abs(vit(other, key, 0.5) - features).max() > 1e-6))
    assert sum(changed) == kept_patches(16, 0.5) == 8


def test_the_draw_belongs_to_the_example_not_to_its_place() -> None:
    vit = tower(SMALL)
    keys = jax.random.split(jax.random.key(0), 4)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    together = vit(images, keys, 0.25)
    order = np.array([2, 0, 3, 1])
    assert np.abs(vit(images[order], keys[order], 0.25) - together[order]).max() <= 1e-6
    assert np.abs(vit(images, keys[::-1], 0.25) - together).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"registers": 4, "position_on_prefix": False, "layer_scale": True},
        {"class_token": False, "pool": "mean", "norm_after_pool": True},
        {"activation": "quick_gelu", "norm_pre": True, "patch_bias": False},
    ],
)
def test_options_build_and_differ(changes: dict) -> None:
    config = dataclasses.replace(SMALL, **changes)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    features = tower(config)(images)
    assert features.shape == (2, 32) and np.isfinite(features).all()
    assert np.abs(features - tower(SMALL)(images)).max() > 1e-3


@pytest.mark.parametrize("compute", [ComputeConfig(remat="dots"), ComputeConfig(remat="full"), ComputeConfig(unroll=2)])
def test_how_it_computes_does_not_change_what(compute: ComputeConfig) -> None:
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)

    def gradient(compute: ComputeConfig) -> list[jax.Array]:
        graph, state = nnx.split(ViT(SMALL, compute, nnx.Rngs(0)))
        # of some features: the sum of all that a LayerNorm gives is constant, its gradient nothing but rounding
        return jax.tree.leaves(jax.grad(lambda s: nnx.merge(graph, s)(images)[:, :3].sum())(state))

    for a, b in zip(gradient(compute), gradient(ComputeConfig()), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * max(1.0, float(np.abs(b).max()))


def test_bfloat16_stays_near_float32() -> None:
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    half = ViT(SMALL, ComputeConfig(dtype="bfloat16"), nnx.Rngs(0))(images)
    assert half.dtype == jnp.bfloat16
    exact = tower(SMALL)(images)
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.05 * np.abs(exact).max()
