"""Adapters against PEFT: the same features, the same gradients, and folders that both read."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.reference import load_open_clip, randomise

from biomedclip_jax.config import (
    AdaLoRAConfig,
    Adaptation,
    AdapterConfig,
    BertConfig,
    CLIPConfig,
    ComputeConfig,
    GPTConfig,
    IA3Config,
    LlamaConfig,
    LoRAConfig,
    PrefixConfig,
    ViTConfig,
)
from biomedclip_jax.config.adapters import LLAMA_LAYERS
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import to_params
from biomedclip_jax.interop.formats.huggingface.causal import config_json as causal_config_json
from biomedclip_jax.interop.formats.huggingface.causal import entries as causal_entries
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config_json, bert_entries, vit_config_json, vit_entries
from biomedclip_jax.interop.formats.peft._read import read_peft
from biomedclip_jax.interop.formats.peft._write import write_peft
from biomedclip_jax.models._gpt import GPT
from biomedclip_jax.models._llama import Llama
from biomedclip_jax.models.adapters import with_adapters
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.models.vit import ViT

STILL = {"dropout": 0.0, "attention_dropout": 0.0}
SIZES = {"width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
GPT2 = GPTConfig(vocab_size=60, context_length=12, positions=24, pad_id=59, embedding_dropout=0.0, **SIZES, **STILL)
LLAMA = LlamaConfig(vocab_size=60, context_length=12, positions=24, pad_id=59, key_value_heads=2, **SIZES)
BERT = BertConfig(vocab_size=60, context_length=12, positions=24, layer_norm_eps=1e-12, **SIZES, **STILL)
VIT = ViTConfig(image_size=32, patch_size=8, **SIZES)
KINDS: dict[type, Any] = {GPTConfig: GPT, LlamaConfig: Llama, BertConfig: Bert, ViTConfig: ViT}
Tower = GPTConfig | LlamaConfig | BertConfig | ViTConfig


def their_tower(config: Tower) -> Any:
    """transformers' model with random weights, in eval mode."""
    load_open_clip()  # for a torchvision that transformers can import
    import torch
    import transformers

    torch.manual_seed(0)
    if isinstance(config, GPTConfig):
        sizes = {"vocab_size": 60, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64}
        ends = {"bos_token_id": 59, "eos_token_id": 59, "scale_attn_by_inverse_layer_idx": True, "initializer_range": 0.2}
        model: Any = transformers.GPT2Model(transformers.GPT2Config(**sizes, **ends, attn_implementation="eager"))
    elif isinstance(config, LlamaConfig):
        described = {**causal_config_json(config), "initializer_range": 0.2}
        model = transformers.LlamaModel(transformers.LlamaConfig(**described, attn_implementation="eager"))
    elif isinstance(config, BertConfig):
        described = {**bert_config_json(config), "initializer_range": 0.2}
        model = transformers.BertModel(
            transformers.BertConfig(**described, attn_implementation="eager"), add_pooling_layer=False
        )
    else:
        described = {**vit_config_json(config), "initializer_range": 0.2}
        model = transformers.ViTModel(transformers.ViTConfig(**described, attn_implementation="eager"), add_pooling_layer=False)
    randomise(model)
    return model.eval()


def our_base(config: Tower, theirs: Any, folder: Path) -> dict[str, Any]:
    """The same weights, as our parameters {path below the tower: array}."""
    from safetensors.numpy import load_file

    theirs.save_pretrained(folder)  # under the names of the layout, which are not always those in memory
    tensors = load_file(folder / "model.safetensors")
    tower = "image" if isinstance(config, ViTConfig) else "text"
    tables: dict[type, Any] = {GPTConfig: causal_entries, LlamaConfig: causal_entries, BertConfig: bert_entries}
    table = tables.get(type(config), vit_entries)(config)
    shapes = {
        tower: nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: KINDS[type(config)](config, ComputeConfig(), nnx.Rngs(0)))))
    }
    return flatten_dict(to_params(tensors, table, shapes, {"*.attn.bias": ""}, folder)[0][tower], sep="/")


