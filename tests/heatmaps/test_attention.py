"""Gradient-weighted attention against the method written out in torch, where autograd takes the gradients."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model
from helpers.tiny_siglip import siglip

from biomedclip_jax.heatmaps._attention import _parted, _weight_shapes, relevance, seen
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.models import abstract_model

TEXT = {"context_length": 16, "vocab_size": 300, "width": 32, "heads": 4, "layers": 1}
VISION = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}


def pixels() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)


def texts(width: int) -> np.ndarray:
    found = np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def chefer(visual: Any, image: Any, text: Any, last: int) -> np.ndarray:
    """R <- R + (gradient * weights)+ . R over the last blocks of an open_clip ViT, and the class token's row of it."""
    import torch

    before: list[Any] = []
    blocks = visual.transformer.resblocks
    handle = blocks[len(blocks) - last].register_forward_pre_hook(lambda module, arguments: before.append(arguments[0]))
    visual(image)
    handle.remove()
    x, weights = before[0].detach(), []
    for block in blocks[len(blocks) - last :]:
        attention, (b, n, d) = block.attn, x.shape
        qkv = torch.nn.functional.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.reshape(b, n, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights.append(torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1).requires_grad_())
        x = x + attention.out_proj((weights[-1] @ v).transpose(1, 2).reshape(b, n, d))
        x = x + block.mlp(block.ln_2(x))
    x = visual.ln_post(x)
    pooled = x[:, 0] if visual.pool_type == "tok" else x[:, 1:].mean(dim=1)
    score = torch.nn.functional.normalize(pooled @ visual.proj, dim=-1)[0] @ text
    relevances = torch.eye(x.shape[1])
    for gradient, own in zip(torch.autograd.grad(score, weights), weights, strict=True):
        relevances = relevances + (gradient * own).clamp(min=0).mean(dim=1)[0] @ relevances
    row = relevances[0] if visual.pool_type == "tok" else relevances[1:].mean(dim=0)
    return row[1:].detach().numpy()


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_a_vit(pool: str, last: int, tmp_path: Path) -> None:
    reference = open_clip_model(tmp_path, VISION | {"pool_type": pool}, TEXT)
    import torch

    model = read_model(tmp_path)
    graph, _ = abstract_model(model.config)
    found = np.asarray(relevance(graph, last)(model.params, pixels(), texts(32)))
    assert found.shape == (3, 16) and found.min() >= 0
    for own, text in zip(found, texts(32), strict=True):
        image = torch.from_numpy(pixels()).permute(0, 3, 1, 2)
        expected = chefer(reference.visual, image, torch.from_numpy(text), last)
        assert expected.std() > 0
        assert np.abs(own - expected).max() <= 1e-4 * np.abs(expected).max()


def test_attention_pooling(tmp_path: Path) -> None:
    """SigLIP with no block looked at: the pool's own weights times their gradient, by finite differences."""
    siglip(tmp_path)
    load_open_clip()
    model = read_model(tmp_path)
    graph, _ = abstract_model(model.config)
    text = texts(48)[:1]
    found = np.asarray(relevance(graph, 0)(model.params, pixels(), text))[0]
    clip = nnx.merge(graph, model.params)
    x = clip.image.norm(clip.image.run(clip.image.embed(pixels()), None, clip.image.blocks))

    def score(added: np.ndarray) -> float:
        features = np.asarray(clip.image_head(clip.image.pool.looking(x, jnp.asarray(added))[0])[0], np.float64)
        return float(features @ text[0] / np.linalg.norm(features))

    weights = np.asarray(clip.image.pool.looking(x)[1])
    assert weights.shape == (1, 3, 16)
    gradient = np.zeros_like(weights)
    for place in np.ndindex(weights.shape):
        step = np.zeros_like(weights)
        step[place] = 0.05
        gradient[place] = (score(step) - score(-step)) / 0.1
    expected = np.maximum(gradient * weights, 0)[0].mean(axis=0)
    assert np.abs(found - expected).max() <= 0.02 * expected.max()


@pytest.mark.parametrize("kind", ["tok", "avg", "map"])
def test_the_plain_form_gives_the_towers_features(kind: str, tmp_path: Path) -> None:
    if kind == "map":
        siglip(tmp_path)
    else:
        open_clip_model(tmp_path, VISION | {"pool_type": kind, "ls_init_value": 0.5}, TEXT)
    model = read_model(tmp_path)
    tower = nnx.merge(abstract_model(model.config)[0], model.params).image
    for last in range(model.config.vit.depth + 1):
        blocks, x = _parted(tower, pixels(), last)
        shapes = _weight_shapes(tower, x.shape[1], len(blocks))
        features, weights = seen(tower, blocks, x, [jnp.zeros(shape) for shape in shapes])
        assert np.abs(features - tower(pixels())).max() <= 1e-5
        assert [each.shape for each in weights] == shapes
        assert all(np.abs(each.sum(axis=-1) - 1).max() <= 1e-5 for each in weights)
