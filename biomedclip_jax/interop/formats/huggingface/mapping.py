"""transformers' names and configs: BERT (also inside open_clip's text tower), ViT, and CLIP.

Names are those on disk (`save_pretrained`), which transformers keeps stable while its modules are renamed.
Sources: transformers `modeling_bert.py`, `modeling_vit.py`, `modeling_clip.py` (5.23) and their configuration files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.mapping import Entry, dense, norm, one
from biomedclip_jax.interop.tensor_files import TensorFile

CLIP_IGNORED = {"*.position_ids": "index buffer of older transformers versions"}
BERT_IGNORED = {
    "*position_ids": "index buffer of older transformers versions",
    "pooler.*": "BERT's pooler: this model reads the last hidden state",
    "cls.*": "BERT's pretraining heads",
}

# BERTs of which a checkpoint may come without its config.json, because open_clip asks the hub for it.
_KNOWN_BERTS = {  # by width; their heads are 64 wide
    768: ("BiomedBERT-base", "PubMedBERT-base", "bert-base-uncased", "Bio_ClinicalBERT"),
    1024: ("BiomedBERT-large",),
}

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
_ACTIVATION_NAMES = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or UserError naming the file and the place of the mistake."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _activation(config: Mapping[str, Any], default: str, where: str) -> Any:
    name = config.get("hidden_act", default)
    if name not in _ACTIVATIONS:
        raise UserError(f"{where}: hidden_act = {name!r} is not supported; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


# --- BERT ----------------------------------------------------------------------------------------------------------


def bert_config(tensors: TensorFile, prefix: str, folder: Path, name: str) -> BertConfig:
    """The BERT whose tensors begin with `prefix`: sizes from the tensors, the rest from its `config.json`.

    The config is looked for in `folder`, then in `name` if that is a folder. A release that leaves it on the hub
    (BiomedCLIP's does) is known by name; anything else raises UserError.
    """

    def matrix(part: str) -> tuple[int, ...]:
        weight = f"{prefix}{part}.weight"
        if weight not in tensors:
            raise UserError(f"{folder}: no tensor {weight}; expected a BERT text model ({name})")
        if len(tensors.shape(weight)) != 2:
            raise UserError(f"{folder}: {weight} has shape {tensors.shape(weight)}, expected two axes")
        return tensors.shape(weight)

    vocab_size, width = matrix("embeddings.word_embeddings")
    positions = matrix("embeddings.position_embeddings")[0]
    layer = f"{prefix}encoder.layer."
    numbers = (n[len(layer) :].split(".")[0] for n in tensors if n.startswith(layer))
    depth = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
    if depth == 0:
        raise UserError(f"{folder}: no tensors {layer}*; expected a BERT text model ({name})")
    found = next((f for f in (folder, Path(name)) if _is_bert(f / "config.json")), None)
    if found is not None:
        config = read_json(found / "config.json")
    elif any(known in name for known in _KNOWN_BERTS.get(width, ())):
        config = {"num_attention_heads": width // 64}
    else:
        raise UserError(f"{folder}: the text model's config.json ({name}) is not here; put it into this folder")
    heads = config.get("num_attention_heads")
    if not isinstance(heads, int):
        raise UserError(f"{found}/config.json: num_attention_heads = {heads!r}: expected a whole number")
    return BertConfig(
        vocab_size=vocab_size,
        positions=positions,
        context_length=min(256, positions),
        token_types=matrix("embeddings.token_type_embeddings")[0],
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=matrix("encoder.layer.0.intermediate.dense")[0],
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        activation=_activation(config, "gelu", str(found)),
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        pad_id=config.get("pad_token_id", 0),
    )


def _is_bert(path: Path) -> bool:
    if not path.is_file():
        return False
    config = read_json(path)
    # CXR-BERT is a BERT with a head of its own; BioViL-T's config names the class only
    return config.get("model_type") in ("bert", "cxr-bert") or "CXRBertModel" in (config.get("architectures") or ())


def bert_config_json(config: BertConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this BERT."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.token_types,
        "hidden_act": _ACTIVATION_NAMES[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_id,
    }


def bert_entries(config: BertConfig, prefix: str = "", path: str = "text/") -> list[Entry]:
    """A BERT under transformers' names; `prefix` stands before each of them."""
    layer, depth = f"{prefix}encoder.layer.{{}}.", config.depth
    query_key_value = tuple(f"{layer}attention.self.{part}" for part in ("query", "key", "value"))
    found = [
        one(f"{path}word", f"{prefix}embeddings.word_embeddings.weight"),
        one(f"{path}position", f"{prefix}embeddings.position_embeddings.weight"),
        one(f"{path}token_type", f"{prefix}embeddings.token_type_embeddings.weight"),
        *norm(f"{path}norm", f"{prefix}embeddings.LayerNorm"),
        *dense(f"{path}blocks/attention/qkv", query_key_value, depth),
        *dense(f"{path}blocks/attention/out", f"{layer}attention.output.dense", depth),
        *norm(f"{path}blocks/norm1", f"{layer}attention.output.LayerNorm", depth),
        *dense(f"{path}blocks/mlp/fc1", f"{layer}intermediate.dense", depth),
        *dense(f"{path}blocks/mlp/fc2", f"{layer}output.dense", depth),
        *norm(f"{path}blocks/norm2", f"{layer}output.LayerNorm", depth),
    ]
    if config.pool == "cls_pooler":
        found += dense(f"{path}pooler", f"{prefix}pooler.dense")
    return found


VIT_PATCH_BIAS = "embeddings.patch_embeddings.projection.bias"

# --- ViT -----------------------------------------------------------------------------------------------------------


def vit_config_json(config: ViTConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this ViT. UserError if its ViT cannot be this tower."""
    c = config
    plain = c.class_token and not c.registers and c.position_on_prefix
    if not plain or c.norm_pre or c.layer_scale or c.norm_after_pool:
        raise UserError("this image tower has no form in transformers' ViT (only a plain ViT with a class token has one)")
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_width,
        "hidden_act": _ACTIVATION_NAMES[c.activation],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": c.layer_norm_eps,
        "qkv_bias": True,
    }


def vit_entries(config: ViTConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A plain ViT under transformers' names; `prefix` stands before each of them.

    transformers' ViT always has a bias on its patches: for a tower without, the file holds zeros that belong to no parameter.
    """
    layer, depth = f"{prefix}encoder.layer.{{}}.", config.depth
    query_key_value = tuple(f"{layer}attention.attention.{part}" for part in ("query", "key", "value"))
    bias = [one(f"{path}patch/bias", f"{prefix}{VIT_PATCH_BIAS}")] if config.patch_bias else []
    return [
        *bias,
        one(f"{path}patch/kernel", f"{prefix}embeddings.patch_embeddings.projection.weight", "patch"),
        one(f"{path}class_token", f"{prefix}embeddings.cls_token", "batch2"),
        one(f"{path}position", f"{prefix}embeddings.position_embeddings", "batch1"),
        *norm(f"{path}norm", f"{prefix}layernorm"),
        *norm(f"{path}blocks/norm1", f"{layer}layernorm_before", depth),
        *norm(f"{path}blocks/norm2", f"{layer}layernorm_after", depth),
        *dense(f"{path}blocks/attention/qkv", query_key_value, depth),
        *dense(f"{path}blocks/attention/out", f"{layer}attention.output.dense", depth),
        *dense(f"{path}blocks/mlp/fc1", f"{layer}intermediate.dense", depth),
        *dense(f"{path}blocks/mlp/fc2", f"{layer}output.dense", depth),
    ]


# --- CLIP (OpenAI's models and PubMedCLIP are published in this form) ----------------------------------------------


def read_clip_config(folder: Path) -> CLIPConfig:
    """`config.json` of a transformers `CLIPModel` folder -> our config."""
    config = read_json(folder / "config.json")
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    where = str(folder / "config.json")
    return CLIPConfig(
        image=ViTConfig(
            image_size=vision.get("image_size", 224),
            patch_size=vision.get("patch_size", 32),
            width=vision.get("hidden_size", 768),
            depth=vision.get("num_hidden_layers", 12),
            heads=vision.get("num_attention_heads", 12),
            mlp_width=vision.get("intermediate_size", 3072),
            patch_bias=False,
            norm_pre=True,
            activation=_activation(vision, "quick_gelu", where),
            layer_norm_eps=vision.get("layer_norm_eps", 1e-5),
        ),
        text=ClipTextConfig(
            vocab_size=text.get("vocab_size", 49408),
            context_length=text.get("max_position_embeddings", 77),
            width=text.get("hidden_size", 512),
            depth=text.get("num_hidden_layers", 12),
            heads=text.get("num_attention_heads", 8),
            mlp_width=text.get("intermediate_size", 2048),
            activation=_activation(text, "quick_gelu", where),
            layer_norm_eps=text.get("layer_norm_eps", 1e-5),
        ),
        embed_width=config.get("projection_dim", 512),
        text_head="linear",
    )


def clip_config_json(config: CLIPConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this CLIP. UserError if its `CLIPModel` cannot be this model."""
    image, text = config.vit, config.text
    linear = config.image_head == config.text_head == "linear" and not (config.image_head_bias or config.text_head_bias)
    if not isinstance(text, ClipTextConfig) or not image.norm_pre or image.patch_bias or not linear:
        raise UserError("this model has no form in transformers: neither ViT + BERT nor CLIP with linear heads")
    if image.layer_scale or image.registers or image.pool != "cls" or not image.position_on_prefix:
        raise UserError("this image tower has no form in transformers' CLIP (only CLIP's own ViT has one)")

    def tower(c: ViTConfig | ClipTextConfig) -> dict[str, Any]:
        return {
            "hidden_size": c.width,
            "num_hidden_layers": c.depth,
            "num_attention_heads": c.heads,
            "intermediate_size": c.mlp_width,
            "hidden_act": _ACTIVATION_NAMES[c.activation],
            "layer_norm_eps": c.layer_norm_eps,
            "projection_dim": config.embed_width,
        }

    ends = {"bos_token_id": text.vocab_size - 2, "eos_token_id": text.vocab_size - 1, "pad_token_id": text.pad_id}
    text_config = {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length, **ends}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_width,
        "text_config": {"model_type": "clip_text_model", **tower(text), **text_config},
        "vision_config": {
            "model_type": "clip_vision_model",
            **tower(image),
            "image_size": image.image_size,
            "patch_size": image.patch_size,
        },
    }


def clip_entries(config: CLIPConfig) -> list[Entry]:
    """CLIP under transformers' names."""

    def tower(path: str, prefix: str, depth: int) -> list[Entry]:
        layer = f"{prefix}encoder.layers.{{}}."
        query_key_value = tuple(f"{layer}self_attn.{part}_proj" for part in "qkv")
        return [
            *norm(f"{path}blocks/norm1", f"{layer}layer_norm1", depth),
            *norm(f"{path}blocks/norm2", f"{layer}layer_norm2", depth),
            *dense(f"{path}blocks/attention/qkv", query_key_value, depth),
            *dense(f"{path}blocks/attention/out", f"{layer}self_attn.out_proj", depth),
            *dense(f"{path}blocks/mlp/fc1", f"{layer}mlp.fc1", depth),
            *dense(f"{path}blocks/mlp/fc2", f"{layer}mlp.fc2", depth),
        ]

    return [
        one("image/patch/kernel", "vision_model.embeddings.patch_embedding.weight", "patch"),
        one("image/class_token", "vision_model.embeddings.class_embedding"),
        one("image/position", "vision_model.embeddings.position_embedding.weight"),
        *norm("image/norm_pre", "vision_model.pre_layrnorm"),  # their spelling
        *norm("image/norm", "vision_model.post_layernorm"),
        *tower("image/", "vision_model.", config.vit.depth),
        *dense("image_head/proj", "visual_projection", bias=False),
        one("text/word", "text_model.embeddings.token_embedding.weight"),
        one("text/position", "text_model.embeddings.position_embedding.weight"),
        *norm("text/norm", "text_model.final_layer_norm"),
        *tower("text/", "text_model.", config.text.depth),
        *dense("text_head/proj", "text_projection", bias=False),
        one("logit_scale", "logit_scale"),
    ]
