"""open_clip's `open_clip_config.json`, read and written.

Sources: open_clip `model.py: CLIPVisionCfg, CLIPTextCfg`, `timm_model.py`, `hf_model.py`; timm
`vision_transformer.py`; the released BiomedCLIP config in both of its spellings (`hf_proj_type`/`hf_pooler_type`
and `proj`/`pooler_type`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
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
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config
from biomedclip_jax.interop.formats.open_clip._timm import timm_name, vit_from_timm
from biomedclip_jax.interop.tensor_files import TensorFile

CONFIG_FILE = "open_clip_config.json"

# --- open_clip_config.json -> our config ---------------------------------------------------------------------------

_VISION_FIELDS = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "patch_dropout"}
_VISION_FIELDS |= {"no_ln_pre", "final_ln_after_pool", "pool_type", "act_kwargs", "norm_kwargs", "output_tokens"}
_VISION_FIELDS |= {f"timm_{f}" for f in ("model_name", "model_pretrained", "pool", "proj", "proj_bias", "drop", "drop_path")}
_TEXT_FIELDS = {"context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers"}
_TEXT_FIELDS |= {"mlp_ratio", "pad_id", "eos_id", "pool_type", "proj_type", "proj_bias", "act_kwargs", "norm_kwargs"}
_TEXT_FIELDS |= {"hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "proj", "pooler_type"}
_TEXT_FIELDS |= {"output_tokens", "embed_cls", "no_causal_mask", "ls_init_value"}
_MODEL_FIELDS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"}
_PREPROCESS_FIELDS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}


def _check_fields(given: Mapping[str, Any], known: set[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{where} = {given!r}: expected an object with fields, as open_clip writes it")
    for name in given.keys() - known:
        raise UserError(f"{where}: unknown or unsupported field {name!r}; supported: {', '.join(sorted(known))}")


def _only(cfg: Mapping[str, Any], field: str, allowed: tuple, where: str) -> Any:
    value = cfg.get(field, allowed[0])
    if value not in allowed:
        raise UserError(f"{where}: {field} = {value!r} is not supported; supported: {', '.join(map(repr, allowed))}")
    return value


def _activation(cfg: Mapping[str, Any], quick: bool) -> Any:
    tanh = (cfg.get("act_kwargs") or {}).get("approximate") == "tanh"
    return "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"


def _positive(cfg: Mapping[str, Any], field: str, default: Any, where: str) -> Any:
    value = cfg.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UserError(f"{where}: {field} = {value!r}: expected a number above 0")
    return value


def _vision_config(cfg: Mapping[str, Any], quick: bool, where: str) -> tuple[ViTConfig | ResNetConfig, dict[str, Any]]:
    _check_fields(cfg, _VISION_FIELDS, where)
    if "timm_model_name" in cfg:
        vit = vit_from_timm(cfg["timm_model_name"])
        pool = _only(cfg, "timm_pool", ("avg", "token", ""), where)
        proj = _only(cfg, "timm_proj", ("linear", "mlp", "none"), where)
        if pool == "avg":  # without a projection timm itself pools, and norms after pooling
            vit = dataclasses.replace(vit, pool="mean", norm_after_pool=proj == "none")
        return vit, {"image_head": proj, "image_head_bias": bool(cfg.get("timm_proj_bias", False))}
    width = _positive(cfg, "width", 768, where)
    if isinstance(cfg.get("layers"), list):
        heads = width * 32 // _positive(cfg, "head_width", 64, where)
        size = _positive(cfg, "image_size", 224, where)
        resnet = ResNetConfig(size, tuple(cfg["layers"]), stem_width=width, heads=heads)
        return resnet, {"image_head": "linear", "image_head_bias": True}
    return ViTConfig(
        image_size=_positive(cfg, "image_size", 224, where),
        patch_size=_positive(cfg, "patch_size", 16, where),
        width=width,
        depth=_positive(cfg, "layers", 12, where),
        heads=width // _positive(cfg, "head_width", 64, where),
        mlp_width=int(width * _positive(cfg, "mlp_ratio", 4.0, where)),
        pool={"tok": "cls", "avg": "mean"}[_only(cfg, "pool_type", ("tok", "avg"), where)],  # type: ignore[arg-type]
        patch_bias=False,
        norm_pre=not cfg.get("no_ln_pre", False),
        norm_after_pool=bool(cfg.get("final_ln_after_pool", False)),
        layer_scale=cfg.get("ls_init_value") is not None,
        activation=_activation(cfg, quick),
        layer_norm_eps=(cfg.get("norm_kwargs") or {}).get("eps", 1e-5),
    ), {"image_head": "linear", "image_head_bias": False}


_POOLERS = {
    "cls_last_hidden_state_pooler": "cls",
    "cls_pooler": "cls_pooler",
    "mean_pooler": "mean",
    "max_pooler": "max",
}


def _text_config(
    cfg: Mapping[str, Any], tensors: TensorFile, quick: bool, folder: Path, embed_width: int, where: str
) -> tuple[BertConfig | ClipTextConfig, dict[str, Any]]:
    _check_fields(cfg, _TEXT_FIELDS, where)
    if "hf_model_name" in cfg:
        pooler = cfg.get("hf_pooler_type", cfg.get("pooler_type", "mean_pooler"))
        if pooler not in _POOLERS:
            raise UserError(f"{where}: hf_pooler_type = {pooler!r} is not supported; supported: {', '.join(_POOLERS)}")
        text = bert_config(tensors, "text.transformer.", folder, cfg["hf_model_name"])
        length = min(_positive(cfg, "context_length", 77, where), text.positions)
        text = dataclasses.replace(text, pool=_POOLERS[pooler], context_length=length)
        proj = cfg.get("hf_proj_type", cfg.get("proj", "mlp"))
        if proj not in ("mlp", "linear", None, ""):
            raise UserError(f"{where}: hf_proj_type = {proj!r} is not supported; supported: 'mlp', 'linear', null")
        if not proj and text.width != embed_width:
            raise UserError(f"{where}: hf_proj_type is empty, but the text width {text.width} is not embed_dim {embed_width}")
        return text, {"text_head": proj or "none"}
    _only(cfg, "pool_type", ("argmax",), where)
    _only(cfg, "embed_cls", (False,), where)
    _only(cfg, "no_causal_mask", (False,), where)
    _only(cfg, "ls_init_value", (None,), where)
    width = _positive(cfg, "width", 512, where)
    return ClipTextConfig(
        vocab_size=_positive(cfg, "vocab_size", 49408, where),
        context_length=_positive(cfg, "context_length", 77, where),
        width=width,
        depth=_positive(cfg, "layers", 12, where),
        heads=_positive(cfg, "heads", 8, where),
        mlp_width=int(width * _positive(cfg, "mlp_ratio", 4.0, where)),
        activation=_activation(cfg, quick),
        layer_norm_eps=(cfg.get("norm_kwargs") or {}).get("eps", 1e-5),
        pad_id=cfg.get("pad_id", 0),
    ), {
        "text_head": _only(cfg, "proj_type", ("linear", "none"), where),
        "text_head_bias": bool(cfg.get("proj_bias", False)),
    }


def read_config(config: Mapping[str, Any], tensors: TensorFile, folder: Path) -> tuple[CLIPConfig, PreprocessConfig]:
    """`open_clip_config.json` (parsed) -> our configs. Sizes that the file leaves to a hub are read off the tensors.

    Raises UserError that names the field when it is unknown, unsupported or wrong.
    """
    where = str(folder / CONFIG_FILE)
    model = config.get("model_cfg")
    if not isinstance(model, Mapping) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise UserError(f"{where}: expected model_cfg with embed_dim, vision_cfg and text_cfg, as open_clip writes it")
    _check_fields(model, _MODEL_FIELDS, f"{where}: model_cfg")
    quick = bool(model.get("quick_gelu", False))
    embed_width = _positive(model, "embed_dim", None, f"{where}: model_cfg")
    image, image_head = _vision_config(model["vision_cfg"], quick, f"{where}: vision_cfg")
    text, text_head = _text_config(model["text_cfg"], tensors, quick, folder, embed_width, f"{where}: text_cfg")
    bias = model.get("init_logit_bias")
    if bias is not None and (isinstance(bias, bool) or not isinstance(bias, int | float)):
        raise UserError(f"{where}: model_cfg: init_logit_bias = {bias!r}: expected a number")
    clip = CLIPConfig(image=image, text=text, embed_width=embed_width, init_logit_bias=bias, **image_head, **text_head)
    return clip, read_preprocess(config.get("preprocess_cfg", {}), image.image_size, f"{where}: preprocess_cfg")


def _colour(cfg: Mapping[str, Any], field: str, default: tuple[float, ...], where: str) -> Any:
    value = cfg.get(field, default)
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3  # one number serves all three channels
    if not all(isinstance(v, int | float) for v in values):
        raise UserError(f"{where}: {field} = {value!r}: expected three numbers, one a colour channel")
    return values


def read_preprocess(cfg: Mapping[str, Any], image_size: int, where: str) -> PreprocessConfig:
    """open_clip's `preprocess_cfg`; what it leaves out takes open_clip's defaults."""
    _check_fields(cfg, _PREPROCESS_FIELDS, where)
    _only(cfg, "mode", ("RGB",), where)
    default = PreprocessConfig()
    return PreprocessConfig(
        image_size=image_size,  # open_clip lets the tower decide, too
        mean=_colour(cfg, "mean", default.mean, where),
        std=_colour(cfg, "std", default.std, where),
        interpolation=cfg.get("interpolation", default.interpolation),
        resize_mode=cfg.get("resize_mode", default.resize_mode),
        fill_color=cfg.get("fill_color", default.fill_color),
    )


# --- our config -> open_clip_config.json ---------------------------------------------------------------------------


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
        pool = "avg" if config.vit.pool == "mean" else ""
        vision: dict[str, Any] = {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool}
        vision |= {"timm_proj": config.image_head, "image_size": image.image_size}
        if config.image_head_bias:
            vision["timm_proj_bias"] = True
    else:
        vision = _clip_resnet(image) if isinstance(image, ResNetConfig) else _clip_vision(config)
        if not resnet and config.vit.activation == "quick_gelu":
            model["quick_gelu"] = True
    if isinstance(text, BertConfig):
        pooler = next(theirs for theirs, ours in _POOLERS.items() if ours == text.pool)
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
    return cfg | _kwargs(text)


def _kwargs(tower: ViTConfig | ClipTextConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if tower.layer_norm_eps != 1e-5:
        kwargs["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    if tower.activation == "gelu_tanh":
        kwargs["act_kwargs"] = {"approximate": "tanh"}
    return kwargs