def inputs(config: Tower) -> np.ndarray:
    if isinstance(config, ViTConfig):
        return np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    tokens = np.random.default_rng(0).integers(1, 59, (3, 12))
    tokens[np.arange(12) >= np.array([[12], [7], [3]])] = config.pad_id
    return tokens.astype(np.int32)


def our_features(
    config: Tower, adapter: AdapterConfig, leaves: dict[str, Any], x: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features [B, D], and the gradient of their weighted sum for the adapter's parameters."""
    tower = "image" if isinstance(config, ViTConfig) else "text"

    def adapted() -> Any:
        rngs = nnx.Rngs(0)
        own = KINDS[type(config)](config, ComputeConfig(), rngs)
        with_adapters(
            SimpleNamespace(config=CLIPConfig(**{tower: config}), **{tower: own}), Adaptation(**{tower: adapter}), rngs
        )
        return own

    graph, state = nnx.split(nnx.eval_shape(adapted))
    wanted = {path: leaf.shape for path, leaf in flatten_dict(nnx.to_pure_dict(state), sep="/").items()}
    assert {path: leaf.shape for path, leaf in leaves.items()} == wanted
    own = {path: leaf for path, leaf in leaves.items() if any(name in path for name in ("lora", "ia3", "virtual"))}

    def loss(own: dict[str, Any], rest: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        found = nnx.merge(graph, unflatten_dict(rest | own, sep="/"))(x)
        return (found * weight(found.shape)).sum(), found

    rest = {path: leaf for path, leaf in leaves.items() if path not in own}
    options = {"xla_backend_optimization_level": 0}
    gradient, found = jax.jit(jax.grad(loss, has_aux=True)).lower(own, rest).compile(options)(own, rest)
    return np.asarray(found), gradient


def weight(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def their_features(config: Tower, model: Any, x: np.ndarray) -> Any:
    import torch

    if isinstance(config, ViTConfig):
        return model(torch.from_numpy(x).permute(0, 3, 1, 2)).last_hidden_state[:, 0]
    mask = torch.from_numpy(x != config.pad_id)
    hidden = model(input_ids=torch.from_numpy(x).long(), attention_mask=mask.long()).last_hidden_state
    if isinstance(config, BertConfig):
        return hidden[:, 0]
    return torch.stack([row[n - 1] for row, n in zip(hidden, mask.sum(1).tolist(), strict=True)])


def their_adapter(theirs: Any, kind: str, **settings: Any) -> Any:
    """PEFT's model with an adapter whose parameters have all moved."""
    import peft
    import torch

    model = peft.get_peft_model(theirs, getattr(peft, f"{kind}Config")(**settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


LORA = {"r": 4, "lora_alpha": 16}
PREFIX = {"num_virtual_tokens": 5, "task_type": "FEATURE_EXTRACTION"}
CASES: dict[str, tuple[Tower, str, dict[str, Any], AdapterConfig]] = {
    "GPT-2 LoRA": (GPT2, "Lora", LORA | {"fan_in_fan_out": True}, LoRAConfig(4, 16, 0.0)),
    "GPT-2 IA3": (GPT2, "IA3", {"fan_in_fan_out": True}, IA3Config()),
    "GPT-2 prefix": (GPT2, "PrefixTuning", PREFIX, PrefixConfig(5)),
    "LLaMA LoRA": (LLAMA, "Lora", LORA, LoRAConfig(4, 16, 0.0, ("attention/query", "attention/value"))),
    "LLaMA LoRA, all": (
        LLAMA,
        "Lora",
        LORA | {"target_modules": "all-linear"},
        LoRAConfig(4, 16, 0.0, LLAMA_LAYERS),
    ),
    "LLaMA IA3": (LLAMA, "IA3", {}, IA3Config(("attention/key", "attention/value"), ("mlp/down",))),
    "LLaMA AdaLoRA": (
        LLAMA,
        "AdaLora",
        {"init_r": 4, "target_r": 2, "lora_alpha": 16, "total_step": 10},
        AdaLoRAConfig(4, 16, 0.0, ("attention/query", "attention/value")),
    ),
    "LLaMA prefix": (LLAMA, "PrefixTuning", PREFIX, PrefixConfig(5)),
    "BERT LoRA": (BERT, "Lora", LORA, LoRAConfig(4, 16, 0.0, ("attention/query", "attention/value"))),
    "BERT LoRA, MLP": (
        BERT,
        "Lora",
        LORA | {"target_modules": ["intermediate.dense", "output.dense"]},
        LoRAConfig(4, 16, 0.0, ("attention/out", "mlp/fc1", "mlp/fc2")),
    ),
    "BERT IA3": (
        BERT,
        "IA3",
        {},
        IA3Config(("attention/key", "attention/value"), ("attention/out", "mlp/fc2")),
    ),
    "BERT prefix": (BERT, "PrefixTuning", PREFIX, PrefixConfig(5)),
    "BERT AdaLoRA": (
        BERT,
        "AdaLora",
        {"init_r": 4, "target_r": 2, "lora_alpha": 16, "total_step": 10, "target_modules": ["query", "value"]},
        AdaLoRAConfig(4, 16, 0.0, ("attention/query", "attention/value")),
    ),
    "ViT LoRA": (
        VIT,
        "Lora",
        LORA | {"target_modules": ["q_proj", "v_proj"]},
        LoRAConfig(4, 16, 0.0, ("attention/query", "attention/value")),
    ),
}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("case", CASES)
def test_parity_with_peft(case: str, tmp_path: Path) -> None:
    """Features to 1e-5, gradients of the adapter to 1e-4 of their largest number; from its folder, and written again."""
    config, kind, settings, expected_config = CASES[case]
    theirs = their_tower(config)
    base = our_base(config, theirs, tmp_path / "base")
    model = their_adapter(theirs, kind, **settings)
    model.save_pretrained(tmp_path / "adapter")
    adapter, leaves = read_peft(tmp_path / "adapter", config)
    assert adapter == expected_config
    x = inputs(config)
    found, gradient = our_features(config, adapter, base | leaves, x)
    expected = their_features(config, model, x)
    assert np.abs(found - expected.detach().numpy()).max() <= 1e-5
    bare = their_features(config, their_tower(config), x).detach().numpy()
    assert np.abs(found - bare).max() > 0.05, "the adapter does something"

    import torch

    (expected * torch.from_numpy(weight(found.shape))).sum().backward()
    # their gradients by our names: PEFT writes whatever stands in the parameters
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.grad)
    model.save_pretrained(tmp_path / "gradient")
    wanted = read_peft(tmp_path / "gradient", config)[1]
    assert wanted.keys() == gradient.keys()
    for path, leaf in wanted.items():
        leaf, ours = np.asarray(leaf), np.asarray(gradient[path])
        if not path.endswith("attention/qkv/key_ia3"):  # a factor of the keys' bias alone would be zero; of keys it is not
            assert np.abs(leaf).max() > 1e-3, path
        assert np.abs(ours - leaf).max() <= 1e-4 * np.abs(leaf).max(), path

    # and what we write is what they read
    import peft

    write_peft(config, adapter, leaves, tmp_path / "ours", base_model=str(tmp_path / "base"))
    loaded = peft.PeftModel.from_pretrained(their_tower(config), tmp_path / "ours").eval()
    again = their_features(config, loaded, x).detach().numpy()
    assert np.abs(found - again).max() <= 1e-5
    back, same = read_peft(tmp_path / "ours", config)
    assert back == adapter and all(np.array_equal(same[path], leaf) for path, leaf in leaves.items())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")  # PEFT says so of its own AdaLoRA folders
def test_an_adapter_of_the_fused_layer_in_peft(tmp_path: Path) -> None:
    """Ours on queries, keys and values at once, and AdaLoRA with other ranks in other blocks: PEFT computes the same."""
    load_open_clip()  # for a torchvision that peft can import, too
    import peft

    rng = np.random.default_rng(5)
    fused = LoRAConfig(4, 16, 0.0)
    pruned = AdaLoRAConfig(4, 16, 0.0, ("attention/value", "mlp/fc1"), (("attention/value", (3, 1)),))
    sizes: dict[str, dict[str, tuple[int, ...]]] = {
        "LoRA": {"attention/qkv/lora_a": (2, 32, 4), "attention/qkv/lora_b": (2, 4, 96)},
        "AdaLoRA": {
            **{f"attention/qkv/value_lora_{n}": s for n, s in (("a", (2, 32, 3)), ("e", (2, 3)), ("b", (2, 3, 32)))},
            **{f"mlp/fc1/lora_{n}": s for n, s in (("a", (2, 32, 4)), ("e", (2, 4)), ("b", (2, 4, 64)))},
        },
    }
    theirs = their_tower(BERT)
    base, x = our_base(BERT, theirs, tmp_path / "base"), inputs(BERT)
    for name, adapter in (("LoRA", fused), ("AdaLoRA", pruned)):
        leaves = {f"blocks/{path}": rng.normal(size=size).astype(np.float32) * 0.3 for path, size in sizes[name].items()}
        found, _ = our_features(BERT, adapter, base | leaves, x)
        write_peft(BERT, adapter, leaves, tmp_path / name)
        loaded = peft.PeftModel.from_pretrained(their_tower(BERT), tmp_path / name).eval()
        expected = their_features(BERT, loaded, x).detach().numpy()
        assert np.abs(found - expected).max() <= 1e-5, name
        back, read = read_peft(tmp_path / name, BERT)
        again, _ = our_features(BERT, back, base | read, x)
        assert np.abs(again - found).max() <= 1e-5, name
        assert back == (
            dataclasses.replace(fused, targets=("attention/query", "attention/key", "attention/value"))
            if name == "LoRA"
            else pruned
        )


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    leaves = {"blocks/attention/qkv/lora_a": np.ones((2, 32, 4)), "blocks/attention/qkv/lora_b": np.ones((2, 4, 96))}
    write_peft(GPT2, LoRAConfig(4, 16, 0.0), leaves, tmp_path / "good")

    def changed(**settings: Any) -> str:
        content = json.loads((tmp_path / "good" / "adapter_config.json").read_text()) | settings
        (tmp_path / "good" / "adapter_config.json").write_text(json.dumps(content))
        with pytest.raises(UserError) as caught:
            read_peft(tmp_path / "good", GPT2)
        return str(caught.value)

    wider = dataclasses.replace(GPT2, width=64)
    with pytest.raises(
        UserError, match=r"attention/qkv of block 0 has lora_A \(4, 32\), lora_B \(96, 4\); the config asks for 64 -> 192"
    ):
        read_peft(tmp_path / "good", wider)
    with pytest.raises(UserError, match=r"h\.0\.attn\.c_attn\.lora_A\.weight is no tensor of an adapter of this BertConfig"):
        read_peft(tmp_path / "good", BERT)
    assert "r = 8" in changed(r=8)
    assert "use_dora = True is not supported; supported: False" in changed(use_dora=True)
    assert "peft_type = 'LOHA'" in changed(peft_type="LOHA")
    with pytest.raises(UserError, match="no adapter here; expected adapter_model"):
        (tmp_path / "good" / "adapter_model.safetensors").unlink()
        read_peft(tmp_path / "good", GPT2)
    with pytest.raises(UserError, match="takes no prefix"):
        write_peft(VIT, PrefixConfig(2), {}, tmp_path / "x")
    part = {"blocks/attention/qkv/query_lora_a": np.ones((2, 32, 4)), "blocks/attention/qkv/query_lora_b": np.ones((2, 4, 32))}
    with pytest.raises(UserError, match="in one layer"):
        write_peft(GPT2, LoRAConfig(4, targets=("attention/query",)), part, tmp_path / "x")
    assert not (tmp_path / "x").exists()
