"""A CLIP in transformers' own folder: names, config, reading and writing (OpenAI's models, PubMedCLIP).

    config.json, model.safetensors (or pytorch_model.bin), preprocessor_config.json, tokenizer

Source: transformers `modeling_clip.py` (5.23) and its configuration file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.config import CLIPConfig, ClipTextConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, from_params, norm, one, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.formats import _preprocessor as preprocessor
from biomedclip_jax.interop.formats.huggingface._fields import CLIP, CLIP_TEXT, CLIP_VISION
from biomedclip_jax.interop.formats.huggingface.mapping import ACTIVATION_NAMES, activation, located, read_json, write_json
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import copy_tokenizer
from biomedclip_jax.interop.tensor_files import find_weights, write_safetensors
from biomedclip_jax.models import abstract_model
from biomedclip_jax.support.fields import Fields, number, shown

_END = 49_407  # transformers' default
_OLD_END = 2  # stands in OpenAI's own configs and means: at the largest id
_IGNORED = {"*.position_ids": "index buffer of older transformers versions"}


def is_clip(folder: Path) -> bool:
    """Whether the folder's config.json is that of a CLIPModel."""
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == "clip"


def read_clip(folder: Path) -> Model:
    """The model in such a folder. UserError names what is missing, unknown, misshapen or not finite."""
    config = read_clip_config(folder)
    return read_two_towers(folder, config, clip_entries(config))


def read_two_towers(folder: Path, config: CLIPConfig, entries: Sequence[Entry]) -> Model:
    """The model of such a folder whose config is known, by its names of tensors. UserError as of `read_clip`."""
    preprocess = preprocessor.read_preprocessor(folder, config.image.image_size)
    path = find_weights(folder)
    params, report = to_params(read_unwrapped(path), entries, abstract_model(config)[1], _IGNORED, path)
    return Model(config, preprocess, params, folder, report)


def write_clip(model: Model, folder: Path) -> list[str]:
    """The files of a model into `folder`; returns the names of the tensors. UserError if `CLIPModel` cannot be this model."""
    return write_two_towers(model, folder, clip_config_json(model.config), clip_entries(model.config))


def write_two_towers(model: Model, folder: Path, config: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """The files of a model into `folder`, with this config.json and these names of tensors, which are returned."""
    write_json(folder / preprocessor.FILE, preprocessor.preprocessor_json(model.preprocess))
    write_json(folder / "config.json", config)
    copy_tokenizer(model, folder)
    tensors = from_params(model.params, entries)
    write_safetensors(folder / "model.safetensors", tensors)
    return list(tensors)


def read_clip_config(folder: Path) -> CLIPConfig:
    """`config.json` of a transformers `CLIPModel` folder -> our config. UserError names a field with another meaning."""
    path = folder / "config.json"
    config, where = read_json(path), str(path)
    CLIP.check(config, where)
    text, vision = _tower(config, "text_config", CLIP_TEXT, where), _tower(config, "vision_config", CLIP_VISION, where)
    try:
        return CLIPConfig(
            image=_image_config(vision, f"{where}: vision_config"),
            text=_text_config(text, f"{where}: text_config"),
            embed_width=number(config, "projection_dim", 512, where),
            text_head="linear",
        )
    except UserError as error:
        raise located(error, where) from None


def _tower(config: Mapping[str, Any], name: str, fields: Fields, where: str) -> Mapping[str, Any]:
    """The config of one tower: text_config_dict, an older name, counts before text_config, as in transformers."""
    for field in (name, f"{name}_dict"):
        if config.get(field) is not None:
            fields.check(config[field], f"{where}: {field}")
    older = config.get(f"{name}_dict")
    return older if older is not None else config.get(name) or {}


def _image_config(given: Mapping[str, Any], where: str) -> ViTConfig:
    return ViTConfig(
        image_size=number(given, "image_size", 224, where),
        patch_size=number(given, "patch_size", 32, where),
        width=number(given, "hidden_size", 768, where),
        depth=number(given, "num_hidden_layers", 12, where),
        heads=number(given, "num_attention_heads", 12, where),
        mlp_width=number(given, "intermediate_size", 3072, where),
        patch_bias=False,
        norm_pre=True,
        activation=activation(given, "quick_gelu", where),
        layer_norm_eps=number(given, "layer_norm_eps", 1e-5, where, least=0),
    )


def _text_config(given: Mapping[str, Any], where: str) -> ClipTextConfig:
    vocab_size = number(given, "vocab_size", 49_408, where)
    end = given.get("eos_token_id", _END)
    if end not in (_OLD_END, vocab_size - 1):
        raise UserError(
            f"{where}: eos_token_id = {shown(end)} is not supported; supported: {vocab_size - 1}, the largest id, at which "
            f"this tower reads a text, and {_OLD_END}, which means the same to transformers; remove tokens that were added"
        )
    return ClipTextConfig(
        vocab_size=vocab_size,
        context_length=number(given, "max_position_embeddings", 77, where),
        width=number(given, "hidden_size", 512, where),
        depth=number(given, "num_hidden_layers", 12, where),
        heads=number(given, "num_attention_heads", 8, where),
        mlp_width=number(given, "intermediate_size", 2048, where),
        activation=activation(given, "quick_gelu", where),
        layer_norm_eps=number(given, "layer_norm_eps", 1e-5, where, least=0),
    )


def clip_config_json(config: CLIPConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this CLIP. UserError if its `CLIPModel` cannot be this model."""
    image, text = config.vit, config.text
    linear = config.image_head == config.text_head == "linear" and not (config.image_head_bias or config.text_head_bias)
    if not isinstance(text, ClipTextConfig) or not image.norm_pre or image.patch_bias or not linear:
        raise UserError("this model has no form in transformers: neither ViT + BERT nor CLIP with linear heads")
    if image.layer_scale or image.registers or image.pool != "cls" or not image.position_on_prefix:
        raise UserError("this image tower has no form in transformers' CLIP (only CLIP's own ViT has one)")
    if not text.causal or text.pool != "end":
        raise UserError("this text tower has no form in transformers' CLIP (only CLIP's own has one: causal, read at its end)")

    def tower(c: ViTConfig | ClipTextConfig) -> dict[str, Any]:
        return {
            "hidden_size": c.width,
            "num_hidden_layers": c.depth,
            "num_attention_heads": c.heads,
            "intermediate_size": c.mlp_width,
            "hidden_act": ACTIVATION_NAMES[c.activation],
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


def encoder_entries(path: str, prefix: str, depth: int) -> list[Entry]:
    """The blocks of a tower of CLIP or SigLIP."""
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


def clip_entries(config: CLIPConfig) -> list[Entry]:
    """The parameters of CLIP beside transformers' names for them."""
    return [
        one("image/patch/kernel", "vision_model.embeddings.patch_embedding.weight", "patch"),
        one("image/class_token", "vision_model.embeddings.class_embedding"),
        one("image/position", "vision_model.embeddings.position_embedding.weight"),
        *norm("image/norm_pre", "vision_model.pre_layrnorm"),  # their spelling
        *norm("image/norm", "vision_model.post_layernorm"),
        *encoder_entries("image/", "vision_model.", config.vit.depth),
        *dense("image_head/proj", "visual_projection", bias=False),
        one("text/word", "text_model.embeddings.token_embedding.weight"),
        one("text/position", "text_model.embeddings.position_embedding.weight"),
        *norm("text/norm", "text_model.final_layer_norm"),
        *encoder_entries("text/", "text_model.", config.text.depth),
        *dense("text_head/proj", "text_projection", bias=False),
        one("logit_scale", "logit_scale"),
    ]
