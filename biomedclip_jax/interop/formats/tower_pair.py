"""Two towers that transformers' AutoModel loads, each in a folder of its own, and the heads beside them.

    vision/                 ViT or DINOv2, with or without registers: config.json, model.safetensors, and a
                            preprocessor_config.json where transformers can do the same to an image
    text/                   BERT, GPT-2 or LLaMA: config.json, model.safetensors, tokenizer
    heads.safetensors       projections and temperature, kernels [out, in] as in PyTorch
    README.md               code that loads it all with transformers alone

A model that open_clip can describe (ViT and BERT) has an `open_clip_config.json`, and its heads have open_clip's
names: `read_pair`, `write_pair`. Any other has instead, for `read_towers`, `write_towers`:

    biomedclip_config.json  our CLIPConfig, Adaptation and PreprocessConfig, which say what the towers' own configs do
                            not, such as pooling
    adapters.safetensors    only where there are some beside the weights (a prefix), under our names, one tensor a
                            block

Weights may be split into several files with an index.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    BertConfig,
    CLIPConfig,
    GPTConfig,
    LlamaConfig,
    PreprocessConfig,
    ViTConfig,
    from_json,
    to_json,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, from_params, one, stacked, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.formats import _preprocessor as preprocessor
from biomedclip_jax.interop.formats import _readme as readme
from biomedclip_jax.interop.formats.huggingface import causal, dinov2
from biomedclip_jax.interop.formats.huggingface import mapping as huggingface
from biomedclip_jax.interop.formats.open_clip import config as open_clip
from biomedclip_jax.interop.formats.open_clip.folder import described, is_place
from biomedclip_jax.interop.formats.open_clip.mapping import head_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import copy_tokenizer
from biomedclip_jax.interop.tensor_files import Parts, find_weights, read_weights, write_safetensors
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.adapters import is_adapter

CONFIG_FILE = "biomedclip_config.json"
HEADS = readme.HEADS
ADAPTERS = "adapters.safetensors"
_TOWERS = ("vision", "text")
_OWN_TEXT = "text"  # in place of a folder of this machine that BERT came from


def saved_config(content: Any) -> Any:
    """The config that was written as this JSON into a folder of ours, also by an earlier version.

    KeyError, TypeError, StopIteration or AttributeError if it is none.
    """

    def known_today(fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("kind") == "BertConfig":
            fields.pop("attend_padding", None)  # false wherever such a folder could be written
        if fields.get("kind") == "CLIPConfig":
            for name in ("image_adapter", "text_adapter", "context"):  # see `saved_adaptation`
                fields.pop(name, None)
        return fields

    return from_json(json.dumps(json.loads(json.dumps(content), object_hook=known_today)))


def saved_adaptation(content: Any, model: str) -> Adaptation:
    """The adaptation in the JSON of a folder of ours, `content["adaptation"]`; earlier versions had it in `content[model]`.

    Errors as of `saved_config`.
    """
    if "adaptation" in content:
        return saved_config(content["adaptation"])
    fields = {"image": content[model].get("image_adapter"), "text": content[model].get("text_adapter")}
    return saved_config({"kind": "Adaptation", "context": content[model].get("context", 0)} | fields)


def check_form(config: CLIPConfig) -> None:
    """UserError if the model has no such form."""
    _vision_json(config)
    _text_json(config)


def _vision_json(config: CLIPConfig) -> dict[str, Any]:
    return dinov2.config_json(config.vit) if config.vit.layer_scale else huggingface.vit_config_json(config.vit)


def _text_json(config: CLIPConfig) -> dict[str, Any]:
    if isinstance(config.text, BertConfig):
        return huggingface.bert_config_json(config.text)
    if isinstance(config.text, GPTConfig | LlamaConfig):
        return causal.config_json(config.text)
    raise UserError("this model has no form in transformers: CLIP's own text tower has one only inside a whole CLIPModel")


def _entries(config: CLIPConfig, adaptation: Adaptation) -> list[Entry]:
    image, text = config.vit, config.text
    vision = dinov2.transformers_entries if image.layer_scale else huggingface.vit_entries
    if isinstance(text, BertConfig):
        texts = huggingface.bert_entries(text, "text.")
    else:
        assert isinstance(text, GPTConfig | LlamaConfig)
        texts = causal.entries(text, "text.")
    paths = list(flatten_dict(abstract_model(config, adaptation=adaptation)[1], sep="/"))
    rest = [path for path in paths if not path.startswith(("image/", "text/"))]
    depths = {"image": image.depth, "text": text.depth}
    adapters = [stacked(p, depths[p.partition("/")[0]], f"adapters.{p}/{{}}") for p in paths if is_adapter(p)]
    return [*vision(image, "vision."), *texts, *map(_head_entry, rest), *adapters]


def _head_entry(path: str) -> Entry:
    name = f"heads.{path.replace('/', '.')}"
    if path.endswith("/kernel"):
        return one(path, f"{name.removesuffix('kernel')}weight", "linear")
    return one(path, name)


def _zeros(image: ViTConfig) -> dict[str, np.ndarray]:
    """Tensors that transformers asks for and that belong to no parameter of ours."""
    if image.layer_scale:
        return {f"vision.{dinov2.MASK_TOKEN}": np.zeros((1, image.width), np.float32)}
    return {} if image.patch_bias else {f"vision.{huggingface.VIT_PATCH_BIAS}": np.zeros(image.width, np.float32)}


def read_towers(folder: Path) -> Model:
    """The model in such a folder. UserError names what is missing, unknown, misshapen or not finite."""
    path = folder / CONFIG_FILE
    content = huggingface.read_json(path)
    try:
        config, preprocess = [saved_config(content[part]) for part in ("model", "preprocess")]
        adaptation = saved_adaptation(content, "model")
        fits = isinstance(config, CLIPConfig) and isinstance(preprocess, PreprocessConfig)
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path}: not a model's config as biomedclip writes it ({error}); write the folder again") from error
    if not fits:
        raise UserError(f"{path}: expected a CLIPConfig under model and a PreprocessConfig under preprocess")
    check_form(config)
    files = {part: find_weights(folder / part) for part in _TOWERS} | {"heads": folder / HEADS}
    if adaptation != UNADAPTED:
        files["adapters"] = folder / ADAPTERS
    tensors = Parts({part: (read_unwrapped if part in _TOWERS else read_weights)(file) for part, file in files.items()})
    ignored = dict.fromkeys(_zeros(config.vit), "no parameter of this tower, but transformers asks for it")
    ignored["*.pooler.*"] = "pooler: this model reads the last hidden state"
    ignored |= {f"text.{pattern}": why for pattern, why in causal.IGNORED.items()}
    shapes = abstract_model(config, adaptation=adaptation)[1]
    params, report = to_params(tensors, _entries(config, adaptation), shapes, ignored, folder)
    return Model(config, preprocess, params, folder / "text", report, adaptation=adaptation)


def write_towers(model: Model, folder: Path) -> list[str]:
    """Configs and weights into `folder`; returns the names of the tensors written. UserError if the model has no such form."""
    config = model.config
    contents = {"vision/config.json": _vision_json(config), "text/config.json": _text_json(config)}
    own_configs = {"model": config, "adaptation": model.adaptation, "preprocess": model.preprocess}
    contents[CONFIG_FILE] = {name: json.loads(to_json(part)) for name, part in own_configs.items()}
    for part in _TOWERS:
        (folder / part).mkdir()
    for file, content in contents.items():
        huggingface.write_json(folder / file, content)
    _write_preprocessor(model.preprocess, folder / "vision")
    copy_tokenizer(model, folder / "text")
    entries, adapted = _entries(config, model.adaptation), model.adaptation != UNADAPTED
    content = readme.tower_pair(config, entries, model.preprocess, folder / "text", adapted=adapted)
    (folder / readme.FILE).write_text(content, encoding="utf-8")
    tensors = _zeros(config.vit) | from_params(model.params, entries)
    _write_parts(folder, tensors)
    return list(tensors)


def _write_parts(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Each tensor into the file of the part that its name begins with."""
    for part, file in (*((part, f"{part}/model.safetensors") for part in _TOWERS), ("heads", HEADS), ("adapters", ADAPTERS)):
        own = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
        if own:
            write_safetensors(folder / file, own)


