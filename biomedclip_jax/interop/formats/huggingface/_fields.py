"""transformers' config.json, field by field: what is used, what changes nothing, and what must have one value.

Sources: `configuration_utils.py` and the configuration files of transformers 4.0 to 5.24, which write more or fewer of
these fields.
"""

from biomedclip_jax.support.fields import Fields

_NOTES = "a note on where the file is from, or for software that is not used here"
_TRAINED = "how weights begin: these are trained"
_TRAINING = "training only; a tower of this kind has no dropout here"
_RETURNED = "what is returned, kept or saved on the way, not what is computed"
_CLASSIFIER = "of a head behind the model, which is not read"
_WRITING = "how a language model writes texts: none is written here"

_COMMON = {
    **dict.fromkeys(("architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "name_or_path"), _NOTES),
    **dict.fromkeys(("_commit_hash", "_attn_implementation_autoset", "_attn_implementation", "attn_implementation"), _NOTES),
    **dict.fromkeys(("_num_labels", "license", "language", "tokenizer_class", "tf_legacy_loss", "use_bfloat16"), _NOTES),
    **dict.fromkeys(("initializer_range", "initializer_factor", "logit_scale_init_value"), _TRAINED),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "return_dict", "torchscript", "use_cache"), _RETURNED),
    **dict.fromkeys(("gradient_checkpointing", "chunk_size_feed_forward", "output_past"), _RETURNED),
    **dict.fromkeys(("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"), _CLASSIFIER),
    **dict.fromkeys(("task_specific_params", "classifier_dropout", "tie_word_embeddings", "tie_encoder_decoder"), _CLASSIFIER),
    **dict.fromkeys(("bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty"), _WRITING),
    **dict.fromkeys(("do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "forced_bos_token_id"), _WRITING),
    **dict.fromkeys(("exponential_decay_length_penalty", "forced_eos_token_id", "length_penalty", "max_length"), _WRITING),
    **dict.fromkeys(("min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "prefix"), _WRITING),
    **dict.fromkeys(("num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty"), _WRITING),
    **dict.fromkeys(("return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p"), _WRITING),
}
_NO_OTHER_KIND = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
_IDS = dict.fromkeys(("bos_token_id", "sep_token_id"), "ids are the tokenizer's")
_PADDING = {"pad_token_id": "no token looks at what stands behind it, and padding stands behind all"}
_FIRST_BERT = dict.fromkeys(
    (
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ),
    "a note of the first BERTs, which transformers never read",
)

BERT = Fields(
    used=(
        *("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "pad_token_id"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    ),
    harmless={
        **_COMMON,
        **_IDS,
        **_FIRST_BERT,
        "eos_token_id": "ids are the tokenizer's",
        "projection_size": "of CXR-BERT's head: read off its tensors",
    },
    only={**_NO_OTHER_KIND, "is_decoder": (False, None), "position_embedding_type": ("absolute", None)},
)
CXR_BERT = Fields(BERT.used, {**BERT.harmless, "auto_map": "the class that CXR-BERT is known to be"}, BERT.only)
GPT2 = Fields(
    used=(
        *("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function"),
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon", "scale_attn_by_inverse_layer_idx", "eos_token_id"),
    ),
    harmless={
        **_COMMON,
        **_IDS,
        **_PADDING,
        **dict.fromkeys(("summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout"), _CLASSIFIER),
        "summary_proj_to_labels": _CLASSIFIER,
        "n_ctx": "n_positions under its older name",
        "reorder_and_upcast_attn": "the order of the same arithmetic",
        "is_decoder": "this kind always is one",
    },
    only={**_NO_OTHER_KIND, "scale_attn_weights": (True,)},
)
LLAMA = Fields(
    used=(
        *("model_type", "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "intermediate_size", "rms_norm_eps", "rope_theta", "rope_parameters"),
        *("rope_scaling", "eos_token_id"),
    ),
    harmless={
        **_COMMON,
        **_IDS,
        **_PADDING,
        "attention_dropout": _TRAINING,
        "pretraining_tp": "how the same products are split",
        "max_sequence_length": "max_position_embeddings under its first name",
        "is_decoder": "this kind always is one",
    },
    only={
        **_NO_OTHER_KIND,
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "rope_interleaved": (False,),
        "partial_rotary_factor": (1.0, None),
        "sliding_window": (None,),
    },
)
ROPE = Fields(used=("rope_theta", "rope_type", "type"), only={"partial_rotary_factor": (1.0, None)})

_CLIP_TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
_CLIP_NOTES = {
    **_COMMON,
    **dict.fromkeys(("attention_dropout", "dropout"), _TRAINING),
    "projection_dim": "CLIPModel takes the one outside",
}
CLIP = Fields(
    used=("model_type", "projection_dim", "text_config", "vision_config", "text_config_dict", "vision_config_dict"),
    harmless=_COMMON | _IDS | _PADDING | {"eos_token_id": "CLIPModel takes the text tower's"},
    only=_NO_OTHER_KIND,
)
CLIP_TEXT = Fields(
    used=(*_CLIP_TOWER, "vocab_size", "max_position_embeddings", "eos_token_id"),
    harmless=_CLIP_NOTES | _IDS | _PADDING,
    only={**_NO_OTHER_KIND, "model_type": ("clip_text_model",), "is_decoder": (False, None)},
)
CLIP_VISION = Fields(
    used=(*_CLIP_TOWER, "image_size", "patch_size"),
    harmless={**_CLIP_NOTES, **_IDS, **_PADDING, "eos_token_id": "an image has no tokens with ids"},
    only={**_NO_OTHER_KIND, "model_type": ("clip_vision_model",), "is_decoder": (False, None), "num_channels": (3,)},
)
_SIGLIP_NOTES = {**_COMMON, **_IDS, "attention_dropout": _TRAINING, "eos_token_id": "ids are the tokenizer's"}
SIGLIP = Fields(
    used=("text_config", "vision_config"),
    harmless=_SIGLIP_NOTES | _PADDING,
    only={**_NO_OTHER_KIND, "model_type": ("siglip",)},
)
SIGLIP_TEXT = Fields(
    used=(*_CLIP_TOWER, "vocab_size", "max_position_embeddings", "projection_size", "pad_token_id"),
    harmless=_SIGLIP_NOTES,
    only={**_NO_OTHER_KIND, "model_type": ("siglip_text_model",), "is_decoder": (False, None)},
)
SIGLIP_VISION = Fields(
    used=(*_CLIP_TOWER, "image_size", "patch_size"),
    harmless=_SIGLIP_NOTES | _PADDING,
    only={
        **_NO_OTHER_KIND,
        **{"model_type": ("siglip_vision_model",), "is_decoder": (False, None), "num_channels": (3,)},
        "vision_use_head": (True,),
    },
)
DINOV2 = Fields(
    used=(
        *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act"),
        *("layer_norm_eps", "patch_size", "num_register_tokens"),
    ),
    harmless={
        **_COMMON,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), _TRAINING),
        **dict.fromkeys(("apply_layernorm", "reshape_hidden_states", "stage_names", "out_features", "out_indices"), _RETURNED),
        "image_size": "positions are resized to the run's images",
        "layerscale_value": _TRAINED,
        "use_mask_token": "for masked patches in pretraining",
        "interpolate_antialias": "how transformers resizes positions",
        "interpolate_offset": "how transformers resizes positions",
    },
    only={**_NO_OTHER_KIND, "qkv_bias": (True,), "use_swiglu_ffn": (False,), "num_channels": (3,)},
)
