"""Pretrained towers to start a training run from: timm's ViTs and transformers' BERTs (the paper's ImageNet and PubMedBERT)."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from biomedclip_jax.config import BertConfig, CLIPConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.folders import read_model
from biomedclip_jax.interop.hub import local_folder
from biomedclip_jax.interop.huggingface import BERT_IGNORED, bert_entries
from biomedclip_jax.interop.layout import to_params
from biomedclip_jax.interop.open_clip import timm_entries
from biomedclip_jax.interop.weights import find_weights, read_weights
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.vit import resize_positions


def _folder(source: str) -> Path:
    folder = local_folder(source)
    if not folder.is_dir():
        raise UserError(f"{source}: no such folder; expected a folder with pretrained weights, or hf-hub:org/name")
    return folder


def image_tower(source: str, config: ViTConfig) -> dict[str, Any]:
    """Parameters of the image tower from a folder in timm's layout. Positions are resized if the image size differs.

    UserError names what does not fit the config.
    """
    path = find_weights(_folder(source))
    tensors = read_weights(path)
    if "pos_embed" not in tensors:
        raise UserError(f"{path}: no tensor pos_embed; expected a vision transformer in timm's layout")
    prefix = config.prefix_positions
    side = round((tensors.shape("pos_embed")[1] - prefix) ** 0.5)
    stored = dataclasses.replace(config, image_size=side * config.patch_size)
    shapes = {"image": abstract_model(CLIPConfig(image=stored))[1]["image"]}
    ignored = {pattern: "ImageNet's classifier" for pattern in ("head.*", "head_dist.*", "pre_logits.*")}
    params, _ = to_params(tensors, timm_entries(stored), shapes, ignored, path)
    tower = params["image"]
    tower["position"] = resize_positions(tower["position"], prefix, config.image_size // config.patch_size)
    return tower


def text_tower(source: str, config: BertConfig) -> dict[str, Any]:
    """Parameters of BERT from a folder in transformers' layout, with or without the "bert." prefix and pretraining heads.

    UserError names what does not fit the config.
    """
    path = find_weights(_folder(source))
    tensors = read_weights(path)
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""
    shapes = {"text": abstract_model(CLIPConfig(text=config))[1]["text"]}
    ignored = {f"{prefix}{pattern}": why for pattern, why in BERT_IGNORED.items()} | {"cls.*": BERT_IGNORED["cls.*"]}
    params, _ = to_params(tensors, bert_entries(config, prefix), shapes, ignored, path)
    return params["text"]


def whole_model(source: str, config: CLIPConfig) -> dict[str, Any]:
    """Parameters of a whole model from a model folder; positions are resized if the image size differs."""
    model = read_model(_folder(source))
    size = config.image.image_size
    found = dataclasses.replace(model.config, image=dataclasses.replace(model.config.image, image_size=size))
    # what a trained model brings along does not change how its parameters are shaped
    same = dataclasses.replace(found, init_logit_scale=config.init_logit_scale)
    numbers = {}
    if config.init_logit_bias is not None:  # the sigmoid objective can start from a model without a bias
        same = dataclasses.replace(same, init_logit_bias=config.init_logit_bias)
        if found.init_logit_bias is None:
            numbers["logit_bias"] = jnp.float32(config.init_logit_bias)
    if isinstance(same.text, BertConfig) and isinstance(config.text, BertConfig):
        free = {f: getattr(config.text, f) for f in ("context_length", "dropout", "attention_dropout")}
        same = dataclasses.replace(same, text=dataclasses.replace(same.text, **free))
    if same != config:
        names = [f.name for f in dataclasses.fields(CLIPConfig) if getattr(same, f.name) != getattr(config, f.name)]
        raise UserError(f"{source}: another model than the config asks for; they differ in {', '.join(names)}")
    image = dict(model.params["image"])
    image["position"] = resize_positions(image["position"], config.image.prefix_positions, size // config.image.patch_size)
    return model.params | {"image": image} | numbers