def _write_preprocessor(preprocess: PreprocessConfig, folder: Path) -> None:
    """For those who load the towers without us, where transformers can do the same; our own config says it in any case."""
    try:
        content = preprocessor.preprocessor_json(preprocess)
    except UserError:
        return
    huggingface.write_json(folder / preprocessor.FILE, content)


# --- described by open_clip_config.json ---------------------------------------------------------------------------------


def _pair_entries(config: CLIPConfig) -> list[Entry]:
    assert isinstance(config.text, BertConfig)
    vision = huggingface.vit_entries(config.vit, "vision.")
    text = huggingface.bert_entries(config.text, "text.")
    return [*vision, *text, *head_entries(config, timm=True, text_prefix="text.", prefix="heads.")]


def read_pair(folder: Path) -> Model:
    """ViT and BERT in such a folder. UserError names what is missing, unknown, misshapen or not finite."""
    content = huggingface.read_json(folder / open_clip.CONFIG_FILE)
    files = {part: read_unwrapped(find_weights(folder / part)) for part in _TOWERS}
    named_as_open_clip = Parts({"text": Parts({"transformer": files["text"]})})
    config, preprocess = open_clip.read_config(content, named_as_open_clip, folder / "text")
    tensors = Parts(files | {"heads": read_weights(folder / HEADS)})
    ignored = {f"{part}.pooler.*": "pooler: this model reads the last hidden state" for part in files}
    if not config.vit.patch_bias:
        ignored[f"vision.{huggingface.VIT_PATCH_BIAS}"] = "zeros: this tower has no bias on its patches"
    params, report = to_params(tensors, _pair_entries(config), abstract_model(config)[1], ignored, folder)
    name = content["model_cfg"]["text_cfg"]["hf_model_name"]
    return Model(config, preprocess, params, folder / "text", report, "" if name == _OWN_TEXT else name)


