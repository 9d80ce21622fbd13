"""Model folders, read and written whole: open_clip's, transformers' CLIP, and transformers' ViT + BERT as a pair.

| kind        | files                                                                                             |
| ----------- | ------------------------------------------------------------------------------------------------- |
| open_clip   | open_clip_config.json, open_clip_model.safetensors or open_clip_pytorch_model.bin, tokenizer      |
| huggingface | CLIP: config.json, model.safetensors, preprocessor_config.json, tokenizer                         |
| huggingface | else: vision/ and text/ for AutoModel, heads.safetensors, open_clip_config.json, tokenizer in text/ |
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import BertConfig, CLIPConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop import huggingface, open_clip, open_clip_config
from biomedclip_jax.interop.layout import Entry, Report, from_params, to_params
from biomedclip_jax.interop.weights import TensorFile, find_weights, read_weights, write_safetensors, write_torch
from biomedclip_jax.models import abstract_model

Format = Literal["open_clip", "open_clip-bin", "huggingface"]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_HEADS = "heads.safetensors"


@dataclass(frozen=True)
class Model:
    """A model as it stood in a folder. `params` is a nested dict of float32 arrays (see `models.abstract_model`)."""

    config: CLIPConfig
    preprocess: PreprocessConfig
    params: dict[str, Any]
    tokenizer: Path  # the folder with the tokenizer's files
    report: Report = dataclasses.field(default_factory=Report)
    text_model: str = ""  # what open_clip calls BERT: a hub name, or a folder; "" where there is none
    custom_text: bool = False  # CLIP's own text tower, but under open_clip's "text." prefix


class _Parts(TensorFile):
    """Several files as one, the names of each behind a prefix."""

    def __init__(self, files: dict[str, TensorFile]):
        self._files = files

    def _find(self, name: str) -> tuple[TensorFile, str]:
        prefix, _, rest = name.partition(".")
        return self._files[prefix], rest

    def shape(self, name: str) -> tuple[int, ...]:
        file, rest = self._find(name)
        return file.shape(rest)

    def __getitem__(self, name: str) -> np.ndarray:
        file, rest = self._find(name)
        return file[rest]

    def __contains__(self, name: object) -> bool:
        prefix, _, rest = str(name).partition(".")
        return prefix in self._files and rest in self._files[prefix]

    def __iter__(self) -> Iterator[str]:
        return (f"{prefix}.{name}" for prefix, file in self._files.items() for name in file)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))


def read_model(folder: Path) -> Model:
    """A model folder of any kind above. UserError names what is missing, unknown, misshapen or not finite."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a model folder, a run folder or hf-hub:org/name")
    if (folder / "vision" / "config.json").is_file() and (folder / "text" / "config.json").is_file():
        return _read_pair(folder)
    if (folder / open_clip_config.CONFIG_FILE).is_file():
        return _read_open_clip(folder)
    config = folder / "config.json"
    if config.is_file() and huggingface.read_json(config).get("model_type") == "clip":
        return _read_clip(folder)
    raise UserError(f"{folder}: not a model folder; expected {open_clip_config.CONFIG_FILE}, or config.json of a CLIPModel")


def _read_open_clip(folder: Path) -> Model:
    described = huggingface.read_json(folder / open_clip_config.CONFIG_FILE)
    path = find_weights(folder)
    tensors = read_weights(path)
    config, preprocess = open_clip_config.read_config(described, tensors, folder)
    custom_text = "text.token_embedding.weight" in tensors
    prefix = "text." if custom_text or isinstance(config.text, BertConfig) else ""
    timm = "timm_model_name" in described["model_cfg"]["vision_cfg"]
    table = open_clip.entries(config, timm=timm, text_prefix=prefix)
    params, report = to_params(tensors, table, abstract_model(config)[1], open_clip.IGNORED, path)
    text_model = described["model_cfg"]["text_cfg"].get("hf_model_name", "")
    return Model(config, preprocess, params, folder, report, text_model, custom_text)


def _read_clip(folder: Path) -> Model:
    config, preprocess = huggingface.read_clip_config(folder)
    path = find_weights(folder)
    shapes = abstract_model(config)[1]
    params, report = to_params(read_weights(path), huggingface.clip_entries(config), shapes, huggingface.CLIP_IGNORED, path)
    return Model(config, preprocess, params, folder, report)


def _pair_entries(config: CLIPConfig) -> list[Entry]:
    assert isinstance(config.text, BertConfig)
    vision = huggingface.vit_entries(config.image, "vision.")
    text = huggingface.bert_entries(config.text, "text.")
    return [*vision, *text, *open_clip.head_entries(config, timm=True, text_prefix="text.", prefix="heads.")]


def _read_pair(folder: Path) -> Model:
    described = huggingface.read_json(folder / open_clip_config.CONFIG_FILE)
    files = {part: read_weights(find_weights(folder / part)) for part in ("vision", "text")}
    named_as_open_clip = _Parts({"text": _Parts({"transformer": files["text"]})})
    config, preprocess = open_clip_config.read_config(described, named_as_open_clip, folder / "text")
    tensors = _Parts(files | {"heads": read_weights(folder / _HEADS)})
    ignored = {f"{part}.pooler.*": "pooler: this model reads the last hidden state" for part in files}
    if not config.image.patch_bias:
        ignored[f"vision.{huggingface.VIT_PATCH_BIAS}"] = "zeros: this tower has no bias on its patches"
    params, report = to_params(tensors, _pair_entries(config), abstract_model(config)[1], ignored, folder)
    text_model = described["model_cfg"]["text_cfg"]["hf_model_name"]
    return Model(config, preprocess, params, folder / "text", report, text_model)


