"""DINOv2's names and configs, with registers and without: its own (facebookresearch/dinov2, CLEFT) and transformers'.

Both keep a position for the class token and none for the registers (`ViTConfig.position_on_registers` = False).
timm adds the class token's position to the class token instead when there are registers; the computation is the
same.

Sources: facebookresearch/dinov2 `models/vision_transformer.py`; transformers `modeling_dinov2.py`,
`modeling_dinov2_with_registers.py` (5.23).
"""

from collections.abc import Mapping
from typing import Any

from biomedclip_jax.config import ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, norm, one, stacked
from biomedclip_jax.interop.formats.huggingface._fields import DINOV2
from biomedclip_jax.interop.formats.huggingface.mapping import activation, located
from biomedclip_jax.interop.formats.open_clip.mapping import timm_entries
from biomedclip_jax.support.fields import number, shown

MASK_TOKEN = "embeddings.mask_token"
IGNORED = {
    "mask_token": "stands for masked patches in pretraining",
    MASK_TOKEN: "stands for masked patches in pretraining",
}


def own_entries(config: ViTConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A DINOv2 under the names of its own checkpoints; `prefix` stands before each of them."""
    names = {f"{prefix}reg_token": f"{prefix}register_tokens"}  # everything else is timm's, or timm's is theirs
    return [
        Entry(entry.path, tuple(tuple(names.get(name, name) for name in row) for row in entry.names), entry.form)
        for entry in timm_entries(config, prefix, path)
    ]


def transformers_entries(config: ViTConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A DINOv2 under transformers' names."""
    c, layer = config, f"{prefix}encoder.layer.{{}}."
    query_key_value = tuple(f"{layer}attention.attention.{part}" for part in ("query", "key", "value"))
    patch = f"{prefix}embeddings.patch_embeddings.projection"
    found = [
        one(f"{path}patch/kernel", f"{patch}.weight", "patch"),
        one(f"{path}patch/bias", f"{patch}.bias"),
        one(f"{path}class_token", f"{prefix}embeddings.cls_token", "batch2"),
        one(f"{path}position", f"{prefix}embeddings.position_embeddings", "batch1"),
        *norm(f"{path}norm", f"{prefix}layernorm"),
        *norm(f"{path}blocks/norm1", f"{layer}norm1", c.depth),
        *norm(f"{path}blocks/norm2", f"{layer}norm2", c.depth),
        *dense(f"{path}blocks/attention/qkv", query_key_value, c.depth),
        *dense(f"{path}blocks/attention/out", f"{layer}attention.output.dense", c.depth),
        *dense(f"{path}blocks/mlp/fc1", f"{layer}mlp.fc1", c.depth),
        *dense(f"{path}blocks/mlp/fc2", f"{layer}mlp.fc2", c.depth),
        *(stacked(f"{path}blocks/scale{i}", c.depth, f"{layer}layer_scale{i}.lambda1") for i in (1, 2)),
    ]
    if c.registers:
        found.append(one(f"{path}registers", f"{prefix}embeddings.register_tokens", "batch1"))
    return found


def is_dinov2(given: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a DINOv2 of transformers."""
    return given.get("model_type") in ("dinov2", "dinov2_with_registers")


def read_config(given: Mapping[str, Any], where: str) -> ViTConfig:
    """The tower that a `config.json` of transformers' DINOv2 describes. UserError for what the tower cannot be."""
    kind = given.get("model_type")
    if not is_dinov2(given):
        expected = "'dinov2', 'dinov2_with_registers' or a config of timm's"
        raise UserError(f"{where}: model_type = {shown(kind)}; expected {expected}, as the weights beside it are")
    DINOV2.check(given, where)
    width = number(given, "hidden_size", 768, where)
    registers = number(given, "num_register_tokens", 4, where) if kind == "dinov2_with_registers" else 0
    patch = number(given, "patch_size", 16 if registers else 14, where, least=1)
    try:
        return ViTConfig(
            image_size=16 * patch,
            patch_size=patch,
            width=width,
            depth=number(given, "num_hidden_layers", 12, where),
            heads=number(given, "num_attention_heads", 12, where),
            mlp_width=int(width * number(given, "mlp_ratio", 4.0, where)),
            registers=registers,
            position_on_registers=not registers,
            layer_scale=True,
            activation=activation(given, "gelu", where),
            layer_norm_eps=number(given, "layer_norm_eps", 1e-6, where, least=0),
        )
    except UserError as error:
        raise located(error, where) from None


def config_json(config: ViTConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this DINOv2. UserError if its DINOv2 cannot be this tower."""
    c = config
    plain = c.layer_scale and c.class_token and c.patch_bias and c.position_on_prefix and not c.norm_pre
    registers = not c.registers or not c.position_on_registers
    whole = c.mlp_width % c.width == 0 and not c.norm_after_pool and c.activation == "gelu"
    if not (plain and registers and whole):
        raise UserError(
            "this image tower has no form in transformers' DINOv2 (it has LayerScale, a class token with a position and "
            "registers without: layer_scale = True, position_on_registers = False)"
        )
    kind = "dinov2_with_registers" if c.registers else "dinov2"
    described: dict[str, Any] = {
        "architectures": ["Dinov2WithRegistersModel" if c.registers else "Dinov2Model"],
        "model_type": kind,
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "mlp_ratio": c.mlp_width // c.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": c.layer_norm_eps,
        "layerscale_value": 1.0,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }
    return described | ({"num_register_tokens": c.registers} if c.registers else {})