def write_pair(model: Model, folder: Path, destination: Path) -> list[str]:
    """ViT and BERT into `folder`, which is going to be `destination`; returns the names of the tensors written."""
    config = model.config
    assert isinstance(config.text, BertConfig)
    for part in _TOWERS:
        (folder / part).mkdir()
    huggingface.write_json(folder / "vision" / "config.json", huggingface.vit_config_json(config.vit))
    _write_preprocessor(model.preprocess, folder / "vision")
    huggingface.write_json(folder / "text" / "config.json", huggingface.bert_config_json(config.text))
    copy_tokenizer(model, folder / "text")
    content = described(model, destination / "text")
    texts = content["model_cfg"]["text_cfg"]
    if is_place(texts["hf_model_name"]):  # open_clip reads no pairs, and we find BERT's config in the pair
        texts |= {"hf_model_name": _OWN_TEXT, "hf_tokenizer_name": _OWN_TEXT}
    huggingface.write_json(folder / open_clip.CONFIG_FILE, content)
    entries = _pair_entries(config)
    words = readme.tower_pair(config, entries, model.preprocess, folder / "text")
    (folder / readme.FILE).write_text(words, encoding="utf-8")
    tensors = from_params(model.params, entries)
    tensors.setdefault(f"vision.{huggingface.VIT_PATCH_BIAS}", np.zeros(config.vit.width, np.float32))
    _write_parts(folder, tensors)
    return list(tensors)
