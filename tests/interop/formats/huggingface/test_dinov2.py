"""DINOv2 as image tower, with registers and without, against transformers and timm; from each layout it is published in."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, randomise

from biomedclip_jax.config import ComputeConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.formats.huggingface.dinov2 import own_entries, transformers_entries
from biomedclip_jax.interop.initial import image_tower
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.models.vit import ViT

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 14, "image_size": 70}
SMALL = ViTConfig(
    image_size=70,
    patch_size=14,
    width=32,
    depth=2,
    heads=4,
    mlp_width=128,
    registers=4,
    position_on_registers=False,
    layer_scale=True,
)
PLAIN = dataclasses.replace(SMALL, registers=0, position_on_registers=True)
BASE = dataclasses.replace(SMALL, width=768, depth=12, heads=12, mlp_width=3072, image_size=224)


def written(folder: Path, config: ViTConfig, image_size: int) -> Any:
    """transformers' DINOv2 of this size with random weights, as `save_pretrained` writes it."""
    load_open_clip()
    import torch
    import transformers

    torch.manual_seed(0)
    family = "Dinov2WithRegisters" if config.registers else "Dinov2"
    sizes = {"hidden_size": config.width, "num_hidden_layers": config.depth, "num_attention_heads": config.heads}
    sizes["initializer_range"] = 1.5 * config.width**-0.5  # so that tokens look at each other unevenly
    described = getattr(transformers, f"{family}Config")(**sizes, patch_size=14, image_size=image_size)
    model = getattr(transformers, f"{family}Model")(described).eval()
    randomise(model)
    with torch.no_grad():
        for parameter in (model.embeddings.cls_token, model.embeddings.position_embeddings):
            parameter.add_(torch.randn(parameter.shape) * 0.5)  # they start at zero or nearly
    model.save_pretrained(folder)
    return model


def pictures(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def their_features(model: Any, images: np.ndarray, pool: str) -> Any:
    """Unit features: CLEFT's mean over all tokens before the last norm, or the class token after it."""
    import torch

    out = model(torch.from_numpy(images).permute(0, 3, 1, 2), output_hidden_states=True)
    features = out.hidden_states[-1].mean(dim=1) if pool == "mean_prenorm" else out.last_hidden_state[:, 0]
    return torch.nn.functional.normalize(features, dim=-1)


def our_features(config: ViTConfig, params: dict[str, Any], images: np.ndarray) -> jax.Array:
    graph, _ = nnx.split(nnx.eval_shape(lambda: ViT(config, ComputeConfig(), nnx.Rngs(0))))
    features = nnx.merge(graph, params)(images)
    return features / jax.numpy.linalg.norm(features, axis=-1, keepdims=True)


def assert_parity(folder: Path, theirs: Any, config: ViTConfig, quickly: bool = True) -> dict[str, float]:
    """Features to 1e-5, and the gradient of every tensor to 1e-4 of its largest number, at the size that the file has."""
    import torch

    images = pictures(config.image_size)
    expected = their_features(theirs, images, config.pool)
    weight = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    theirs.zero_grad()
    (expected * torch.from_numpy(weight)).sum().backward()
    params = image_tower(str(folder), config)

    def loss(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        found = our_features(config, params, images)
        return (found * weight).sum(), found

    options = {"xla_backend_optimization_level": 0} if quickly else None
    gradient, found = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(options)(params)
    worst = {"forward": float(np.abs(found - expected.detach().numpy()).max()), "gradient": 0.0}
    assert worst["forward"] <= 1e-5
    ours = from_params({"image": gradient}, transformers_entries(config))
    wanted = gradients_on_disk(theirs, folder / "gradients")
    assert set(wanted) - set(ours) == {"embeddings.mask_token"}
    for name, leaf in ours.items():
        if config.pool == "mean_prenorm" and name.startswith("layernorm."):
            assert not wanted[name].any() and not leaf.any(), "the last norm is no part of this feature"
            continue
        # all scores of a query move alike with the bias of keys: its true gradient is zero
        scale = max(np.abs(wanted[name]).max().item(), 1e-2 if name.endswith("key.bias") else 0.0)
        error = np.abs(leaf - wanted[name]).max() / scale
        assert error <= 1e-4, name
        worst["gradient"] = max(worst["gradient"], float(error))
    return worst


def gradients_on_disk(model: Any, folder: Path) -> dict[str, np.ndarray]:
    """The gradient of each tensor under the name that transformers writes it by, which is not what it calls it in memory."""
    import torch

    gradients = copy.deepcopy(model)
    with torch.no_grad():
        for mine, theirs in zip(gradients.parameters(), model.parameters(), strict=True):
            mine.copy_(torch.zeros_like(theirs) if theirs.grad is None else theirs.grad)
    gradients.save_pretrained(folder)
    return dict(read_weights(folder / "model.safetensors"))


@pytest.mark.parametrize("pool", ["mean_prenorm", "cls"])
@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["registers", "plain"])
def test_features_and_gradients(tmp_path: Path, config: ViTConfig, pool: Any) -> None:
    theirs = written(tmp_path, config, 70)
    config = dataclasses.replace(config, pool=pool)
    print(assert_parity(tmp_path, theirs, config))
    import torch

    images = pictures(70)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).last_hidden_state[:, 1 + config.registers :].numpy()
    graph, _ = nnx.split(nnx.eval_shape(lambda: ViT(config, ComputeConfig(), nnx.Rngs(0))))
    found = nnx.merge(graph, image_tower(str(tmp_path), config)).patch_states(images)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_vit_b14_with_registers_at_its_size(tmp_path: Path) -> None:
    """DINOv2 as CLEFT uses it: 224 px, 261 tokens, the mean before the last norm."""
    theirs = written(tmp_path, BASE, 224)
    more = 37**2 - 16**2  # rows of the position table, as it is released for 518 px
    assert sum(p.numel() for p in theirs.parameters()) + 768 * more == 86_583_552
    print(assert_parity(tmp_path, theirs, dataclasses.replace(BASE, pool="mean_prenorm"), quickly=False))


