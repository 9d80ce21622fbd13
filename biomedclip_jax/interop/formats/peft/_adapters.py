"""PEFT's adapter folders: LoRA, AdaLoRA, (IA)³ and prefixes on transformers' GPT-2, LLaMA, BERT and ViT, read and
written.

    adapter_config.json        kind, rank, targets
    adapter_model.safetensors  or adapter_model.bin, as PEFT before 0.7 wrote it, with the same names in it

PEFT's A is [R, in] and B [out, R], ours are the transposes. BERT and ViT have queries, keys and values in three
layers: an adapter of our whole attention/qkv is written as one of each, with the same A, which is the same
function; read again it is an adapter of three parts. GPT-2 has them in one layer, LLaMA in three as we do.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import (
    AdaLoRAConfig,
    AdapterConfig,
    GPTConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
    ViTConfig,
)
from biomedclip_jax.config.adapters import PARTS, Layers, block_layers
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.formats.huggingface.mapping import read_json
from biomedclip_jax.interop.formats.peft.names import Names, TowerConfig, key_heads, key_width, layer_widths, names_of
from biomedclip_jax.interop.tensor_files import read_weights, write_safetensors

CONFIG_FILE = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PROMPT = "prompt_embeddings"
_LEAVES = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_E": "lora_e", "ia3_l": "ia3"}
_PREFIXES = tuple(f"blocks/attention/prefix/virtual_{name}" for name in ("keys", "values"))
_THIRDS = tuple(part.rpartition("/")[2] for part in PARTS)

Flat = dict[str, Any]  # {path below the tower: array}, such as blocks/attention/qkv/lora_a


# --- reading --------------------------------------------------------------------------------------------------------


def read_peft(folder: Path, config: TowerConfig) -> tuple[AdapterConfig, Flat]:
    """The adapter in a folder that PEFT wrote for such a model, and its parameters, float32 {path below the tower: array}.

    UserError names a setting that has no counterpart here, and tensors that are missing, unknown or misshapen.
    """
    described = read_json(folder / CONFIG_FILE)
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no adapter here; expected {' or '.join(_FILES)}")
    tensors = read_weights(path)
    kind = described.get("peft_type")
    if kind == "PREFIX_TUNING":
        return _read_prefix(path, described, tensors, config)
    if kind not in ("LORA", "ADALORA", "IA3"):
        raise UserError(f"{folder / CONFIG_FILE}: peft_type = {kind!r}; supported: LORA, ADALORA, IA3, PREFIX_TUNING")
    plain = {"bias": "none", "use_dora": False, "use_rslora": False, "lora_bias": False, "modules_to_save": None}
    for name, value in plain.items():
        if described.get(name, value) not in (value, []):
            raise UserError(f"{folder / CONFIG_FILE}: {name} = {described[name]!r} is not supported; supported: {value!r}")
    for name in ("alpha_pattern", "rank_pattern") if kind == "LORA" else ():
        if described.get(name):
            raise UserError(f"{folder / CONFIG_FILE}: {name} is not supported; supported: one rank and alpha for all layers")
    found = _by_layer(path, tensors, config)
    block = block_layers(config)
    layers = tuple(name for name in dict.fromkeys((*PARTS, *block)) if name in found)
    leaves, ranks = {}, []
    inputs = []
    for layer in layers:
        blocks = [{_LEAVES[name]: np.asarray(x, np.float32) for name, x in own.items()} for own in found[layer]]
        if kind == "IA3":
            if blocks[0]["ia3"].shape[0] == 1:  # [1, in] of an input, [out, 1] of an output
                inputs.append(layer)
            leaves[_path(layer, "ia3", block)] = np.stack([each["ia3"].reshape(-1) for each in blocks])
            continue
        own = tuple(len(each["lora_a"]) for each in blocks)
        widest = max(1, *own)
        for name, axis in (("lora_a", 0), ("lora_b", 1), *([("lora_e", 0)] if kind == "ADALORA" else [])):
            rows = [_padded(each[name], axis, widest) for each in blocks]
            leaves[_path(layer, name, block)] = np.stack([row.reshape(-1) if name == "lora_e" else row.T for row in rows])
        ranks.append((layer, own))
    parameters = {path: jnp.asarray(leaf) for path, leaf in leaves.items()}
    if kind == "IA3":
        return IA3Config(tuple(layer for layer in layers if layer not in inputs), tuple(inputs)), parameters
    common = {"alpha": float(described["lora_alpha"]), "dropout": described.get("lora_dropout", 0.0), "targets": layers}
    if kind == "LORA":
        if {rank for _, own in ranks for rank in own} != {described["r"]}:
            raise UserError(f"{path}: tensors of another rank than r = {described['r']} in {CONFIG_FILE}")
        return LoRAConfig(rank=described["r"], **common), parameters
    rank = described["init_r"]
    return AdaLoRAConfig(rank=rank, ranks=tuple(r for r in ranks if set(r[1]) != {rank}), **common), parameters


def _by_layer(path: Path, tensors: Mapping[str, np.ndarray], config: TowerConfig) -> dict[str, list[dict[str, np.ndarray]]]:
    """{layer or part: {PEFT's name: tensor} of each block}."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    layers = {
        rf"{re.escape(names.block)}\.(\d+)\.{re.escape(module)}": layer
        for names in names_of(config)
        for layer, module in names.modules.items()
    }
    for name in tensors:
        for pattern, layer in layers.items():
            match = re.fullmatch(rf"(?:.+\.)?{pattern}\.({'|'.join(_LEAVES)})(?:\.default)?(?:\.weight)?", name)
            if match and int(match[1]) < config.depth:
                found.setdefault(layer, [{} for _ in range(config.depth)])[int(match[1])][match[2]] = tensors[name]
                break
        else:
            raise UserError(f"{path}: {name} is no tensor of an adapter of this {type(config).__name__}")
    for layer, blocks in found.items():
        d_in, d_out = layer_widths(config, layer)
        for number, block in enumerate(blocks):
            expected = {"lora_A": (None, d_in), "lora_B": (d_out, None), "ia3_l": ((1, d_in), (d_out, 1)), "lora_E": (None, 1)}
            names = {"ia3_l"} if "ia3_l" in block else {"lora_A", "lora_B"} | (block.keys() & {"lora_E"})
            fits = block.keys() == names
            for name, tensor in block.items():
                wanted: Any = expected[name]
                either = wanted if name == "ia3_l" else ((wanted[0] or len(tensor), wanted[1] or tensor.shape[-1]),)
                fits = fits and tensor.shape in either
            if not fits or block.keys() != blocks[0].keys():
                shapes = ", ".join(f"{name} {tensor.shape}" for name, tensor in block.items()) or "nothing"
                raise UserError(
                    f"{path}: {layer} of block {number} has {shapes}; the config asks for {d_in} -> {d_out} in each block"
                )
    if not found:
        raise UserError(f"{path}: no tensor here; expected those of an adapter")
    return found


def _padded(x: np.ndarray, axis: int, width: int) -> np.ndarray:
    """Filled up with zeros: what AdaLoRA removed from some blocks and not from others."""
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, width - x.shape[axis])
    return np.pad(x, missing)


