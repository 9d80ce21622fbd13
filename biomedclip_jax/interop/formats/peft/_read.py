"""PEFT's adapter folders read: LoRA, AdaLoRA, (IA)³ and prefixes on transformers' GPT-2, LLaMA, BERT and ViT.

    adapter_config.json        kind, rank, targets: see `_settings.py`
    adapter_model.safetensors  or adapter_model.bin, as PEFT before 0.7 wrote it, with the same names in it

PEFT's A is [R, in] and B [out, R], ours are the transposes. What PEFT would not load, or would look for in vain, is an
error: it would compute something else than the file says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import AdaLoRAConfig, AdapterConfig, BertConfig, IA3Config, LoRAConfig, PrefixConfig, ViTConfig
from biomedclip_jax.config.adapters import PARTS, Layers, block_layers
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.formats.huggingface.mapping import read_json
from biomedclip_jax.interop.formats.peft._settings import (
    CONFIG_FILE,
    Ranks,
    Targets,
    check_fields,
    read_ranks,
    read_targets,
)
from biomedclip_jax.interop.formats.peft.names import (
    FILES,
    PREFIXES,
    PROMPT,
    Flat,
    Names,
    TowerConfig,
    key_heads,
    key_width,
    layer_widths,
    names_of,
)
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.support.fields import number, shown

_LEAVES = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_E": "lora_e", "ia3_l": "ia3"}
_OF_KIND = {"LORA": {"lora_A", "lora_B"}, "ADALORA": {"lora_A", "lora_B", "lora_E"}, "IA3": {"ia3_l"}}
_BEFORE = "base_model.model."  # PEFT's wrapper, in front of the names of the model's own modules


@dataclass
class _Layer:
    """What the file has for a layer or part: for each block the name of its module, and PEFT's tensors."""

    modules: dict[int, str] = field(default_factory=dict)
    tensors: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


def read_peft(folder: Path, config: TowerConfig) -> tuple[AdapterConfig, Flat]:
    """The adapter in a folder that PEFT wrote for such a model, and its parameters, float32 {path below the tower: array}.

    Ranks, factors and blocks may differ from layer to layer: smaller ranks are filled up with zeros, and factors of
    their own are in B. UserError names a setting that has no counterpart here, and tensors that are missing, unknown
    or misshapen.
    """
    where = folder / CONFIG_FILE
    described = read_json(where)
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no adapter here; expected {' or '.join(FILES)}")
    kind = check_fields(described, where)
    tensors = {name: tensor for name, tensor in read_weights(path).items() if not _is_pooler(name, config)}
    for name, tensor in tensors.items():
        if tensor.dtype.kind in "iub" or not np.isfinite(np.asarray(tensor, np.float32)).all():
            raise UserError(f"{path}: {name} ({tensor.dtype}) holds whole, NaN or infinite numbers; expected finite fractions")
    try:
        if kind == "PREFIX_TUNING":
            return _read_prefix(path, described, tensors, config)
        found = _by_layer(path, tensors, config, kind, read_targets(described, where))
        if kind == "IA3":
            return _ia3(found, config)
        if kind == "LORA":
            return _lora(path, found, config, described, read_ranks(described, where))
        return _adalora(found, config, described, where)
    except UserError as error:  # a config of ours says what is wrong, but not where
        raise error if str(error).startswith(str(folder)) else UserError(f"{where}: {error}") from None


def unread_tensors(folder: Path, config: TowerConfig) -> list[str]:
    """Tensors of the adapter that change nothing in this tower: those of a pooler that it does not have."""
    path = next(folder / name for name in FILES if (folder / name).is_file())
    return [name for name in read_weights(path) if _is_pooler(name, config)]


def _is_pooler(name: str, config: TowerConfig) -> bool:
    has_pooler = isinstance(config, BertConfig) and config.pool == "cls_pooler"
    return isinstance(config, BertConfig | ViTConfig) and not has_pooler and ".pooler.dense." in name


