"""open_clip's config, field by field: what is used, what changes nothing, and what must have one value.

Sources: open_clip 3.3 `model.py: CLIPVisionCfg, CLIPTextCfg, CLIP, _build_vision_tower, _build_text_tower`,
`tokenizer.py`, `transform.py: PreprocessCfg`, and the fields of BiomedCLIP's first release (`proj`, `pooler_type`).
"""

from biomedclip_jax.support.fields import Fields

_TRAINING = "training only: what a run drops is its own"
_WEIGHTS = "the folder has the weights"
_RETURNED = "what is returned besides the embedding"
_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
_PLAIN_BLOCKS = {**dict.fromkeys(_BLOCKS, (False,)), "block_type": (None, "default")}

MODEL = Fields(
    used=("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias"),
    harmless={
        "custom_text": "says where tensors are called text.*, which their names say, too",
        "init_logit_scale": _WEIGHTS,
        "output_dict": "the form of what is returned",
    },
    only={"nonscalar_logit_scale": (False,), "multimodal_cfg": (None,), "cast_dtype": (None,)},
)

_OF_TIMM = ("timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias")
_OF_CLIP = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "no_ln_pre")
_OF_CLIP += ("final_ln_after_pool", "pool_type", "act_kwargs", "norm_kwargs")
_ANY_VISION = {
    **dict.fromkeys(("patch_dropout", "timm_drop", "timm_drop_path"), _TRAINING),
    **dict.fromkeys(("attn_pooler_queries", "attn_pooler_heads"), "of attentional_pool, which there is none of"),
    "timm_model_pretrained": _WEIGHTS,
    "output_tokens": _RETURNED,
    "pos_embed_type": "how positions begin: the weights have them",
}
_UNASKED = "open_clip does not ask for it in such a tower"
_LEFT_OUT = {**dict.fromkeys((*_OF_CLIP, *_BLOCKS, "block_type", "attentional_pool"), _UNASKED), **_ANY_VISION}
TIMM_VISION = Fields(used=(*_OF_TIMM, "image_size"), harmless=_LEFT_OUT)
RESNET_VISION = Fields(
    used=("layers", "width", "head_width", "image_size"), harmless={**_LEFT_OUT, **dict.fromkeys(_OF_TIMM, _UNASKED)}
)
CLIP_VISION = Fields(
    used=_OF_CLIP,
    harmless={**_ANY_VISION, **dict.fromkeys(_OF_TIMM, _UNASKED)},
    only={**_PLAIN_BLOCKS, "attentional_pool": (False,)},
)

_CLIP_TEXT = ("width", "heads", "layers", "mlp_ratio", "vocab_size", "pad_id", "proj_type", "proj_bias")
_CLIP_TEXT += ("act_kwargs", "norm_kwargs", "no_causal_mask", "pool_type", "eos_id")
_OF_HF = ("hf_model_name", "hf_proj_type", "hf_pooler_type", "proj", "pooler_type")
_ANY_TEXT = {
    "hf_model_pretrained": _WEIGHTS,
    "output_tokens": _RETURNED,
    "final_ln_after_pool": "open_clip does not pass it to a text tower",
}
_TOKENS = {"tokenizer_mode": (None, "")}
_OPTIONS = ("context_length", "tokenizer_kwargs", "hf_tokenizer_name")
HF_TEXT = Fields(
    used=(*_OF_HF, *_OPTIONS),
    harmless={
        **_ANY_TEXT,
        **dict.fromkeys((*_CLIP_TEXT, *_BLOCKS, "block_type"), _UNASKED),
        **dict.fromkeys(("embed_cls", "ls_init_value"), _UNASKED),
    },
    only=_TOKENS,
)
CLIP_TEXT = Fields(
    used=(*_CLIP_TEXT, *_OPTIONS),
    harmless={**_ANY_TEXT, **dict.fromkeys(_OF_HF, _UNASKED)},
    only={
        **_TOKENS,
        **_PLAIN_BLOCKS,
        "embed_cls": (False,),
        "ls_init_value": (None,),
    },
)
# cleaning is done where texts become tokens
TOKENIZER = Fields(used=("clean", "strip_sep_token"), only={"language": (None,), "reduction_mask": ("", None)})

PREPROCESS = Fields(
    used=("mean", "std", "interpolation", "resize_mode", "fill_color"),
    harmless={"size": "the tower decides, as in open_clip"},
    only={"mode": ("RGB", None)},
)
