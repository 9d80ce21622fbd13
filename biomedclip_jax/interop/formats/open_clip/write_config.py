"""Write our configs as open_clip's `open_clip_config.json`, or say what it has no place for."""

from typing import Any

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    OwnTower,
    PreprocessConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.open_clip.config import POOLERS, TEXT_POOLS
from biomedclip_jax.interop.formats.open_clip.timm import timm_name

ADAPTERS_REFUSED = "this model has adapters beside its weights, for which this format has no place: merge them first"


def write_config(config: CLIPConfig, preprocess: PreprocessConfig, text_model: str, tokenizer: str) -> dict[str, Any]:
    """Our configs as the content of `open_clip_config.json`.

    `text_model` is what open_clip asks transformers for: a hub name, or a folder with BERT's config.json.
    """
    _check_expressible(config, preprocess)
    image, text = config.image, config.text
    model: dict[str, Any] = {"embed_dim": config.embed_width}
    if config.init_logit_bias is not None:
        model["init_logit_bias"] = config.init_logit_bias
    resnet = isinstance(image, ResNetConfig)
    if name := timm_name(image):
        pool = {"mean": "avg", "map": "map"}.get(config.vit.pool, "")
        vision: dict[str, Any] = {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool}
        vision |= {"timm_proj": config.image_head, "image_size": image.image_size}
        if config.image_head_bias:
            vision["timm_proj_bias"] = True
    else:
        vision = _clip_resnet(image) if isinstance(image, ResNetConfig) else _clip_vision(config)
        if not resnet and config.vit.activation == "quick_gelu":
            model["quick_gelu"] = True
    if isinstance(text, BertConfig):
        pooler = next(theirs for theirs, ours in POOLERS.items() if ours == text.pool)
        proj = None if config.text_head == "none" else config.text_head
        text_cfg = {"hf_model_name": text_model, "hf_tokenizer_name": tokenizer, "hf_proj_type": proj}
        text_cfg |= {"hf_pooler_type": pooler, "context_length": text.context_length}
    else:
        assert isinstance(text, ClipTextConfig)
        text_cfg = _clip_text(config, tokenizer)
        quick = text.activation == "quick_gelu"
        if not name and not resnet and quick != model.get("quick_gelu", False):
            raise UserError("open_clip has one quick_gelu for both towers; this model uses it in one: no open_clip form")
        if quick:
            model["quick_gelu"] = True
    return {
        "model_cfg": model | {"vision_cfg": vision, "text_cfg": text_cfg},
        "preprocess_cfg": {
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize_mode,
            "fill_color": preprocess.fill_color,
        },
    }


def _check_expressible(config: CLIPConfig, preprocess: PreprocessConfig) -> None:
    if not isinstance(config.text, BertConfig | ClipTextConfig):
        kind = type(config.text).__name__.removesuffix("Config")
        raise UserError(f"this text tower ({kind}) has no open_clip form: write the model in the huggingface format")
    if isinstance(config.image, ViTConfig) and config.image.pool == "mean_prenorm":
        raise UserError("this image tower has no open_clip form: open_clip never pools before the last norm, as CLEFT does")
    if isinstance(config.text, OwnTower):
        raise UserError(f"this text tower has no open_clip form: {config.text.quirk}")
    if isinstance(config.image, OwnTower) and not _is_clip_resnet(config):
        raise UserError(f"this image tower has no open_clip form: {config.image.quirk}")
    own = preprocess.resize_size is not None or preprocess.gray or preprocess.stretch
    own = own or preprocess.square_size is not None or preprocess.otsu_crop
    if own or preprocess.resize_mode == "pad" or preprocess.interpolation == "nearest":
        raise UserError(
            "this preprocessing has no open_clip form: it resizes to a larger size or to the nearest pixel, pads, crops or "
            "stretches first, or is gray"
        )


def _is_clip_resnet(config: CLIPConfig) -> bool:
    image = config.image
    whole = isinstance(image, ResNetConfig) and image.style == "clip" and image.pool == "attention"
    return whole and config.image_head == "linear" and config.image_head_bias


def _clip_resnet(image: ResNetConfig) -> dict[str, Any]:
    cfg = {"layers": list(image.blocks), "width": image.stem_width, "image_size": image.image_size}
    return cfg if image.heads * 64 == image.width else cfg | {"head_width": image.width // image.heads}


def _clip_vision(config: CLIPConfig) -> dict[str, Any]:
    image = config.vit
    fits = image.class_token and not image.registers and image.position_on_prefix and not image.patch_bias
    fits = fits and image.pool != "map"
    if not fits or config.image_head != "linear" or config.image_head_bias:
        raise UserError("this image tower has no open_clip form: neither a timm name nor CLIP's own ViT with a linear head")
    cfg: dict[str, Any] = {
        "layers": image.depth,
        "width": image.width,
        "head_width": image.width // image.heads,
        "mlp_ratio": image.mlp_width / image.width,
        "patch_size": image.patch_size,
        "image_size": image.image_size,
    }
    if not image.norm_pre:
        cfg["no_ln_pre"] = True
    if image.pool == "mean":
        cfg["pool_type"] = "avg"
    if image.norm_after_pool:
        cfg["final_ln_after_pool"] = True
    if image.layer_scale:
        cfg["ls_init_value"] = 1e-5
    return cfg | _kwargs(image)


def _clip_text(config: CLIPConfig, tokenizer: str) -> dict[str, Any]:
    text = config.text
    assert isinstance(text, ClipTextConfig)
    cfg: dict[str, Any] = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
        "mlp_ratio": text.mlp_width / text.width,
        "pad_id": text.pad_id,
    }
    if tokenizer:
        cfg["hf_tokenizer_name"] = tokenizer
    if config.text_head != "linear":
        cfg["proj_type"] = config.text_head
    if config.text_head_bias:
        cfg["proj_bias"] = True
    if not text.causal:
        cfg["no_causal_mask"] = True
    if text.pool != "end":
        cfg["pool_type"] = next(theirs for theirs, ours in TEXT_POOLS.items() if ours == text.pool)
    if text.pool == "eos":
        cfg["eos_id"] = text.eos_id
    return cfg | _kwargs(text)


def _kwargs(tower: ViTConfig | ClipTextConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if tower.layer_norm_eps != 1e-5:
        kwargs["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    if tower.activation == "gelu_tanh":
        kwargs["act_kwargs"] = {"approximate": "tanh"}
    return kwargs
