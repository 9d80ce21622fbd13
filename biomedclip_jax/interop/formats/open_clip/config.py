"""Read open_clip's `open_clip_config.json` into our configs, every field used, known to be harmless, or refused.

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
    PreprocessConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config, check_kind
from biomedclip_jax.interop.formats.open_clip._fields import (
    CLIP_TEXT,
    CLIP_VISION,
    HF_TEXT,
    MODEL,
    OTHER_KINDS,
    PREPROCESS,
    RESNET_VISION,
    TIMM_VISION,
    TOKENIZER,
)
from biomedclip_jax.interop.formats.open_clip.timm import vit_from_timm
from biomedclip_jax.interop.model_files import padding_id
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.support.fields import Fields, choice, flag, number, shown

CONFIG_FILE = "open_clip_config.json"

_GELU = {"none": "gelu", "tanh": "gelu_tanh"}


def _activation(cfg: Mapping[str, Any], quick: bool, where: str) -> Any:
    kwargs = cfg.get("act_kwargs") or {}
    Fields(used=() if quick else ("approximate",)).check(kwargs, f"{where}: act_kwargs")
    exact = choice(kwargs, "approximate", "none", _GELU, f"{where}: act_kwargs")
    return "quick_gelu" if quick else exact


def _epsilon(cfg: Mapping[str, Any], where: str) -> float:
    kwargs = cfg.get("norm_kwargs") or {}
    Fields(used=("eps",)).check(kwargs, f"{where}: norm_kwargs")
    return number(kwargs, "eps", 1e-5, f"{where}: norm_kwargs", least=0)  # type: ignore[no-any-return]


def _positive(cfg: Mapping[str, Any], field: str, default: Any, where: str) -> Any:
    value = cfg.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UserError(f"{where}: {field} = {shown(value)}: expected a number above 0")
    return value


def _side(cfg: Mapping[str, Any], default: int, where: str) -> Any:
    """The side of the tower's images in pixels; open_clip also takes height and width."""
    size = cfg.get("image_size", default)
    square = isinstance(size, list) and len(size) == 2 and size[0] == size[1]
    return _positive({"image_size": size[0] if square else size}, "image_size", default, where)


def _vision_config(cfg: Mapping[str, Any], quick: bool, where: str) -> tuple[ViTConfig | ResNetConfig, dict[str, Any]]:
    if isinstance(cfg, Mapping) and cfg.get("timm_model_name"):
        return _timm_config(cfg, where)
    resnet = isinstance(cfg, Mapping) and isinstance(cfg.get("layers"), list)
    (RESNET_VISION if resnet else CLIP_VISION).check(cfg, where)
    width = _positive(cfg, "width", 768, where)
    if resnet:
        heads = width * 32 // _positive(cfg, "head_width", 64, where)
        tower = ResNetConfig(_side(cfg, 224, where), tuple(cfg["layers"]), stem_width=width, heads=heads)
        return tower, {"image_head": "linear", "image_head_bias": True}
    return ViTConfig(
        image_size=_side(cfg, 224, where),
        patch_size=_positive(cfg, "patch_size", 16, where),
        width=width,
        depth=_positive(cfg, "layers", 12, where),
        heads=width // _positive(cfg, "head_width", 64, where),
        mlp_width=int(width * _positive(cfg, "mlp_ratio", 4.0, where)),
        pool=choice(cfg, "pool_type", "tok", {"tok": "cls", "avg": "mean"}, where),
        patch_bias=False,
        norm_pre=not flag(cfg, "no_ln_pre", False, where),
        norm_after_pool=flag(cfg, "final_ln_after_pool", False, where),
        layer_scale=cfg.get("ls_init_value") is not None,
        activation=_activation(cfg, quick, where),
        layer_norm_eps=_epsilon(cfg, where),
    ), {"image_head": "linear", "image_head_bias": False}


