"""A SigLIP in transformers' own folder: names, config, reading and writing (SigLIP and SigLIP 2, MedSigLIP).

    config.json, model.safetensors (or pytorch_model.bin), preprocessor_config.json, tokenizer

Source: transformers `modeling_siglip.py` (5.24) and its configuration file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.config import CLIPConfig, ClipTextConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, norm, one
from biomedclip_jax.interop.formats import _preprocessor as preprocessor
from biomedclip_jax.interop.formats.huggingface._fields import SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from biomedclip_jax.interop.formats.huggingface.clip import encoder_entries, read_two_towers, write_two_towers
from biomedclip_jax.interop.formats.huggingface.mapping import ACTIVATION_NAMES, activation, located, read_json
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import padding_id
from biomedclip_jax.support.fields import number

_BIAS = -10.0  # SigLIP's at the start of its training; the weights have their own
_ACTIVATIONS = ACTIVATION_NAMES | {"gelu_tanh": "gelu_pytorch_tanh"}


def is_siglip(folder: Path) -> bool:
    """Whether the folder's config.json is that of a SiglipModel, or of the Siglip2Model, which `read_siglip` refuses."""
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") in ("siglip", "siglip2")


def read_siglip(folder: Path) -> Model:
    """The model in such a folder. UserError names what is missing, unknown, misshapen or not finite."""
    config = read_siglip_config(folder)
    return read_two_towers(folder, config, siglip_entries(config))


def write_siglip(model: Model, folder: Path) -> list[str]:
    """The files of a model into `folder`; returns the names of the tensors. UserError if `SiglipModel` cannot be this model."""
    return write_two_towers(model, folder, siglip_config_json(model.config), siglip_entries(model.config))


def read_siglip_config(folder: Path) -> CLIPConfig:
    """`config.json` of a transformers `SiglipModel` folder -> our config. UserError names a field with another meaning."""
    path = folder / "config.json"
    config, where = read_json(path), str(path)
    SIGLIP.check(config, where)
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    SIGLIP_TEXT.check(text, f"{where}: text_config")
    SIGLIP_VISION.check(vision, f"{where}: vision_config")
    try:
        image = ViTConfig(
            **_sizes(vision, f"{where}: vision_config"),
            image_size=number(vision, "image_size", 224, f"{where}: vision_config"),
            patch_size=number(vision, "patch_size", 16, f"{where}: vision_config"),
            pool="map",
            class_token=False,
        )
        tower = _text_config(text, padding_id(folder), f"{where}: text_config")
        width = text["projection_size"] if text.get("projection_size") is not None else tower.width
        if width != image.width:
            raise UserError(
                f"text_config: projection_size = {width!r}: expected {image.width}, the hidden_size of vision_config, as texts "
                "and images are compared with each other"
            )
    except UserError as error:
        raise located(error, where) from None
    heads: dict[str, Any] = {"image_head": "none", "text_head": "linear", "text_head_bias": True}
    return CLIPConfig(image=image, text=tower, embed_width=image.width, init_logit_bias=_BIAS, **heads)


def _sizes(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that both towers have."""
    return {
        "width": number(given, "hidden_size", 768, where),
        "depth": number(given, "num_hidden_layers", 12, where),
        "heads": number(given, "num_attention_heads", 12, where),
        "mlp_width": number(given, "intermediate_size", 3072, where),
        "activation": activation(given, "gelu_pytorch_tanh", where),
        "layer_norm_eps": number(given, "layer_norm_eps", 1e-6, where, least=0),
    }


def _text_config(given: Mapping[str, Any], padding: int | None, where: str) -> ClipTextConfig:
    # texts are filled up by the tokenizer, whose token the config of SigLIP 2 does not repeat
    return ClipTextConfig(
        **_sizes(given, where),
        vocab_size=number(given, "vocab_size", 32_000, where),
        context_length=number(given, "max_position_embeddings", 64, where),
        causal=False,
        pool="last",
        pad_id=padding if padding is not None else number(given, "pad_token_id", 1, where),
    )


def is_siglip_form(config: CLIPConfig) -> bool:
    """Whether transformers' `SiglipModel` can be this model."""
    image, text = config.image, config.text
    if not isinstance(image, ViTConfig) or not isinstance(text, ClipTextConfig):
        return False
    sizes = ("image_size", "patch_size", "width", "depth", "heads", "mlp_width", "activation", "layer_norm_eps")
    plain = ViTConfig(pool="map", class_token=False, **{name: getattr(image, name) for name in sizes})
    heads = config.image_head == "none" and config.text_head == "linear" and config.text_head_bias
    return image == plain and not text.causal and text.pool == "last" and heads and config.init_logit_bias is not None


def check_siglip_form(config: CLIPConfig, preprocess: PreprocessConfig) -> None:
    """UserError if transformers has no place for such a model, or for how its images are made."""
    siglip_config_json(config)
    preprocessor.preprocessor_json(preprocess)


def siglip_config_json(config: CLIPConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this SigLIP. UserError if its `SiglipModel` cannot be this model."""
    if not is_siglip_form(config):
        raise UserError(
            "this model has no form in transformers' SiglipModel, which is a ViT with attention pooling and no class token, "
            "a text tower that is not causal with a linear head with a bias, and a logit_bias"
        )
    image, text = config.vit, config.text
    assert isinstance(text, ClipTextConfig)

    def tower(c: ViTConfig | ClipTextConfig) -> dict[str, Any]:
        return {
            "hidden_size": c.width,
            "num_hidden_layers": c.depth,
            "num_attention_heads": c.heads,
            "intermediate_size": c.mlp_width,
            "hidden_act": _ACTIVATIONS[c.activation],
            "layer_norm_eps": c.layer_norm_eps,
        }

    lengths = {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length, "pad_token_id": text.pad_id}
    sides = {"image_size": image.image_size, "patch_size": image.patch_size}
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {
            "model_type": "siglip_text_model",
            **tower(text),
            **lengths,
            "projection_size": config.embed_width,
        },
        "vision_config": {"model_type": "siglip_vision_model", **tower(image), **sides},
    }


def siglip_entries(config: CLIPConfig) -> list[Entry]:
    """The parameters of SigLIP beside transformers' names for them."""
    pool, head = "image/pool/", "vision_model.head."
    return [
        one("image/patch/kernel", "vision_model.embeddings.patch_embedding.weight", "patch"),
        one("image/patch/bias", "vision_model.embeddings.patch_embedding.bias"),
        one("image/position", "vision_model.embeddings.position_embedding.weight"),
        *norm("image/norm", "vision_model.post_layernorm"),
        *encoder_entries("image/", "vision_model.", config.vit.depth),
        one(f"{pool}query", f"{head}probe", "batch2"),
        one(f"{pool}qkv/kernel", f"{head}attention.in_proj_weight", "linear"),
        one(f"{pool}qkv/bias", f"{head}attention.in_proj_bias"),
        *dense(f"{pool}out", f"{head}attention.out_proj"),
        *norm(f"{pool}norm", f"{head}layernorm"),
        *dense(f"{pool}mlp/fc1", f"{head}mlp.fc1"),
        *dense(f"{pool}mlp/fc2", f"{head}mlp.fc2"),
        one("text/word", "text_model.embeddings.token_embedding.weight"),
        one("text/position", "text_model.embeddings.position_embedding.weight"),
        *norm("text/norm", "text_model.final_layer_norm"),
        *encoder_entries("text/", "text_model.", config.text.depth),
        *dense("text_head/proj", "text_model.head"),
        one("logit_scale", "logit_scale", "batch1"),
        one("logit_bias", "logit_bias", "batch1"),
    ]
