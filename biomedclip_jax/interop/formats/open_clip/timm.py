"""The vision transformers that timm builds by name, and open_clip with it.

Source: timm `vision_transformer.py`.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from biomedclip_jax.config import ImageConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.fields import Fields, choice, number

_WIDTHS = {  # timm's sizes: width, depth, heads, MLP width
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "giant": (1408, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
_TANH = (  # SigLIPs that timm builds with the tanh form of GELU; the others have the exact one there
    *("vit_base_patch32_siglip_256", "vit_large_patch16_siglip_512"),
    *(f"vit_so400m_patch16_siglip_{s}" for s in (256, 384, 512)),
    *(f"vit_giantopt_patch16_siglip_{s}" for s in (256, 384)),
)
# The timm models that the image tower can be. timm builds no others by pattern, so names are listed, not derived.
_TIMM_NAMES = (
    *(f"vit_tiny_patch16_{s}" for s in (224, 384)),
    *(f"vit_small_patch{p}_{s}" for p, s in ((32, 224), (32, 384), (16, 224), (16, 384), (8, 224))),
    *(f"vit_base_patch{p}_{s}" for p, s in ((32, 224), (32, 384), (16, 224), (16, 384), (8, 224))),
    *(f"vit_large_patch{p}_{s}" for p, s in ((32, 224), (32, 384), (16, 224), (16, 384), (14, 224))),
    *(f"vit_{w}_patch14_224" for w in ("huge", "giant", "gigantic")),
    *(f"vit_medium_patch{p}_clip_224" for p in (32, 16)),
    *(f"vit_base_patch32_clip_{s}" for s in (224, 256, 384, 448)),
    *(f"vit_base_patch16_clip_{s}" for s in (224, 384)),
    *(f"vit_large_patch14_clip_{s}" for s in (224, 336)),
    *(f"vit_huge_patch14_clip_{s}" for s in (224, 336, 378)),
    *(f"vit_base_patch{p}_clip_quickgelu_224" for p in (32, 16)),
    *(f"vit_large_patch14_clip_quickgelu_{s}" for s in (224, 336)),
    *(f"vit_{w}_patch14_dinov2" for w in ("small", "base", "large")),
    *(f"vit_{w}_patch14_reg4_dinov2" for w in ("small", "base", "large")),
    *(f"vit_base_patch16_siglip_{s}" for s in (224, 256, 384, 512)),
    *(f"vit_large_patch16_siglip_{s}" for s in (256, 384)),
    *(f"vit_so400m_patch14_siglip_{s}" for s in (224, 378, 384)),
    *_TANH,
)
# Other towers of timm that open_clip's configs name, by the beginning of their names, and what the ViT here has not.
_OTHERS = {
    "convnext": "ConvNeXt: convolutions, no ViT",
    "eva02": "EVA-02: rotary positions, SwiGLU, norms inside of attention and MLP, or after them",
    "eva": "EVA: no bias on the keys",
    "fastvit": "FastViT: convolutions before attention",
    "naflexvit": "NaFlexViT: images of any aspect as sequences of patches",
    "swin": "Swin: attention in shifted windows",
    "vit_base_mci": "MobileCLIP's ViT: a stem of convolutions",
    "vit_medium_patch16_gap": "no bias on queries, keys and values",
    "vit_pe_core": "Perception Encoder: rotary positions",
    "vit_relpos": "relative positions",
    "vitamin": "ViTamin: convolutions before attention",
}


def vit_from_timm(name: str) -> ViTConfig:
    """The tower that timm builds under this name (a weights tag after a dot is allowed and ignored)."""
    plain = name.split(".")[0]
    match = re.fullmatch(r"vit_([a-z0-9]+)_patch(\d+)(_reg4)?(_clip)?(_siglip)?(_quickgelu)?(_dinov2)?(?:_(\d+))?", plain)
    if plain not in _TIMM_NAMES or match is None:
        other = next((feature for start, feature in _OTHERS.items() if plain.startswith(start)), "")
        near = ", ".join(difflib.get_close_matches(plain, _TIMM_NAMES, n=3, cutoff=0.0))
        raise UserError(
            f"timm_model_name = {name!r}{f' ({other})' if other else ''}: not a ViT that is known here; known are "
            f"{len(_TIMM_NAMES)} plain ones of timm (ViT, CLIP, DINOv2, SigLIP), such as {near}"
        )
    size, patch, registers, clip, siglip, quick, dino, pixels = match.groups()
    width, depth, heads, mlp_width = _WIDTHS[size]
    return ViTConfig(
        image_size=int(pixels or 518),
        patch_size=int(patch),
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=mlp_width,
        pool="map" if siglip else "cls",
        class_token=not siglip,
        registers=4 if registers else 0,
        position_on_prefix=not registers,
        patch_bias=not clip,
        norm_pre=bool(clip),
        layer_scale=bool(dino),
        activation="quick_gelu" if quick else "gelu_tanh" if plain in _TANH else "gelu",
        layer_norm_eps=1e-5 if clip else 1e-6,
    )


_RUN = "the run's own counts"
_DROPPED = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
_CONFIG = Fields(
    used=("architecture", "model_args"),
    harmless={
        **dict.fromkeys(("num_classes", "num_features", "label_names", "label_descriptions"), "of ImageNet's classifier"),
        "global_pool": f"how tokens are pooled: {_RUN}",
        "pretrained_cfg": f"how images were made in pretraining (size, crop, mean): {_RUN}, as in open_clip",
    },
)
_ARGUMENTS = Fields(
    used=("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "reg_tokens", "pre_norm", "act_layer"),
    harmless={
        **dict.fromkeys(_DROPPED, "training only: what a run drops is its own"),
        **dict.fromkeys(("img_size", "dynamic_img_size", "dynamic_img_pad", "strict_img_size"), "positions are resized"),
        **dict.fromkeys(("global_pool", "fc_norm"), f"how tokens are pooled: {_RUN}"),
        **dict.fromkeys(("weight_init", "fix_init"), "how weights begin"),
        "num_classes": "of ImageNet's classifier",
    },
    only={
        **dict.fromkeys(("qkv_bias", "proj_bias", "final_norm", "class_token"), (True,)),
        **dict.fromkeys(("qk_norm", "scale_attn_norm", "scale_mlp_norm", "no_embed_class"), (False,)),
        "in_chans": (3,),
        "pos_embed": ("learn",),
        "norm_layer": (None,),
    },
)
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}


def timm_config(given: Mapping[str, Any], where: str) -> ViTConfig:
    """The tower that a `config.json` of timm describes. UserError for what the tower cannot be."""
    _CONFIG.check(given, where)
    args = given.get("model_args") or {}
    _ARGUMENTS.check(args, f"{where}: model_args")
    name = str(given["architecture"])
    try:
        vit = vit_from_timm(re.sub(r"^deit_(?=[a-z]+_patch)", "vit_", name))  # DeiT's towers are ViTs, trained otherwise
        patch, width = (number(args, *each, where) for each in (("patch_size", vit.patch_size), ("embed_dim", vit.width)))
        return dataclasses.replace(
            vit,
            image_size=16 * patch,
            patch_size=patch,
            width=width,
            depth=number(args, "depth", vit.depth, where),
            heads=number(args, "num_heads", vit.heads, where),
            mlp_width=int(width * number(args, "mlp_ratio", vit.mlp_width / vit.width, where)),
            registers=number(args, "reg_tokens", vit.registers, where),
            norm_pre=args.get("pre_norm", vit.norm_pre),
            layer_scale=args["init_values"] is not None if "init_values" in args else vit.layer_scale,
            activation=choice(args, "act_layer", vit.activation, _ACTIVATIONS, where),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def timm_name(config: ImageConfig) -> str | None:
    """The timm name of this tower, if it has one."""
    if not isinstance(config, ViTConfig) or config.pool == "mean_prenorm":
        return None
    sizes = (config.width, config.depth, config.heads, config.mlp_width)
    size = next((size for size, known in _WIDTHS.items() if known == sizes), None)
    cls = dataclasses.replace(config, pool="cls", norm_after_pool=False) if config.class_token else config
    return next((name for name in _TIMM_NAMES if name.startswith(f"vit_{size}_") and vit_from_timm(name) == cls), None)
