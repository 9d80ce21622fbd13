"""open_clip's config, field by field: what is used, what changes nothing, and what must have one value.

Sources: open_clip 3.3 and its main branch of June 2026 (4.2.0.dev0): `model.py: CLIPVisionCfg, CLIPTextCfg, CLIP,
_build_vision_tower, _build_text_tower`, `tokenizer.py`, `transform.py: PreprocessCfg`, and the fields of BiomedCLIP's
first release (`proj`, `pooler_type`).
"""

from biomedclip_jax.support.fields import Fields

_TRAINING = "training only: what a run drops is its own"
_WEIGHTS = "the folder has the weights"
_RETURNED = "what is returned besides the embedding"
_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
_PLAIN_BLOCKS = {**dict.fromkeys(_BLOCKS, (False,)), "block_type": (None, "default")}

# what a model that is no pair of an image and a text tower has in its config
OTHER_KINDS = {
    "multimodal_cfg": "CoCa, with a decoder that writes captions",
    "audio_cfg": "CLAP, with an audio tower",
    "genlip_cfg": "GenLIP, one decoder for images and texts",
    "genlap_cfg": "GenLAP, one decoder for sounds and texts",
}

MODEL = Fields(
    used=("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias"),
    harmless={
        "custom_text": "says where tensors are called text.*, which their names say, too",
        "init_logit_scale": _WEIGHTS,
        "output_dict": "the form of what is returned",
    },
    only={"nonscalar_logit_scale": (False,), "cast_dtype": (None,), **dict.fromkeys(OTHER_KINDS, (None,))},
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
_NATIVE_SIZES = {"image_seq_len": (None,), "timm_model_kwargs": (None, {})}  # patches of any aspect; arguments for timm
_UNASKED = "open_clip does not ask for it in such a tower"
_LEFT_OUT = {**dict.fromkeys((*_OF_CLIP, *_BLOCKS, "block_type", "attentional_pool"), _UNASKED), **_ANY_VISION}
TIMM_VISION = Fields(used=(*_OF_TIMM, "image_size"), harmless=_LEFT_OUT, only=_NATIVE_SIZES)
RESNET_VISION = Fields(
    used=("layers", "width", "head_width", "image_size"),
    harmless={**_LEFT_OUT, **dict.fromkeys(_OF_TIMM, _UNASKED)},
    only=_NATIVE_SIZES,
)
CLIP_VISION = Fields(
    used=_OF_CLIP,
    harmless={**_ANY_VISION, **dict.fromkeys(_OF_TIMM, _UNASKED)},
    only={**_PLAIN_BLOCKS, **_NATIVE_SIZES, "attentional_pool": (False,)},
)

_CLIP_TEXT = ("width", "heads", "layers", "mlp_ratio", "vocab_size", "pad_id", "proj_type", "proj_bias")
_CLIP_TEXT += ("act_kwargs", "norm_kwargs", "no_causal_mask", "pool_type", "eos_id")
_OF_HF = ("hf_model_name", "hf_proj_type", "hf_pooler_type", "proj", "pooler_type")
_OF_MODERN = ("attention_mode", "pos_embed", "rope_temperature", "mlp_type", "norm_type", "norm_eps", "attn_gated", "pre_norm")
_OF_MODERN += (
    "norm_placement",
    "zero_init_residual",
    "reg_tokens",
    "value_residual",
    "attention_bias",
    "mlp_bias",
    "gate_bias",
)
_ANY_TEXT = {
    **dict.fromkeys(_OF_MODERN, "of text_arch = 'modern', which is refused"),
    "bos_id": "the tokenizer's",
    "tiktoken_name": "of tokenizer_type = 'tiktoken', which is refused",
    "hf_model_pretrained": _WEIGHTS,
    "output_tokens": _RETURNED,
    "final_ln_after_pool": "open_clip does not pass it to a text tower",
}
_TOKENS = {"tokenizer_mode": (None, ""), "tokenizer_type": ("",), "text_arch": ("clip",), "variable_text": (False,)}
_OPTIONS = ("context_length", "tokenizer_kwargs", "hf_tokenizer_name")
HF_TEXT = Fields(
    used=(*_OF_HF, *_OPTIONS),
    harmless={
        **_ANY_TEXT,
        **dict.fromkeys((*_CLIP_TEXT, *_BLOCKS, "block_type"), _UNASKED),
        **dict.fromkeys(("embed_cls", "ls_init_value"), _UNASKED),
    },
    only={**_TOKENS, "hf_model_config": (None, {})},
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
