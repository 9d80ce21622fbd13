"""Pretrained towers to start a training run from.

Image: ViTs of timm (the paper's ImageNet), DINOv2s of timm, of transformers and as they were released. Text: BERTs
(the paper's PubMedBERT) and RoBERTas, GPT-2s (CLEFT's BioMedLM) and LLaMAs of transformers.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import (
    UNADAPTED,
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    GPTConfig,
    LlamaConfig,
    TextConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.formats.huggingface import causal, dinov2
from biomedclip_jax.interop.formats.huggingface.clip import is_clip
from biomedclip_jax.interop.formats.huggingface.mapping import (
    BERT_IGNORED,
    bert_entries,
    check_equal,
    check_same_bert,
    read_json,
)
from biomedclip_jax.interop.formats.huggingface.siglip import is_siglip
from biomedclip_jax.interop.formats.open_clip.mapping import timm_entries
from biomedclip_jax.interop.formats.open_clip.timm import timm_config
from biomedclip_jax.interop.model import Model, Params
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.interop.tensor_files import find_weights
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.vit import resize_positions

# what a run may choose for itself when it starts from a whole model
_FREE: dict[type, tuple[str, ...]] = {
    BertConfig: ("context_length", "dropout", "attention_dropout"),
    ClipTextConfig: (),
    GPTConfig: ("context_length", "dropout", "embedding_dropout", "attention_dropout"),
    LlamaConfig: ("context_length",),
}

_FREE_OF_IMAGES = ("image_size", "pool", "norm_after_pool")
_PLACED = ("position_on_prefix", "position_on_registers")  # one computation in two forms, between which positions move


def _folder(source: str) -> Path:
    folder = local_folder(source)
    if not folder.is_dir():
        raise UserError(f"{source}: no such folder; expected a folder with pretrained weights, or hf-hub:org/name")
    return folder


def _weights(source: str) -> Path:
    """A weight file, given itself (DINOv2 is released as bare .pth files) or by its folder."""
    return Path(source) if Path(source).is_file() else find_weights(_folder(source))


def holds_model(source: str) -> bool:
    """Whether a source is a whole model (a model folder, a run, an adapter of one) and not the weights of a tower."""
    folder = local_folder(source, weights=False)
    marks = ("open_clip_config.json", "biomedclip_config.json", "biomedclip_adapter.json", "metrics.jsonl")
    whole = any((folder / mark).is_file() for mark in marks) or (folder / "checkpoints").is_dir()
    pair = all((folder / part / "config.json").is_file() for part in ("vision", "text"))
    return folder.is_dir() and (whole or pair or is_clip(folder) or is_siglip(folder))


def _tower_of(model: Model, name: str, config: Any, free: tuple[str, ...], source: str) -> Params:
    """A tower of a whole model. UserError, with the differing fields, if `config` asks for another one."""
    if getattr(model.adaptation, name) is not None:
        raise UserError(f"{source}: has an adapter beside the weights of its {name} tower; give a model without")
    found = getattr(model.config, name)
    if type(found) is not type(config):
        kinds = [type(each).__name__.removesuffix("Config") for each in (found, config)]
        raise UserError(f"{source}: its {name} tower is a {kinds[0]}; expected a {kinds[1]}, as the config's is")
    check_equal(found, config, free, source)
    return dict(model.params[name])


def starting_image_tower(source: str, config: ViTConfig, load: Callable[[str], Model]) -> Params:
    """Parameters of the image tower, as of `image_tower`, or from a whole model, which `load` reads."""
    if not holds_model(source):
        return image_tower(source, config)
    tower = _tower_of(load(source), "image", config, ("image_size",), source)
    grid = config.image_size // config.patch_size
    return tower | {"position": resize_positions(tower["position"], config.prefix_positions, grid)}


def starting_text_tower(source: str, config: TextConfig, load: Callable[[str], Model], like: Mapping[str, Any]) -> Params:
    """Parameters of the text tower, as of `text_tower`, or from a whole model, which `load` reads."""
    if holds_model(source):
        return _tower_of(load(source), "text", config, _FREE[type(config)], source)
    return text_tower(source, config, like)


def image_tower(source: str, config: ViTConfig) -> Params:
    """Parameters of the image tower from a folder or file in the layout of timm, DINOv2 or transformers' DINOv2.

    Positions are resized if the image size differs. UserError names what does not fit the config, also what only a
    config.json beside the weights tells.
    """
    path = _weights(source)
    tensors = read_unwrapped(path)
    ignored = {pattern: "ImageNet's classifier" for pattern in ("head.*", "head_dist.*", "pre_logits.*")} | dinov2.IGNORED
    name = next((name for name in ("pos_embed", "embeddings.position_embeddings") if name in tensors), None)
    if name is None:
        raise UserError(f"{path}: no tensor pos_embed; expected a vision transformer in the layout of timm or DINOv2")
    dino = name != "pos_embed" or "register_tokens" in tensors
    # with registers, timm gives no token of the prefix a position, DINOv2 the class token only
    if dino and config.registers:
        stored = dataclasses.replace(config, position_on_prefix=True, position_on_registers=False)
    elif config.registers and not config.position_on_registers:
        stored = dataclasses.replace(config, position_on_prefix=False, position_on_registers=True)
    else:
        stored = config
    side = round((tensors.shape(name)[1] - stored.prefix_positions) ** 0.5)
    stored = dataclasses.replace(stored, image_size=side * config.patch_size)
    _check_same_image_tower(path, source, config)
    entries = timm_entries if not dino else dinov2.own_entries if name == "pos_embed" else dinov2.transformers_entries
    shapes = {"image": abstract_model(CLIPConfig(image=stored))[1]["image"]}
    tower = to_params(tensors, entries(stored), shapes, ignored, path)[0]["image"]
    prefix = tower["position"][: stored.prefix_positions]
    grid = resize_positions(tower["position"], len(prefix), config.image_size // config.patch_size)[len(prefix) :]
    missing = config.prefix_positions - len(prefix)
    if missing < 0:  # a tower without a position for the class token: it becomes a part of that token
        tower["class_token"] = tower["class_token"] + prefix[0]
        prefix = prefix[:0]
    tower["position"] = jnp.concatenate([prefix, jnp.zeros((max(missing, 0), config.width)), grid])
    return tower


def _check_same_image_tower(weights: Path, source: str, config: ViTConfig) -> None:
    """UserError if the config.json beside weights, timm's or transformers', describes another tower than `config`."""
    path = weights.parent / "config.json"
    given = read_json(path) if path.is_file() else {}
    if "architecture" in given:
        found = timm_config(given, str(path))
    elif given and (not Path(source).is_file() or dinov2.is_dinov2(given)):  # beside a bare file may stand another model's
        found = dinov2.read_config(given, str(path))
    else:
        return
    check_equal(found, config, (*_FREE_OF_IMAGES, *(_PLACED if found.registers else ())), str(path))


def text_tower(source: str, config: TextConfig, like: Mapping[str, Any] | None = None) -> Params:
    """Parameters of a BERT, GPT-2 or LLaMA from a folder in transformers' layout, bare or under a language model's heads.

    like: {path: array, or shape with dtype and sharding}, such as "text/word", that the parameters are to be like;
    they get there one by one as they are read, because a language model of billions is too large for a host.
    Others, and all without `like`, are float32 on the default device.

    UserError names what does not fit the config, also what only a config.json beside the weights tells.
    """
    if isinstance(config, ClipTextConfig):
        raise UserError(
            "text_init: expected a BERT, GPT-2 or LLaMA as text tower; CLIP's own comes with a whole model (model_init)"
        )
    path = _weights(source)
    tensors = read_unwrapped(path, usual=("bert.", "roberta.", "transformer.", "model."))
    leaves = flatten_dict({"text": abstract_model(CLIPConfig(text=config))[1]["text"]}, sep="/")
    shapes = unflatten_dict({path: (like or {}).get(path, leaf) for path, leaf in leaves.items()}, sep="/")
    if isinstance(config, BertConfig):
        check_same_bert(path.parent, config)
        prefixes = (p for p in ("bert.", "roberta.") if f"{p}embeddings.word_embeddings.weight" in tensors)
        prefix = next(prefixes, "")
        ignored = {f"{prefix}{pattern}": why for pattern, why in BERT_IGNORED.items()}
        ignored |= {head: BERT_IGNORED[head] for head in ("cls.*", "lm_head.*")}
        entries = bert_entries(config, prefix)
    else:
        causal.check_same_model(path.parent, config)
        ignored, entries = causal.IGNORED, causal.entries(config, causal.prefix_of(tensors))
    return to_params(tensors, entries, shapes, ignored, path)[0]["text"]


def whole_model(model: Model, source: str, config: CLIPConfig) -> Params:
    """Parameters of a whole model, which was read from `source`; positions are resized if the image size differs.

    UserError, with the differing fields, for another model than `config`, and for one with adapters beside its weights.
    """
    if model.adaptation != UNADAPTED:
        raise UserError(
            f"{source}: has adapters beside its weights, which a run cannot start from; give the model without them"
        )
    size = config.image.image_size
    found = dataclasses.replace(model.config, image=dataclasses.replace(model.config.image, image_size=size))
    # what a trained model brings along does not change how its parameters are shaped
    same = dataclasses.replace(found, init_logit_scale=config.init_logit_scale)
    if found.answering is None:  # what answers questions is then made anew
        same = dataclasses.replace(same, answering=config.answering)
    elif config.answering is not None and found.answering.answers != config.answering.answers:
        raise UserError(f"{source}: it knows other answers than model.answering.answers; name its own there, or start anew")
    numbers = {}
    if config.init_logit_bias is not None:  # the sigmoid objective can start from a model without a bias
        same = dataclasses.replace(same, init_logit_bias=config.init_logit_bias)
        if found.init_logit_bias is None:
            numbers["logit_bias"] = jnp.float32(config.init_logit_bias)
    if type(same.text) is type(config.text):
        free = {name: getattr(config.text, name) for name in _FREE[type(config.text)]}
        same = dataclasses.replace(same, text=dataclasses.replace(same.text, **free))
    if same != config:
        names = [f.name for f in dataclasses.fields(CLIPConfig) if getattr(same, f.name) != getattr(config, f.name)]
        raise UserError(f"{source}: another model than the config asks for; they differ in {', '.join(names)}")
    image = dict(model.params["image"])
    image["position"] = resize_positions(image["position"], config.vit.prefix_positions, size // config.vit.patch_size)
    return model.params | {"image": image} | numbers