def write_model(model: Model, destination: Path, format: Format = "open_clip", *, replace: bool = False) -> list[str]:
    """Write `model` as a folder of this format, whole or not at all, and return the names of the tensors written.

    Raises UserError when the format cannot hold the model, or when the folder is there already (unless `replace`).
    """
    if format not in get_args(Format):
        raise UserError(f"format {format!r}: expected one of {', '.join(get_args(Format))}")
    model = _expressible(model, format)
    names: list[str] = []
    if format != "huggingface":
        write = _write_open_clip
    elif isinstance(model.config.text, BertConfig):
        write = _write_pair
    else:
        write = _write_clip
    write_folder(destination, lambda folder: names.extend(write(model, folder, destination, format)), replace=replace)
    return names


def check_writable(config: CLIPConfig) -> None:
    """UserError if open_clip's format has no place for such a model: better before a training run than after it."""
    open_clip_config.write_config(_expressible_config(config), PreprocessConfig(), "", "")


def _expressible_config(config: CLIPConfig) -> CLIPConfig:
    image = config.image
    keeps = open_clip_config.timm_name(image) or not image.class_token or not image.position_on_prefix
    return config if keeps else dataclasses.replace(config, image=dataclasses.replace(image, patch_bias=False))


def _expressible(model: Model, format: Format) -> Model:
    """The same function with parameters that the format has a place for.

    timm has few image sizes, and CLIP's own ViT has no bias on its patches: there the bias moves into the positions.
    """
    image = model.config.image
    config = _expressible_config(model.config)
    if config == model.config or format == "huggingface":
        return model
    tower = dict(model.params["image"])
    bias = np.asarray(tower["patch"]["bias"])
    position = np.array(tower["position"])
    position[image.prefix_tokens :] += bias
    tower["patch"] = {"kernel": tower["patch"]["kernel"]}
    tower["position"] = jnp.asarray(position)
    return dataclasses.replace(model, config=config, params=model.params | {"image": tower})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tokenizer_files(model: Model) -> list[Path]:
    return [model.tokenizer / name for name in TOKENIZER_FILES if (model.tokenizer / name).is_file()]


def _copy_tokenizer(model: Model, folder: Path) -> None:
    for file in _tokenizer_files(model):
        shutil.copyfile(file, folder / file.name)


def _described(model: Model, destination: Path, text_folder: Path) -> dict[str, Any]:
    # open_clip builds BERT from a hub name or a folder. Keep the hub name; a folder that is gone becomes the one written here.
    name = model.text_model
    gone = not name or (Path(name).is_absolute() and not (Path(name) / "config.json").is_file())
    if isinstance(model.config.text, BertConfig) and gone:
        name = str(text_folder.resolve())
    tokenizer = name if isinstance(model.config.text, BertConfig) else "tokenizer" if _tokenizer_files(model) else ""
    content = open_clip_config.write_config(model.config, model.preprocess, name, tokenizer)
    if model.custom_text:
        content["model_cfg"]["custom_text"] = True
    return content


def _write_open_clip(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    config = model.config
    _write_json(folder / open_clip_config.CONFIG_FILE, _described(model, destination, destination))
    if isinstance(config.text, BertConfig):
        _write_json(folder / "config.json", huggingface.bert_config_json(config.text))
    _copy_tokenizer(model, folder)
    prefix = "text." if model.custom_text or isinstance(config.text, BertConfig) else ""
    timm = open_clip_config.timm_name(config.image) is not None
    tensors = from_params(model.params, open_clip.entries(config, timm=timm, text_prefix=prefix))
    if format == "open_clip":
        write_safetensors(folder / "open_clip_model.safetensors", tensors)
    else:
        write_torch(folder / "open_clip_pytorch_model.bin", tensors)
    return list(tensors)


def _write_clip(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    _write_json(folder / "config.json", huggingface.clip_config_json(model.config))
    _write_json(folder / "preprocessor_config.json", _preprocessor_json(model.preprocess))
    _copy_tokenizer(model, folder)
    tensors = from_params(model.params, huggingface.clip_entries(model.config))
    write_safetensors(folder / "model.safetensors", tensors)
    return list(tensors)


def _write_pair(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    config = model.config
    assert isinstance(config.text, BertConfig)
    for part in ("vision", "text"):
        (folder / part).mkdir()
    _write_json(folder / "vision" / "config.json", huggingface.vit_config_json(config.image))
    _write_json(folder / "vision" / "preprocessor_config.json", _preprocessor_json(model.preprocess))
    _write_json(folder / "text" / "config.json", huggingface.bert_config_json(config.text))
    _copy_tokenizer(model, folder / "text")
    _write_json(folder / open_clip_config.CONFIG_FILE, _described(model, destination, destination / "text"))
    tensors = from_params(model.params, _pair_entries(config))
    tensors.setdefault(f"vision.{huggingface.VIT_PATCH_BIAS}", np.zeros(config.image.width, np.float32))
    files = {"vision": "vision/model.safetensors", "text": "text/model.safetensors", "heads": _HEADS}
    for part, file in files.items():
        own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{part}.")}
        write_safetensors(folder / file, own)
    return list(tensors)


def _preprocessor_json(config: PreprocessConfig) -> dict[str, Any]:
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size} if config.resize_mode == "shortest" else {"height": size, "width": size},
        "resample": {"nearest": 0, "bilinear": 2, "bicubic": 3}[config.interpolation],
        "do_center_crop": config.resize_mode == "shortest",
        "crop_size": {"height": size, "width": size},
        "do_convert_rgb": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