def _timm_config(cfg: Mapping[str, Any], where: str) -> tuple[ViTConfig, dict[str, Any]]:
    vit = vit_from_timm(str(cfg["timm_model_name"]))  # first: of another tower the name says more than its fields
    TIMM_VISION.check(cfg, where)
    if _side(cfg, vit.image_size, where) != vit.image_size:  # open_clip makes images of this size, on which timm fails
        raise UserError(
            f"{where}: image_size = {shown(cfg['image_size'])}: expected {vit.image_size}, the size of the images that "
            f"timm's {cfg['timm_model_name']} takes; name the timm model of the other size"
        )
    pools = ("map", "") if vit.pool == "map" else ("avg", "token", "")
    pool = choice(cfg, "timm_pool", "avg", {name: name for name in pools}, where)
    own = dict.fromkeys((None, ""), "own")  # timm's classifier, a matrix with a bias, which open_clip makes a projection of
    proj = choice(cfg, "timm_proj", "linear", {name: name for name in ("linear", "mlp", "none")} | own, where)
    if pool == "avg":  # without a projection timm itself pools, and norms after pooling
        vit = dataclasses.replace(vit, pool="mean", norm_after_pool=proj in ("none", "own"))
    if proj == "own":
        return vit, {"image_head": "linear", "image_head_bias": True}
    return vit, {"image_head": proj, "image_head_bias": flag(cfg, "timm_proj_bias", False, where)}


POOLERS = {
    "cls_last_hidden_state_pooler": "cls",
    "cls_pooler": "cls_pooler",
    "mean_pooler": "mean",
    "max_pooler": "max",
}
TEXT_POOLS = {"argmax": "end", "last": "last", "eos": "eos"}
_PROJECTIONS = {"mlp": "mlp", "linear": "linear", None: "none", "": "none"}


def _text_config(
    cfg: Mapping[str, Any], tensors: TensorFile, quick: bool, folder: Path, embed_width: int, where: str
) -> tuple[BertConfig | ClipTextConfig, dict[str, Any]]:
    hugging_face = isinstance(cfg, Mapping) and cfg.get("hf_model_name")
    if hugging_face:
        check_kind(folder, str(cfg["hf_model_name"]), where)
    (HF_TEXT if hugging_face else CLIP_TEXT).check(cfg, where)
    _check_tokenizer(cfg, f"{where}: tokenizer_kwargs")
    if hugging_face:
        text = bert_config(tensors, "text.transformer.", folder, str(cfg["hf_model_name"]))
        length = min(_positive(cfg, "context_length", 77, where), text.longest)
        pool = _either(cfg, "hf_pooler_type", "pooler_type", "mean_pooler", POOLERS, where)
        proj = _either(cfg, "hf_proj_type", "proj", "mlp", _PROJECTIONS, where)
        if proj == "none" and text.width != embed_width:
            raise UserError(f"{where}: hf_proj_type is empty, but the text width {text.width} is not embed_dim {embed_width}")
        return dataclasses.replace(text, pool=pool, context_length=length), {"text_head": proj}
    width = _positive(cfg, "width", 512, where)
    padding = padding_id(folder) if cfg.get("hf_tokenizer_name") else None  # the tokenizer fills texts up, not the tower
    return ClipTextConfig(
        vocab_size=_positive(cfg, "vocab_size", 49408, where),
        context_length=_positive(cfg, "context_length", 77, where),
        width=width,
        depth=_positive(cfg, "layers", 12, where),
        heads=_positive(cfg, "heads", 8, where),
        mlp_width=int(width * _positive(cfg, "mlp_ratio", 4.0, where)),
        activation=_activation(cfg, quick, where),
        layer_norm_eps=_epsilon(cfg, where),
        causal=not flag(cfg, "no_causal_mask", False, where),
        pool=choice(cfg, "pool_type", "argmax", TEXT_POOLS, where),
        eos_id=number(cfg if cfg.get("eos_id") is not None else {}, "eos_id", 2, where),
        pad_id=padding if padding is not None else number(cfg, "pad_id", 0, where),
    ), {
        "text_head": choice(cfg, "proj_type", "linear", {name: name for name in ("linear", "none")}, where),
        "text_head_bias": flag(cfg, "proj_bias", False, where),
    }


