"""Patch tokens of every kind of image tower against those that open_clip, timm, transformers and torchvision give."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model
from helpers.tiny_siglip import siglip

from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.models import CLIP, abstract_model

TEXT = {"context_length": 16, "vocab_size": 300, "width": 32, "heads": 4, "layers": 1}
VISION = {"layers": 3, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}


def pixels(size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(2, size, size, 3)) + rng.normal(size=(2, 1, 1, 3))).astype(np.float32)


def as_torch(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2)


def ours(folder: Path) -> CLIP:
    model = read_model(folder)
    graph, _ = abstract_model(model.config, inference=True)
    return nnx.merge(graph, model.params)


def agree(tokens: Any, expected: np.ndarray) -> None:
    assert tokens.shape == expected.shape and tokens.dtype == np.float32
    assert np.abs(tokens - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    assert np.abs(expected[:, 0] - expected[:, -1]).max() > 1e-2, "patches are told apart"


@pytest.mark.parametrize(
    "vision", [{}, {"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}], ids=["tok", "avg", "ln after"]
)
def test_open_clips_own_vit(vision: dict, tmp_path: Path) -> None:
    reference = open_clip_model(tmp_path, VISION | vision, TEXT)
    import torch

    reference.visual.output_tokens = True
    with torch.no_grad():
        pooled, tokens = reference.visual(as_torch(pixels()))
    clip = ours(tmp_path)
    agree(clip.image_tokens(pixels()), tokens.numpy())
    assert np.abs(clip.image_features(pixels()) - pooled.numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("pool", "model"), [("token", {}), ("avg", {}), ("map", {"class_token": False, "global_pool": "map", "fc_norm": False})]
)
def test_timms_vit(pool: str, model: dict, tmp_path: Path) -> None:
    """As in BiomedCLIP and in open_clip's SigLIPs; with "avg" timm's norm comes after pooling."""
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": pool, "timm_proj": "linear", "image_size": 224}
    if pool == "map":
        vision |= {"timm_model_name": "vit_base_patch16_siglip_224", "timm_proj": "none"}
    reference = open_clip_model(tmp_path, vision, TEXT, embed_dim=768 if pool == "map" else 32)
    import torch

    images = pixels(224)[:1]
    trunk = reference.visual.trunk
    with torch.no_grad():
        tokens = trunk.forward_features(as_torch(images))[:, trunk.num_prefix_tokens :].numpy()
    agree(ours(tmp_path).image_tokens(images), tokens)


def test_transformers_clip_and_siglip(tmp_path: Path) -> None:
    """SiglipVisionModel's last hidden states are these; CLIPVisionModel's lack the norm, which is its pooled token's alone."""
    reference = siglip(tmp_path / "siglip")
    import torch
    from transformers import CLIPConfig, CLIPModel

    with torch.no_grad():
        agree(ours(tmp_path / "siglip").image_tokens(pixels()), reference.vision_model(as_torch(pixels()))[0].numpy())
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    sizes = {"image_size": 32, "patch_size": 8}
    text = tower | {"vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 98, "bos_token_id": 97}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=tower | sizes, projection_dim=16)).eval()
    clip.save_pretrained(tmp_path / "clip")
    with torch.no_grad():
        states = clip.vision_model(as_torch(pixels())).last_hidden_state[:, 1:]
        expected = clip.vision_model.post_layernorm(states).numpy()
    agree(ours(tmp_path / "clip").image_tokens(pixels()), expected)


@pytest.mark.parametrize("vision", [{}, {"pool_type": "avg"}], ids=["tok", "avg"])
def test_projected_tokens_are_what_pooling_is_made_of(vision: dict, tmp_path: Path) -> None:
    """Written out in torch: the value path of the last block for a class token; for the mean the head on each token."""
    reference = open_clip_model(tmp_path, VISION | vision, TEXT)
    import torch
    from torch.nn import functional

    visual = reference.visual
    visual.output_tokens = True
    with torch.no_grad():
        if vision:
            _, states = visual(as_torch(pixels()))
        else:
            hidden = []
            last = visual.transformer.resblocks[-1]
            last.register_forward_pre_hook(lambda module, arguments: hidden.append(arguments[0]))
            visual(as_torch(pixels()))
            x = last.ln_1(hidden[0])
            kernel, bias = (t[-64:] for t in (last.attn.in_proj_weight, last.attn.in_proj_bias))
            states = visual.ln_post(last.attn.out_proj(functional.linear(x, kernel, bias)))[:, 1:]
        expected = functional.normalize(states @ visual.proj, dim=-1).numpy()
    found = ours(tmp_path).image_token_embeddings(pixels())
    agree(found, expected)
    assert np.abs(np.linalg.norm(found, axis=-1) - 1).max() <= 1e-5


def test_attention_pooling_of_one_patch(tmp_path: Path) -> None:
    """SigLIP: the embedding of a patch is what transformers' pooling head makes of this patch alone."""
    reference = siglip(tmp_path)
    import torch

    with torch.no_grad():
        states = reference.vision_model(as_torch(pixels()))[0]
        head = reference.vision_model.head
        alone = torch.stack([head(states[:, i : i + 1]) for i in range(states.shape[1])], dim=1)
        expected = torch.nn.functional.normalize(alone, dim=-1).numpy()
    agree(ours(tmp_path).image_token_embeddings(pixels()), expected)


def test_clips_resnet(tmp_path: Path) -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 96}
    reference = open_clip_model(tmp_path, vision, TEXT)
    import torch

    visual, images = reference.visual, pixels(96)
    with torch.no_grad():
        x = visual.stem(as_torch(images))
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        states = x.flatten(2).transpose(1, 2)
        pool = visual.attnpool
        expected = torch.nn.functional.normalize(pool.c_proj(pool.v_proj(states)), dim=-1).numpy()
    clip = ours(tmp_path)
    assert np.abs(clip.image_tokens(images) - states.numpy()).max() <= 1e-5 * float(states.abs().max())
    assert np.abs(clip.image_token_embeddings(images) - expected).max() <= 1e-5


def test_api_gives_rows_and_leaves_out_what_is_broken(tmp_path: Path) -> None:
    import biomedclip_jax as bc

    open_clip_model(tmp_path, VISION, TEXT | {"hf_tokenizer_name": ""})
    load_open_clip()
    clip = bc.from_pretrained(tmp_path)
    images = [np.full((40, 50, 3), value, np.uint8) for value in (10, 200, 90)]
    bad: dict[int, bc.UserError] = {}
    tokens = clip.image_tokens([images[0], tmp_path / "no.png", *images[1:]], batch_size=2, on_error=bad.__setitem__)
    assert tokens.shape == (3, 16, 64) and tokens.dtype == np.float32 and bad.keys() == {1}
    together = clip.image_tokens(images, projected=True)
    assert together.shape == (3, 16, 32)
    assert np.abs(clip.image_tokens(images[1:2], projected=True)[0] - together[1]).max() <= 1e-5
    assert clip.image_tokens([]).shape == (0, 16, 64)
    assert jax.device_count() > 1
    assert np.abs(bc.from_pretrained(tmp_path, every_device=True).image_tokens(images) - tokens).max() <= 1e-5
