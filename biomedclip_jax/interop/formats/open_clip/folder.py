"""A model folder as open_clip reads it, and as the public BiomedCLIP is released.

open_clip_config.json                                       sizes of the towers, and how images are prepared
open_clip_model.safetensors or open_clip_pytorch_model.bin  weights
config.json                                                 of BERT, where the text tower is one
tokenizer                                                   tokenizer.json, vocab.txt ...
README.md                                                   where the config names a folder: what to do after a move
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import BertConfig, CLIPConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.formats import _readme as readme
from biomedclip_jax.interop.formats.huggingface import mapping as huggingface
from biomedclip_jax.interop.formats.open_clip import mapping
from biomedclip_jax.interop.formats.open_clip.config import CONFIG_FILE, read_config
from biomedclip_jax.interop.formats.open_clip.timm import timm_name
from biomedclip_jax.interop.formats.open_clip.write_config import write_config
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import (
    CLIP_VOCABULARY,
    check_cleaning,
    copy_tokenizer,
    open_clip_options,
    tokenizer_files,
)
from biomedclip_jax.interop.tensor_files import find_weights, write_safetensors, write_torch
from biomedclip_jax.models import abstract_model


def read_open_clip(folder: Path) -> Model:
    """The model in an open_clip folder. UserError names what is missing, unknown, misshapen or not finite."""
    described = huggingface.read_json(folder / CONFIG_FILE)
    path = find_weights(folder)
    tensors = read_unwrapped(path)
    config, preprocess = read_config(described, tensors, folder)
    custom_text = "text.token_embedding.weight" in tensors
    prefix = "text." if custom_text or isinstance(config.text, BertConfig) else ""
    timm = bool(described["model_cfg"]["vision_cfg"].get("timm_model_name"))
    table = mapping.entries(config, timm=timm, text_prefix=prefix)
    if timm and mapping.OWN_HEAD in tensors:
        table = mapping.with_own_head(table)
    params, report = to_params(tensors, table, abstract_model(config)[1], mapping.IGNORED, path)
    text_model = described["model_cfg"]["text_cfg"].get("hf_model_name") or ""
    return Model(config, preprocess, params, folder, report, text_model, custom_text)


def write_open_clip(model: Model, folder: Path, destination: Path, *, pickle: bool = False) -> list[str]:
    """The files of an `expressible` model into `folder`, which is going to be `destination`; returns the tensors' names.

    pickle: weights as PyTorch's .bin in place of safetensors.
    """
    config = model.config
    huggingface.write_json(folder / CONFIG_FILE, described(model, destination))
    if isinstance(config.text, BertConfig):
        huggingface.write_json(folder / "config.json", huggingface.bert_config_json(config.text))
        if is_place(_text_model(model, destination)):
            (folder / readme.FILE).write_text(_readme(model), encoding="utf-8")
    copy_tokenizer(model, folder)
    prefix = "text." if model.custom_text or isinstance(config.text, BertConfig) else ""
    timm = timm_name(config.image) is not None
    tensors = from_params(model.params, mapping.entries(config, timm=timm, text_prefix=prefix))
    if pickle:
        write_torch(folder / "open_clip_pytorch_model.bin", tensors)
    else:
        write_safetensors(folder / "open_clip_model.safetensors", tensors)
    return list(tensors)


def _readme(model: Model) -> str:
    """How to load the folder after it was moved."""
    config, heads = model.config, None
    try:
        huggingface.vit_config_json(config.vit)
        check_cleaning(model.tokenizer, "huggingface")
        heads = mapping.head_entries(config, timm=True, text_prefix="text.", prefix="heads.")
    except UserError:  # transformers' ViT cannot be this tower, or its tokenizer cannot clean texts so
        pass
    return readme.moved_folder(config, heads, model.preprocess)


def is_place(name: str) -> bool:
    """Whether what open_clip builds BERT from is a folder of this machine, not a name of the hub."""
    return Path(name).is_absolute() or (Path(name) / "config.json").is_file()


def _text_model(model: Model, text_folder: Path) -> str:
    """What open_clip is to build BERT from: the hub name or folder as it was, or `text_folder` where that is gone."""
    name = model.text_model
    gone = not name or (Path(name).is_absolute() and not (Path(name) / "config.json").is_file())
    return str(text_folder.resolve()) if isinstance(model.config.text, BertConfig) and gone else name


def described(model: Model, text_folder: Path) -> dict[str, Any]:
    """The content of `open_clip_config.json`. text_folder: where BERT's config.json is going to be."""
    # open_clip builds BERT from a hub name or a folder. Keep the hub name; a folder that is gone becomes the one
    # written here.
    name = _text_model(model, text_folder)
    own = [file for file in tokenizer_files(model) if file.name != CLIP_VOCABULARY]  # open_clip has that built in
    tokenizer = name if isinstance(model.config.text, BertConfig) else "tokenizer" if own else ""
    content = write_config(model.config, model.preprocess, name, tokenizer)
    if options := open_clip_options(model.tokenizer):
        content["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
    if model.custom_text:
        content["model_cfg"]["custom_text"] = True
    return content


def expressible_config(config: CLIPConfig) -> CLIPConfig:
    """The config of `expressible`'s model."""
    image = config.image
    if not isinstance(image, ViTConfig):
        return config
    keeps = timm_name(image) or not image.class_token or not image.position_on_prefix
    return config if keeps else dataclasses.replace(config, image=dataclasses.replace(image, patch_bias=False))


def expressible(model: Model) -> Model:
    """A model that computes the same and has only parameters that open_clip knows.

    timm has few image sizes, and CLIP's own ViT has no bias on its patches: there the bias moves into the positions.
    """
    config = expressible_config(model.config)
    if config == model.config:
        return model
    tower = dict(model.params["image"])
    bias = np.asarray(tower["patch"]["bias"])
    position = np.array(tower["position"])
    position[config.vit.prefix_tokens :] += bias
    tower["patch"] = {"kernel": tower["patch"]["kernel"]}
    tower["position"] = jnp.asarray(position)
    return dataclasses.replace(model, config=config, params=model.params | {"image": tower})
