"""Adapters written as PEFT does: LoRA, AdaLoRA, (IA)³ and prefixes on transformers' GPT-2, LLaMA, BERT and ViT.

BERT and ViT have queries, keys and values in three layers: an adapter of our whole attention/qkv is written as one of
each, with the same A, which is the same function. GPT-2 has them in one layer, LLaMA in three as we do.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import AdaLoRAConfig, AdapterConfig, GPTConfig, IA3Config, LoRAConfig, PrefixConfig, ViTConfig
from biomedclip_jax.config.adapters import PARTS, Layers, block_layers
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.formats.peft._settings import CONFIG_FILE
from biomedclip_jax.interop.formats.peft.names import (
    FILES,
    PREFIXES,
    PROMPT,
    Flat,
    Names,
    TowerConfig,
    key_heads,
    key_width,
    names_of,
)
from biomedclip_jax.interop.tensor_files import write_safetensors

_THIRDS = tuple(part.rpartition("/")[2] for part in PARTS)


def write_peft(config: TowerConfig, adapter: AdapterConfig, parameters: Flat, folder: Path, base_model: str = "") -> None:
    """Write the adapter of a tower as PEFT does. base_model: what PEFT is to load it on, a hub name or a folder.

    UserError for what PEFT's folders cannot hold: prefixes of images, and parts of GPT-2's one layer of queries,
    keys and values.
    """
    described: dict[str, Any] = {"base_model_name_or_path": base_model or None, "inference_mode": True}
    if isinstance(adapter, PrefixConfig):
        if isinstance(config, ViTConfig):
            raise UserError("transformers' ViT takes no prefix: this adapter has no form in PEFT")
        keys, values = (np.asarray(parameters[path], np.float32).transpose(1, 0, 2) for path in PREFIXES)
        tensors = {PROMPT: np.stack([keys, values], axis=2).reshape(adapter.tokens, -1)}
        described |= {"peft_type": "PREFIX_TUNING", "task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": adapter.tokens}
        described |= {"token_dim": key_width(config), "num_layers": config.depth, "num_attention_heads": key_heads(config)}
        described |= {"num_transformer_submodules": 1, "encoder_hidden_size": config.width, "prefix_projection": False}
    else:
        names, block = names_of(config)[0], block_layers(config)
        if isinstance(config, GPTConfig) and any(f"blocks/attention/qkv/{p}_" in path for p in _THIRDS for path in parameters):
            raise UserError("GPT-2 has queries, keys and values in one layer: adapters of parts of it have no form in PEFT")
        split = [_split(layer, leaves, "attention/qkv" in names.modules) for layer, leaves in _leaves_of(parameters).items()]
        by_layer = {layer: leaves for each in split for layer, leaves in each.items()}
        tensors, pattern = _tensors(names, adapter, by_layer, block)
        described |= {"target_modules": _regex(names, tuple(by_layer)), "fan_in_fan_out": isinstance(config, GPTConfig)}
        if isinstance(adapter, IA3Config):
            inputs = adapter.layers_in(block)[1]
            described |= {"peft_type": "IA3", "feedforward_modules": _regex(names, inputs) if inputs else []}
        else:
            described |= {"lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout, "bias": "none"}
        if isinstance(adapter, LoRAConfig):
            described |= {"peft_type": "LORA", "r": adapter.rank}
        if isinstance(adapter, AdaLoRAConfig):
            least = min((len(flags) and sum(flags) for flags in pattern.values()), default=adapter.rank)
            described |= {
                "peft_type": "ADALORA",
                "init_r": adapter.rank,
                "target_r": least,
                "rank_pattern": pattern or None,
                "total_step": 1,
            }

    def write(partial: Path) -> None:
        (partial / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        write_safetensors(partial / FILES[0], tensors)

    write_folder(folder, write)


def _leaves_of(parameters: Flat) -> dict[str, dict[str, np.ndarray]]:
    """{layer or part: {our leaf: array [L, ...]}}."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path, array in parameters.items():
        layer, _, name = path.removeprefix("blocks/").rpartition("/")
        part = next((part for part in _THIRDS if name.startswith(f"{part}_")), "")
        leaf = name.removeprefix(f"{part}_")
        found.setdefault(f"attention/{part}" if part else layer, {})[leaf] = np.asarray(array, np.float32)
    return found


def _split(layer: str, leaves: dict[str, np.ndarray], fused: bool) -> dict[str, dict[str, np.ndarray]]:
    """The whole of attention/qkv as its three parts, where the foreign model has them apart."""
    if layer != "attention/qkv" or fused:
        return {layer: leaves}
    wide = [name for name in ("lora_b", "ia3") if name in leaves]
    thirds = {name: np.split(leaves[name], 3, axis=-1) for name in wide}
    return {part: leaves | {name: thirds[name][third] for name in wide} for part, third in PARTS.items()}


def _tensors(
    names: Names, adapter: AdapterConfig, by_layer: dict[str, dict[str, np.ndarray]], layers: Layers
) -> tuple[dict[str, np.ndarray], dict[str, list[bool]]]:
    """Tensors under PEFT's names, and AdaLoRA's rank pattern."""
    tensors: dict[str, np.ndarray] = {}
    pattern: dict[str, list[bool]] = {}
    inputs = adapter.layers_in(layers)[1] if isinstance(adapter, IA3Config) else ()
    for layer, leaves in by_layer.items():
        for block in range(len(next(iter(leaves.values())))):
            module = f"{names.block}.{block}.{names.modules[layer]}"
            own = {leaf: array[block] for leaf, array in leaves.items()}
            key = f"base_model.model.{module}"
            if isinstance(adapter, IA3Config):
                tensors[f"{key}.ia3_l"] = own["ia3"].reshape((1, -1) if layer in inputs else (-1, 1))
            elif isinstance(adapter, LoRAConfig):
                tensors |= {f"{key}.lora_A.weight": own["lora_a"].T, f"{key}.lora_B.weight": own["lora_b"].T}
            elif isinstance(adapter, AdaLoRAConfig):
                ranks = adapter.ranks_of(layer if layer in adapter.layers_in(layers) else "attention/qkv")
                rank = adapter.rank if ranks is None else ranks[block]
                tensors |= {f"{key}.lora_A": own["lora_a"].T[:rank], f"{key}.lora_B": own["lora_b"].T[:, :rank]}
                tensors[f"{key}.lora_E"] = own["lora_e"][:rank, None]
                if adapter.ranks:
                    pattern[f"{module}.lora_E"] = [i < rank for i in range(adapter.rank)]
    return tensors, pattern


def _regex(names: Names, layers: tuple[str, ...]) -> str:
    """What PEFT is to match against the names of modules, from beginning to end."""
    modules: list[str] = []
    for layer in layers:
        parts = PARTS if layer == "attention/qkv" and layer not in names.modules else {layer: 0}
        modules += [re.escape(names.modules[part]) for part in parts]
    return rf"(.*\.)?{re.escape(names.block)}\.\d+\.({'|'.join(modules)})"