def _read_prefix(
    path: Path, described: Mapping[str, Any], tensors: Mapping[str, np.ndarray], config: TowerConfig
) -> tuple[AdapterConfig, Flat]:
    if described.get("prefix_projection"):
        raise UserError(f"{path.parent / CONFIG_FILE}: prefix_projection is not supported; supported: prefixes without an MLP")
    count = described["num_virtual_tokens"]
    shape = (count, 2 * config.depth * key_width(config))
    if list(tensors) != [_PROMPT] or tensors[_PROMPT].shape != shape:
        raise UserError(f"{path}: expected one tensor, {_PROMPT} of shape {shape}, for a prefix of this model")
    table = np.asarray(tensors[_PROMPT], np.float32).reshape(count, config.depth, 2, -1)
    leaves = {_PREFIXES[i]: jnp.asarray(table[:, :, i].transpose(1, 0, 2)) for i in (0, 1)}
    return PrefixConfig(tokens=count), leaves


def _path(layer: str, leaf: str, block: Layers) -> str:
    part = f"{layer.rpartition('/')[2]}_" if layer not in block else ""
    return f"blocks/{'attention/qkv' if part else layer}/{part}{leaf}"


# --- writing --------------------------------------------------------------------------------------------------------


def write_peft(config: TowerConfig, adapter: AdapterConfig, parameters: Flat, folder: Path, base_model: str = "") -> None:
    """Write the adapter of a tower as PEFT does. base_model: what PEFT is to load it on, a hub name or a folder.

    UserError for what PEFT's folders cannot hold: prefixes of images, and parts of GPT-2's one layer of queries,
    keys and values.
    """
    described: dict[str, Any] = {"base_model_name_or_path": base_model or None, "inference_mode": True}
    if isinstance(adapter, PrefixConfig):
        if isinstance(config, ViTConfig):
            raise UserError("transformers' ViT takes no prefix: this adapter has no form in PEFT")
        keys, values = (np.asarray(parameters[path], np.float32).transpose(1, 0, 2) for path in _PREFIXES)
        tensors = {_PROMPT: np.stack([keys, values], axis=2).reshape(adapter.tokens, -1)}
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
        write_safetensors(partial / _FILES[0], tensors)

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
