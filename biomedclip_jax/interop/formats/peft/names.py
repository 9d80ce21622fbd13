"""What transformers calls the dense layers that PEFT adapts, their widths, and PEFT's files."""

from dataclasses import dataclass
from typing import Any

from biomedclip_jax.config import BertConfig, GPTConfig, LlamaConfig, ViTConfig
from biomedclip_jax.errors import UserError

FILES = ("adapter_model.safetensors", "adapter_model.bin")
PROMPT = "prompt_embeddings"
PREFIXES = tuple(f"blocks/attention/prefix/virtual_{name}" for name in ("keys", "values"))

Flat = dict[str, Any]  # {path below the tower: array}, such as blocks/attention/qkv/lora_a
TowerConfig = GPTConfig | LlamaConfig | BertConfig | ViTConfig


@dataclass(frozen=True)
class Names:
    """What transformers calls the blocks of a model, and our layers and parts in them."""

    block: str
    modules: dict[str, str]


_BERT = {f"attention/{part}": f"attention.self.{part}" for part in ("query", "key", "value")} | {
    "attention/out": "attention.output.dense",
    "mlp/fc1": "intermediate.dense",
    "mlp/fc2": "output.dense",
}
NAMES: dict[type, tuple[Names, ...]] = {  # the first is written
    GPTConfig: (
        Names(
            "h",
            {"attention/qkv": "attn.c_attn", "attention/out": "attn.c_proj", "mlp/fc1": "mlp.c_fc", "mlp/fc2": "mlp.c_proj"},
        ),
    ),
    LlamaConfig: (
        Names(
            "layers",
            {f"attention/{part}": f"self_attn.{part[0]}_proj" for part in ("query", "key", "value", "out")}
            | {f"mlp/{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
        ),
    ),
    BertConfig: (Names("encoder.layer", _BERT),),
    ViTConfig: (
        Names(  # transformers 5
            "layers",
            {f"attention/{part}": f"attention.{part[0]}_proj" for part in ("query", "key", "value")}
            | {"attention/out": "attention.o_proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"},
        ),
        Names("encoder.layer", {layer: name.replace("attention.self", "attention.attention") for layer, name in _BERT.items()}),
    ),
}


def names_of(config: object) -> tuple[Names, ...]:
    """What transformers calls the parts of this tower. UserError for a tower that PEFT does not adapt."""
    for kind, names in NAMES.items():
        if isinstance(config, kind):
            return names
    raise UserError(f"PEFT's adapters do not fit a {type(config).__name__.removesuffix('Config')}")


def key_width(config: TowerConfig) -> int:
    """Numbers in the keys of a token, and in its values: fewer than the width where heads share them."""
    if isinstance(config, LlamaConfig):
        return config.width // config.heads * config.key_value_heads
    return config.width


def key_heads(config: TowerConfig) -> int:
    """Heads of keys and values."""
    return config.key_value_heads if isinstance(config, LlamaConfig) else config.heads


def layer_widths(config: TowerConfig, layer: str) -> tuple[int, int]:
    """(in, out) of a layer or part."""
    d, f = config.width, config.mlp_width
    match layer:
        case "attention/qkv":
            return d, 3 * d
        case "attention/key" | "attention/value":
            return d, key_width(config)
        case "mlp/fc1" | "mlp/gate" | "mlp/up":
            return d, f
        case "mlp/fc2" | "mlp/down":
            return f, d
    return d, d
