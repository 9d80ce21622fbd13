"""The graph of every kind of tower against our own: embeddings by onnxruntime, of any batch and, of texts, any length."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, GPTConfig, LlamaConfig, ViTConfig
from biomedclip_jax.deploy._onnx_towers import check_towers, image_graph, text_graph
from biomedclip_jax.deploy.onnx_folder import _save, runner
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.models import abstract_model, init_params

VIT = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=4, mlp_width=48)
BERT = BertConfig(vocab_size=60, context_length=12, positions=16, width=32, depth=2, heads=4, mlp_width=48)
CLIP_TEXT = ClipTextConfig(vocab_size=60, context_length=12, width=32, depth=2, heads=4, mlp_width=48)
GPT = GPTConfig(vocab_size=60, context_length=12, positions=16, width=32, depth=2, heads=4, mlp_width=48, pad_id=59)
LLAMA = LlamaConfig(
    vocab_size=60, context_length=12, positions=16, width=32, depth=2, heads=4, key_value_heads=2, mlp_width=48, pad_id=59
)


def model(**changes: Any) -> tuple[CLIPConfig, dict]:
    """A model whose every parameter matters, norms and biases too."""
    config = dataclasses.replace(CLIPConfig(image=VIT, text=BERT, embed_width=16), **changes)
    params = init_params(config, 0)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    spread = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return config, jax.tree.unflatten(tree, spread)


def own(config: CLIPConfig, params: dict, method: str, batch: np.ndarray) -> np.ndarray:
    graph, _ = abstract_model(config)
    return np.asarray(getattr(nnx.merge(graph, params), method)(jnp.asarray(batch)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 3, "position_on_registers": False, "layer_scale": True, "norm_pre": True, "patch_bias": False},
        {"registers": 2, "position_on_prefix": False, "pool": "mean_prenorm", "activation": "quick_gelu"},
        {"class_token": False, "pool": "mean", "norm_after_pool": True, "activation": "gelu_tanh"},
        {"pool": "mean"},
        {"class_token": False, "pool": "map", "image_size": 35},
    ],
)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_image_towers(changes: dict, head: Any, tmp_path: Path) -> None:
    config, params = model(image=dataclasses.replace(VIT, **changes), image_head=head, image_head_bias=head == "mlp")
    _save(image_graph(config, params), tmp_path / "image.onnx")
    run, size = runner(tmp_path / "image.onnx"), config.image.image_size
    for count in (1, 3):
        pixels = np.random.default_rng(count).normal(size=(count, size, size, 3)).astype(np.float32)
        expected = own(config, params, "encode_image", pixels)
        assert np.abs(run(pixels) - expected).max() <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-2, "images are told apart"


TEXTS = {
    "bert": BERT,
    "roberta, mean": dataclasses.replace(BERT, pool="mean", position_offset=1),
    "bert, max": dataclasses.replace(BERT, pool="max", activation="gelu_tanh"),
    "bert, pooler": dataclasses.replace(BERT, pool="cls_pooler"),
    "clip": CLIP_TEXT,
    "clip, eos": dataclasses.replace(CLIP_TEXT, pool="eos", eos_id=58, activation="quick_gelu"),
    "siglip": dataclasses.replace(CLIP_TEXT, pool="last", causal=False),
    "gpt": GPT,
    "gpt, first eos": dataclasses.replace(GPT, pool="first_eos", inverse_layer_scale=False),
    "llama": LLAMA,
    "llama, first eos": dataclasses.replace(LLAMA, pool="first_eos", key_value_heads=4),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_towers(text: Any, tmp_path: Path) -> None:
    bias = isinstance(text, GPTConfig)
    config, params = model(text=text, text_head="linear" if bias else "mlp", text_head_bias=bias)
    _save(text_graph(config, params), tmp_path / "text.onnx")
    run, rng = runner(tmp_path / "text.onnx"), np.random.default_rng(0)
    for count, length in ((1, 3), (4, 7), (3, 12)):
        tokens = rng.integers(5, 57, (count, length)).astype(np.int32)
        used = rng.integers(1, length + 1, (count, 1))
        used[0] = length  # one text without padding
        tokens[np.arange(length) >= used] = text.pad_id
        tokens[np.arange(count), used[:, 0] - 1] = 58  # an end
        expected = own(config, params, "encode_text", tokens)
        assert np.abs(run(tokens) - expected).max() <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-2, "texts are told apart"


def test_other_towers_are_refused_in_one_line() -> None:
    config = dataclasses.replace(
        CLIPConfig(embed_width=16), image=ResNetConfig(image_size=96, blocks=(1, 1, 1, 1), stem_width=16)
    )
    with pytest.raises(
        UserError, match=r"the image tower of this model is a ResNet, which cannot be written as ONNX; expected ViT"
    ):
        check_towers(config, "ONNX")