def _lora(
    path: Path, found: dict[str, _Layer], config: TowerConfig, described: Mapping[str, Any], ranks: Ranks
) -> tuple[AdapterConfig, Flat]:
    for layer, own in found.items():
        for number_, block in own.tensors.items():
            name = own.modules[number_]
            if {len(block["lora_A"]), block["lora_B"].shape[1]} != {ranks.rank_of(name)}:
                raise UserError(
                    f"{path}: {layer} of block {number_} has tensors of another rank than r = {ranks.rank_of(name)} "
                    f"in {CONFIG_FILE}"
                )
    modules = [name for own in found.values() for name in own.modules.values()]
    rank = max(map(ranks.rank_of, modules))
    same = ranks.alpha > 0 and all(ranks.scale_of(name) == ranks.alpha / rank for name in modules)
    alpha = ranks.alpha if same else float(rank)  # a factor of one, and the true ones in B
    leaves = {}
    for layer, own in found.items():
        a, b = _stacked(config, layer, own, "lora_A", rank), _stacked(config, layer, own, "lora_B", rank)
        factors = [1.0 if same or n not in own.modules else ranks.scale_of(own.modules[n]) for n in range(config.depth)]
        b = b if same else (b.astype(np.float64) * np.array(factors)[:, None, None]).astype(np.float32)
        leaves |= {_path(config, layer, "lora_a"): a, _path(config, layer, "lora_b"): b}
    return LoRAConfig(rank, alpha, described.get("lora_dropout", 0.0), tuple(found)), _arrays(leaves)


def _adalora(
    found: dict[str, _Layer], config: TowerConfig, described: Mapping[str, Any], where: Path
) -> tuple[AdapterConfig, Flat]:
    leaves, ranks = {}, []
    rank = number(described, "init_r", 12, str(where), least=1)
    alpha = float(number(described, "lora_alpha", 8.0, str(where)))
    for layer, own in found.items():
        each = tuple(len(own.tensors[n]["lora_A"]) if n in own.tensors else 0 for n in range(config.depth))
        widest = max(1, *each)
        for name in ("lora_A", "lora_B", "lora_E"):
            array = _stacked(config, layer, own, name, widest)
            leaves[_path(config, layer, _LEAVES[name])] = array[:, 0] if name == "lora_E" else array
        if set(each) != {rank}:
            ranks.append((layer, each))
    # PEFT takes the rank itself for an alpha that is not above 0
    alpha = alpha if alpha > 0 else float(rank)
    return AdaLoRAConfig(rank, alpha, described.get("lora_dropout", 0.0), tuple(found), tuple(ranks)), _arrays(leaves)


def _ia3(found: dict[str, _Layer], config: TowerConfig) -> tuple[AdapterConfig, Flat]:
    leaves, inputs = {}, []
    for layer, own in found.items():
        shape = next(iter(own.tensors.values()))["ia3_l"].shape
        if shape[0] == 1:  # [1, in] of an input, [out, 1] of an output
            inputs.append(layer)
        ones = np.ones(max(shape), np.float32)
        rows = [own.tensors[n]["ia3_l"].reshape(-1) if n in own.tensors else ones for n in range(config.depth)]
        leaves[_path(config, layer, "ia3")] = np.stack(rows)
    return IA3Config(tuple(layer for layer in found if layer not in inputs), tuple(inputs)), _arrays(leaves)


def _arrays(leaves: Mapping[str, np.ndarray]) -> Flat:
    return {path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()}


def _stacked(config: TowerConfig, layer: str, own: _Layer, name: str, rank: int) -> np.ndarray:
    """A [L, in, R], B [L, R, out] or λ [L, 1, R] of a layer in all blocks: zeros in those without, and up to the rank."""
    d_in, d_out = layer_widths(config, layer)
    shape = {"lora_A": (d_in, rank), "lora_B": (rank, d_out), "lora_E": (1, rank)}[name]
    stacked = np.zeros((config.depth, *shape), np.float32)
    for block, tensors in own.tensors.items():
        tensor = tensors[name].T
        stacked[block, : tensor.shape[0], : tensor.shape[1]] = tensor
    return stacked


