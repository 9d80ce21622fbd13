"""Model folders, read and written whole: open_clip's, transformers' CLIP, and transformers' ViT + BERT as a pair.

| kind        | files                                                                                             |
| ----------- | ------------------------------------------------------------------------------------------------- |
| open_clip   | open_clip_config.json, open_clip_model.safetensors or open_clip_pytorch_model.bin, tokenizer      |
| huggingface | CLIP: config.json, model.safetensors, preprocessor_config.json, tokenizer                         |
| huggingface | else: vision/ and text/ for AutoModel, heads.safetensors, open_clip_config.json, tokenizer in text/ |
|             | (with a tower that open_clip does not have, such as GPT-2: biomedclip_config.json, see `towers.py`) |

Others are only read, each as it was released: MedCLIP (`medclip.py`), BioViL and BioViL-T (`biovil.py`), and those of
`released.py`, which are bare weight files: OpenAI's CLIP, PubMedCLIP, PMC-CLIP, UniMed-CLIP, CLEFT.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, GPTConfig, LlamaConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop import detect as released
from biomedclip_jax.interop.baselines.biovil import reader as biovil
from biomedclip_jax.interop.baselines.medclip import reader as medclip
from biomedclip_jax.interop.formats import preprocessor
from biomedclip_jax.interop.formats import tower_pair as towers
from biomedclip_jax.interop.formats.cleft import checkpoint as cleft
from biomedclip_jax.interop.formats.huggingface import causal
from biomedclip_jax.interop.formats.huggingface import mapping as huggingface
from biomedclip_jax.interop.formats.open_clip import config as open_clip_config
from biomedclip_jax.interop.formats.open_clip import mapping as open_clip
from biomedclip_jax.interop.mapping import Entry, from_params, to_params
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import WEIGHT_FILES, Parts, find_weights, read_weights, write_safetensors, write_torch
from biomedclip_jax.models import abstract_model

Format = Literal["open_clip", "open_clip-bin", "huggingface", "cleft"]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    released.CLIP_VOCABULARY,
)
_HEADS = "heads.safetensors"


def read_model(folder: Path) -> Model:
    """A model folder of any kind above, or one weight file of `released.py`.

    UserError names what is missing, unknown, misshapen or not finite.
    """
    if folder.is_file():
        return released.read_file(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a model folder, a run folder or hf-hub:org/name")
    if (folder / towers.CONFIG_FILE).is_file():
        return towers.read_towers(folder)
    if (folder / "vision" / "config.json").is_file() and (folder / "text" / "config.json").is_file():
        return _read_pair(folder)
    if (folder / open_clip_config.CONFIG_FILE).is_file():
        return _read_open_clip(folder)
    if image_file := biovil.find_image_file(folder):
        return biovil.read_biovil(folder, image_file)
    config = folder / "config.json"
    if config.is_file() and huggingface.read_json(config).get("model_type") == "clip":
        return _read_clip(folder)
    if any((folder / name).is_file() for name in WEIGHT_FILES) and medclip.is_medclip(read_weights(find_weights(folder))):
        return medclip.read_medclip(folder)
    if (model := released.read_folder(folder)) is not None:
        return model
    raise UserError(
        f"{folder}: not a model folder; expected {open_clip_config.CONFIG_FILE}, config.json of a CLIPModel, or the released "
        "files of OpenAI CLIP, PubMedCLIP, PMC-CLIP, UniMed-CLIP, CLEFT, MedCLIP or BioViL (README, Evaluate)"
    )


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
    config = huggingface.read_clip_config(folder)
    preprocess = preprocessor.read_preprocessor(folder / preprocessor.FILE, config.image.image_size)
    path = find_weights(folder)
    shapes = abstract_model(config)[1]
    params, report = to_params(read_weights(path), huggingface.clip_entries(config), shapes, huggingface.CLIP_IGNORED, path)
    return Model(config, preprocess, params, folder, report)


def _pair_entries(config: CLIPConfig) -> list[Entry]:
    assert isinstance(config.text, BertConfig)
    vision = huggingface.vit_entries(config.vit, "vision.")
    text = huggingface.bert_entries(config.text, "text.")
    return [*vision, *text, *open_clip.head_entries(config, timm=True, text_prefix="text.", prefix="heads.")]


def _read_pair(folder: Path) -> Model:
    described = huggingface.read_json(folder / open_clip_config.CONFIG_FILE)
    files = {part: read_weights(find_weights(folder / part)) for part in ("vision", "text")}
    named_as_open_clip = Parts({"text": Parts({"transformer": files["text"]})})
    config, preprocess = open_clip_config.read_config(described, named_as_open_clip, folder / "text")
    tensors = Parts(files | {"heads": read_weights(folder / _HEADS)})
    ignored = {f"{part}.pooler.*": "pooler: this model reads the last hidden state" for part in files}
    if not config.vit.patch_bias:
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
    if format == "cleft":
        cleft.check_form(model.config, model.preprocess, destination)
        write = _write_cleft
    elif format != "huggingface":
        write = _write_open_clip
    elif isinstance(model.config.text, ClipTextConfig):
        write = _write_clip
    elif export_format(model.config, model.preprocess) == "open_clip":
        write = _write_pair
    else:
        write = _write_towers
    if model.config != model.config.base and write not in (_write_towers, _write_cleft):
        raise UserError(f"{destination}: {open_clip_config.ADAPTERS_REFUSED}")
    write_folder(destination, lambda folder: names.extend(write(model, folder, destination, format)), replace=replace)
    return names


def check_writable(config: CLIPConfig, preprocess: PreprocessConfig | None = None) -> None:
    """UserError if open_clip's format has no place for such a model, or for how its images are made."""
    open_clip_config.write_config(_expressible_config(config), preprocess or PreprocessConfig(), "", "")