# --- another image size ----------------------------------------------------------------------------------------------


def test_positions_of_518_px_at_224(tmp_path: Path) -> None:
    """transformers resizes them in every call (bicubic with antialiasing), as DINOv2 does with registers; we once."""
    theirs = written(tmp_path, SMALL, 518)
    config = dataclasses.replace(SMALL, image_size=224, pool="mean_prenorm")
    params = image_tower(str(tmp_path), config)
    assert params["position"].shape == (1 + 16 * 16, 32)
    images = pictures(224)
    expected = their_features(theirs, images, "mean_prenorm").detach().numpy()
    assert np.abs(our_features(config, params, images) - expected).max() <= 1e-5


# --- the layouts -----------------------------------------------------------------------------------------------------


def own_checkpoint(path: Path, folder: Path, config: ViTConfig) -> dict[str, Any]:
    """The weights in transformers' `folder` under the names of DINOv2's own checkpoints, written out here a second time."""
    import torch
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    own = {
        "cls_token": state["embeddings.cls_token"],
        "mask_token": state["embeddings.mask_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    if config.registers:
        own["register_tokens"] = state["embeddings.register_tokens"]
    for i in range(config.depth):
        theirs, ours = f"encoder.layer.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{theirs}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            own[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
            own[f"{ours}attn.proj.{kind}"] = state[f"{theirs}attention.output.dense.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                own[f"{ours}{name}.{kind}"] = state[f"{theirs}{name}.{kind}"]
        for n in (1, 2):
            own[f"{ours}ls{n}.gamma"] = state[f"{theirs}layer_scale{n}.lambda1"]
    torch.save(own, path)
    return own


def timm_model(own: dict[str, Any], config: ViTConfig) -> Any:
    """timm's DINOv2, filled by timm itself from DINOv2's own checkpoint."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    name = "vit_small_patch14_reg4_dinov2" if config.registers else "vit_small_patch14_dinov2"
    sizes = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads, "img_size": config.image_size}
    model = timm.create_model(name, **sizes).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(own), model))
    return model


@pytest.mark.parametrize("size", [70, 42])
@pytest.mark.parametrize("config", [SMALL, PLAIN], ids=["registers", "plain"])
def test_every_layout_gives_the_same_tower(tmp_path: Path, config: ViTConfig, size: int) -> None:
    """Also timm's, which has no position for the class token when there are registers: it is a part of the token there."""
    written(tmp_path / "transformers", config, 70)
    import torch
    from safetensors.torch import save_file

    own = own_checkpoint(tmp_path / "dinov2_vits14_pretrain.pth", tmp_path / "transformers", config)
    timm = timm_model(own, config)
    (tmp_path / "timm").mkdir()
    save_file(timm.state_dict(), tmp_path / "timm" / "model.safetensors")
    config = dataclasses.replace(config, image_size=size)
    images = pictures(size)
    resized = timm_model(own, config)  # timm resizes the positions itself
    with torch.no_grad():
        features = resized.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0]
        expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    folded = [dataclasses.replace(config, position_on_prefix=False, position_on_registers=True)] if config.registers else []
    for source in ("transformers", "dinov2_vits14_pretrain.pth", "timm"):
        for wanted in (config, *folded):
            params = image_tower(str(tmp_path / source), wanted)
            assert np.abs(our_features(wanted, params, images) - expected).max() <= 1e-5, (source, wanted)
    if size == 70:
        params = image_tower(str(tmp_path / "dinov2_vits14_pretrain.pth"), config)
        back = from_params({"image": params}, own_entries(config))
        assert set(own) - set(back) == {"mask_token"}
        assert all(np.array_equal(back[name], own[name].numpy()) for name in back)


def test_what_is_no_such_tower(tmp_path: Path) -> None:
    written(tmp_path / "giant", SMALL, 70)
    wrong = (PLAIN, dataclasses.replace(SMALL, depth=3))
    for config, expected in zip(wrong, (r"registers = 4 \(config: 0\)", r"depth = 2 \(config: 3\)"), strict=True):
        with pytest.raises(UserError, match=rf"giant/config\.json: another model than the config asks for: {expected}"):
            image_tower(str(tmp_path / "giant"), config)
    (tmp_path / "giant" / "config.json").unlink()
    expected = ("unknown tensors: embeddings.register_tokens", "18 tensors are missing: encoder.layer.2")
    for config, message in zip(wrong, expected, strict=True):
        with pytest.raises(UserError, match=message):
            image_tower(str(tmp_path / "giant"), config)
    with pytest.raises(UserError, match="position_on_registers = False: expected True where there are no registers"):
        dataclasses.replace(PLAIN, position_on_registers=False)