def _by_layer(
    path: Path, tensors: Mapping[str, np.ndarray], config: TowerConfig, kind: str, targets: Targets
) -> dict[str, _Layer]:
    """{layer or part: what the file has for it}, in the order of our layers."""
    found: dict[str, _Layer] = {}
    before: dict[str, Names] = {}  # what stands in front of the number of a block
    patterns = {
        rf"(?P<before>(?:.+\.)?){re.escape(names.block)}\.(?P<block>\d+)\.{re.escape(module)}": (layer, names)
        for names in names_of(config)
        for layer, module in names.modules.items()
    }
    ends = rf"\.(?P<leaf>{'|'.join(_LEAVES)})(?:\.default)?(?:\.weight)?"
    for name, tensor in tensors.items():
        matches = ((re.fullmatch(rf"(?P<module>{pattern}){ends}", name), *meant) for pattern, meant in patterns.items())
        match, layer, names = next((each for each in matches if each[0]), (None, "", None))
        if match is None or names is None or int(match["block"]) >= config.depth:
            raise UserError(f"{path}: {name} is no tensor of an adapter of this {type(config).__name__}")
        before[match["before"].removeprefix(_BEFORE) + names.block] = names
        if len(before) > 1:
            raise UserError(f"{path}: adapters of several models ({', '.join(before)}); expected those of one tower")
        module, block = match["module"].removeprefix(_BEFORE), int(match["block"])
        if module not in targets:
            raise UserError(
                f"{path}: {name} is not of a module that {CONFIG_FILE} names, so PEFT would not use it; "
                "put the two files together that belong together"
            )
        own = found.setdefault(layer, _Layer())
        own.modules[block] = module
        if own.tensors.setdefault(block, {}).setdefault(match["leaf"], tensor) is not tensor:
            raise UserError(f"{path}: {match['leaf']} of {module} is there twice; keep one")
    if not found:
        raise UserError(f"{path}: no tensor here; expected those of an adapter")
    ((start, names),) = before.items()
    _check_complete(path, found, config, kind, targets, {n: f"{start}.{{}}.{m}" for n, m in names.modules.items()})
    block_names = block_layers(config)
    return {name: found[name] for name in dict.fromkeys((*PARTS, *block_names)) if name in found}


def _check_complete(
    path: Path, found: dict[str, _Layer], config: TowerConfig, kind: str, targets: Targets, modules: Mapping[str, str]
) -> None:
    """UserError for a module that should have tensors and has none, too few, or of another shape."""
    for layer, module in modules.items():
        d_in, d_out = layer_widths(config, layer)
        expected = {"lora_A": (None, d_in), "lora_B": (d_out, None), "lora_E": (None, 1)}
        own = found.get(layer, _Layer())
        shapes = set()
        for block in range(config.depth):
            tensors = own.tensors.get(block, {})
            if not tensors and (targets.target is None or module.format(block) not in targets):
                continue
            ranks = {x.shape[0 if name != "lora_B" else -1] for name, x in tensors.items() if name != "ia3_l"}
            fits = tensors.keys() == _OF_KIND[kind] and len(ranks) <= 1
            for name, tensor in tensors.items():
                if name == "ia3_l":
                    fits = fits and tensor.shape in ((1, d_in), (d_out, 1))
                    shapes.add(tensor.shape)
                else:
                    wanted = expected[name]
                    fits = fits and tensor.ndim == 2 and all(w in (None, n) for w, n in zip(wanted, tensor.shape, strict=True))
            if not fits or len(shapes) > 1:
                listed = ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items()) or "nothing"
                raise UserError(
                    f"{path}: {layer} of block {block} has {listed}; the config asks for {d_in} -> {d_out} in each block"
                )


def _read_prefix(
    path: Path, described: Mapping[str, Any], tensors: Mapping[str, np.ndarray], config: TowerConfig
) -> tuple[AdapterConfig, Flat]:
    where = f"{path.parent / CONFIG_FILE}"
    count = number(described, "num_virtual_tokens", 0, where)
    if count < 1:
        raise UserError(f"{where}: num_virtual_tokens = {shown(count)}: expected a whole number above 0")
    sizes = {"token_dim": key_width(config), "num_layers": config.depth, "num_attention_heads": key_heads(config)}
    for name, size in sizes.items():
        if described.get(name) not in (None, size):
            raise UserError(
                f"{where}: {name} = {shown(described[name])}, but this model has {size}; give the one it belongs to"
            )
    shape = (count, 2 * config.depth * key_width(config))
    if list(tensors) != [PROMPT] or tensors[PROMPT].shape != shape:
        raise UserError(f"{path}: expected one tensor, {PROMPT} of shape {shape}, for a prefix of this model")
    table = np.asarray(tensors[PROMPT], np.float32).reshape(count, config.depth, 2, -1)
    leaves = {PREFIXES[i]: table[:, :, i].transpose(1, 0, 2) for i in (0, 1)}
    return PrefixConfig(tokens=count), _arrays(leaves)


def _path(config: TowerConfig, layer: str, leaf: str) -> str:
    block: Layers = block_layers(config)
    part = f"{layer.rpartition('/')[2]}_" if layer not in block else ""
    return f"blocks/{'attention/qkv' if part else layer}/{part}{leaf}"