def export_format(config: CLIPConfig, preprocess: PreprocessConfig | None = None) -> Format:
    """The format that a trained model is written in: open_clip's, or "huggingface" if only that has a place for it.

    preprocess: how its images are made; None: in a way that every format can say. UserError if neither has: better before a
    training run than after it.
    """
    try:
        check_writable(config, preprocess)
    except UserError as error:
        try:
            towers.check_form(config)
        except UserError as other:
            raise UserError(
                f"this model could not be written: in open_clip's layout {error}; in transformers' {other}"
            ) from None
        return "huggingface"
    return "open_clip"


def _expressible_config(config: CLIPConfig) -> CLIPConfig:
    image = config.image
    if not isinstance(image, ViTConfig):
        return config
    keeps = open_clip_config.timm_name(image) or not image.class_token or not image.position_on_prefix
    return config if keeps else dataclasses.replace(config, image=dataclasses.replace(image, patch_bias=False))


def _expressible(model: Model, format: Format) -> Model:
    """The same function with parameters that the format has a place for.

    timm has few image sizes, and CLIP's own ViT has no bias on its patches: there the bias moves into the positions.
    """
    config = _expressible_config(model.config)
    if config == model.config or format in ("huggingface", "cleft"):
        return model
    tower = dict(model.params["image"])
    bias = np.asarray(tower["patch"]["bias"])
    position = np.array(tower["position"])
    position[config.vit.prefix_tokens :] += bias
    tower["patch"] = {"kernel": tower["patch"]["kernel"]}
    tower["position"] = jnp.asarray(position)
    return dataclasses.replace(model, config=config, params=model.params | {"image": tower})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tokenizer_files(model: Model) -> list[Path]:
    if model.tokenizer.is_file():
        return [model.tokenizer]
    return [model.tokenizer / name for name in TOKENIZER_FILES if (model.tokenizer / name).is_file()]


def _copy_tokenizer(model: Model, folder: Path) -> None:
    for file in _tokenizer_files(model):
        shutil.copyfile(file, folder / file.name)


def _described(model: Model, destination: Path, text_folder: Path) -> dict[str, Any]:
    # open_clip builds BERT from a hub name or a folder. Keep the hub name; a folder that is gone becomes the one written here.
    name = model.text_model
    own = [file for file in _tokenizer_files(model) if file.name != released.CLIP_VOCABULARY]  # open_clip has that built in
    gone = not name or (Path(name).is_absolute() and not (Path(name) / "config.json").is_file())
    if isinstance(model.config.text, BertConfig) and gone:
        name = str(text_folder.resolve())
    tokenizer = name if isinstance(model.config.text, BertConfig) else "tokenizer" if own else ""
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
    _write_json(folder / preprocessor.FILE, preprocessor.preprocessor_json(model.preprocess))
    _write_json(folder / "config.json", huggingface.clip_config_json(model.config))
    _copy_tokenizer(model, folder)
    tensors = from_params(model.params, huggingface.clip_entries(model.config))
    write_safetensors(folder / "model.safetensors", tensors)
    return list(tensors)


def _write_pair(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    config = model.config
    assert isinstance(config.text, BertConfig)
    for part in ("vision", "text"):
        (folder / part).mkdir()
    _write_json(folder / "vision" / "config.json", huggingface.vit_config_json(config.vit))
    _write_preprocessor(model, folder / "vision")
    _write_json(folder / "text" / "config.json", huggingface.bert_config_json(config.text))
    _copy_tokenizer(model, folder / "text")
    _write_json(folder / open_clip_config.CONFIG_FILE, _described(model, destination, destination / "text"))
    tensors = from_params(model.params, _pair_entries(config))
    tensors.setdefault(f"vision.{huggingface.VIT_PATCH_BIAS}", np.zeros(config.vit.width, np.float32))
    files = {"vision": "vision/model.safetensors", "text": "text/model.safetensors", "heads": _HEADS}
    for part, file in files.items():
        own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{part}.")}
        write_safetensors(folder / file, own)
    return list(tensors)


def _write_cleft(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    names = cleft.write_cleft(model, folder / "cleft.ckpt")
    assert isinstance(model.config.text, GPTConfig | LlamaConfig)
    _write_json(folder / "config.json", causal.config_json(model.config.text))
    _copy_tokenizer(model, folder)
    return names


def _write_preprocessor(model: Model, folder: Path) -> None:
    """For those who load the towers without us, where transformers can do the same; our own config says it in any case."""
    try:
        content = preprocessor.preprocessor_json(model.preprocess)
    except UserError:
        return
    _write_json(folder / preprocessor.FILE, content)


def _write_towers(model: Model, folder: Path, destination: Path, format: Format) -> list[str]:
    names = towers.write_towers(model, folder)
    _write_preprocessor(model, folder / "vision")
    _copy_tokenizer(model, folder / "text")
    return names