def _either(cfg: Mapping[str, Any], name: str, older: str, default: str, known: Mapping[Any, Any], where: str) -> Any:
    """The choice in a field or under its older name. UserError if both are there and differ."""
    if name in cfg and older in cfg and cfg[name] != cfg[older]:
        raise UserError(f"{where}: {name} = {shown(cfg[name])}, but {older}, its older name, = {shown(cfg[older])}; keep one")
    return choice(cfg, older if older in cfg else name, default, known, where)


def _check_tokenizer(cfg: Mapping[str, Any], where: str) -> None:
    kwargs = cfg.get("tokenizer_kwargs") or {}
    TOKENIZER.check(kwargs, where)
    kinds = ("whitespace", "lower", "canonicalize") if cfg.get("hf_tokenizer_name") else ("lower", "canonicalize")
    choice(kwargs, "clean", kinds[0], dict.fromkeys(kinds), where)


def read_config(config: Mapping[str, Any], tensors: TensorFile, folder: Path) -> tuple[CLIPConfig, PreprocessConfig]:
    """`open_clip_config.json` (parsed) -> our configs. Sizes that the file leaves to a hub are read off the tensors.

    Raises UserError that names the field when it is unknown, unsupported or wrong.
    """
    where = str(folder / CONFIG_FILE)
    model = config.get("model_cfg")
    for field, kind in OTHER_KINDS.items():
        if isinstance(model, Mapping) and model.get(field) is not None:
            raise UserError(f"{where}: model_cfg: {field}: {kind}; expected an image tower and a text tower")
    if not isinstance(model, Mapping) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise UserError(f"{where}: expected model_cfg with embed_dim, vision_cfg and text_cfg, as open_clip writes it")
    MODEL.check(model, f"{where}: model_cfg")
    quick = flag(model, "quick_gelu", False, f"{where}: model_cfg")
    embed_width = _positive(model, "embed_dim", None, f"{where}: model_cfg")
    bias = model.get("init_logit_bias")
    if bias is not None:
        bias = number(model, "init_logit_bias", 0.0, f"{where}: model_cfg")
    try:
        image, image_head = _vision_config(model["vision_cfg"], quick, f"{where}: vision_cfg")
        text, text_head = _text_config(model["text_cfg"], tensors, quick, folder, embed_width, f"{where}: text_cfg")
        clip = CLIPConfig(image=image, text=text, embed_width=embed_width, init_logit_bias=bias, **image_head, **text_head)
    except UserError as error:  # a config of ours says what is wrong, but not where
        raise error if str(error).startswith(str(folder)) else UserError(f"{where}: {error}") from None
    return clip, read_preprocess(config.get("preprocess_cfg") or {}, image.image_size, f"{where}: preprocess_cfg")


def _colour(cfg: Mapping[str, Any], field: str, default: tuple[float, ...], where: str) -> Any:
    value = cfg.get(field, default)
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3  # one number serves all three channels
    if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise UserError(f"{where}: {field} = {shown(value)}: expected three numbers, one a colour channel")
    return values


def read_preprocess(cfg: Mapping[str, Any], image_size: int, where: str) -> PreprocessConfig:
    """open_clip's `preprocess_cfg`; what it leaves out, or says is null, takes open_clip's defaults."""
    PREPROCESS.check(cfg, where)
    cfg = {name: value for name, value in cfg.items() if value is not None}
    default = PreprocessConfig()
    interpolation: Any = choice(cfg, "interpolation", "bicubic", {name: name for name in ("bicubic", "bilinear")}, where)
    resize_mode: Any = choice(cfg, "resize_mode", "shortest", {name: name for name in ("shortest", "squash", "longest")}, where)
    try:
        return PreprocessConfig(
            image_size=image_size,  # open_clip lets the tower decide, too
            mean=_colour(cfg, "mean", default.mean, where),
            std=_colour(cfg, "std", default.std, where),
            interpolation=interpolation,
            resize_mode=resize_mode,
            fill_color=number(cfg, "fill_color", default.fill_color, where, least=0),
        )
    except UserError as error:
        raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None
