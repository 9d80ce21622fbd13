"""Model folders written whole, in the format that is asked for or in the one that has a place for the model.

| format        | files                                                                                            |
| ------------- | ------------------------------------------------------------------------------------------------ |
| open_clip     | open_clip_config.json, open_clip_model.safetensors, tokenizer                                    |
| open_clip-bin | the same with open_clip_pytorch_model.bin, PyTorch's pickle                                      |
| huggingface   | CLIP, SigLIP: config.json, model.safetensors, preprocessor_config.json, tokenizer                |
|               | any other: vision/ and text/ for transformers' AutoModel and more, see `formats/tower_pair.py`   |
| cleft         | cleft.ckpt, a first-stage checkpoint for XYPB/CLEFT, the text model's config.json, tokenizer     |

A model that answers questions has a folder answering/ besides, in every format (`answering_folder.py`).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from biomedclip_jax.config import UNADAPTED, Adaptation, CLIPConfig, ClipTextConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder
from biomedclip_jax.interop.answering_folder import without_answering, write_answering
from biomedclip_jax.interop.formats import tower_pair
from biomedclip_jax.interop.formats.cleft import checkpoint as cleft
from biomedclip_jax.interop.formats.huggingface.clip import write_clip
from biomedclip_jax.interop.formats.huggingface.siglip import check_siglip_form, is_siglip_form, write_siglip
from biomedclip_jax.interop.formats.open_clip.folder import expressible, expressible_config, write_open_clip
from biomedclip_jax.interop.formats.open_clip.write_config import ADAPTERS_REFUSED, write_config
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import check_cleaning

Format = Literal["open_clip", "open_clip-bin", "huggingface", "cleft"]


def write_model(model: Model, destination: Path, format: Format = "open_clip", *, replace: bool = False) -> list[str]:
    """Write `model` as a folder of this format, whole or not at all, and return the names of the tensors written.

    Raises UserError when the format cannot hold the model, or when the folder is there already (unless `replace`).
    """
    if format not in get_args(Format):
        raise UserError(f"format {format!r}: expected one of {', '.join(get_args(Format))}")
    check_cleaning(model.tokenizer, format)
    whole, model = model, without_answering(model)
    if format in ("open_clip", "open_clip-bin"):
        model = expressible(model)
    write, adapters = _writer(model, destination, format)
    if model.adaptation != UNADAPTED and not adapters:
        raise UserError(f"{destination}: {ADAPTERS_REFUSED}")
    names: list[str] = []

    def write_all(folder: Path) -> None:
        names.extend(write(folder))
        write_answering(whole, folder)

    write_folder(destination, write_all, replace=replace)
    return names


def _writer(model: Model, destination: Path, format: Format) -> tuple[Callable[[Path], list[str]], bool]:
    """What writes the files into a folder, and whether that form has a place for adapters beside the weights."""
    if format == "cleft":
        cleft.check_form(model, destination)
        return lambda folder: cleft.write_cleft_folder(model, folder), True
    if format != "huggingface":
        return lambda folder: write_open_clip(model, folder, destination, pickle=format == "open_clip-bin"), False
    if isinstance(model.config.text, ClipTextConfig):
        write = write_siglip if is_siglip_form(model.config) else write_clip
        return lambda folder: write(model, folder), False
    if export_format(model.config, model.preprocess, model.adaptation) == "open_clip":
        return lambda folder: tower_pair.write_pair(expressible(model), folder, destination), False
    return lambda folder: tower_pair.write_towers(model, folder), True


def check_writable(config: CLIPConfig, preprocess: PreprocessConfig | None = None) -> None:
    """UserError if open_clip's format has no place for such a model, or for how its images are made."""
    write_config(expressible_config(config), preprocess or PreprocessConfig(), "", "")


def export_format(config: CLIPConfig, preprocess: PreprocessConfig | None = None, adaptation: Adaptation = UNADAPTED) -> Format:
    """The format that a trained model is written in: open_clip's, or "huggingface" if only that has a place for it.

    preprocess: how its images are made; None: in a way that every format can say. adaptation: what stays beside its
    weights. UserError if neither has: better before a training run than after it.
    """
    config = dataclasses.replace(config, answering=None)
    try:
        if adaptation != UNADAPTED:
            raise UserError(ADAPTERS_REFUSED)
        check_writable(config, preprocess)
    except UserError as error:
        try:
            _check_huggingface(config, preprocess, adaptation)
        except UserError as other:
            raise UserError(
                f"this model could not be written: in open_clip's layout {error}; in transformers' {other}"
            ) from None
        return "huggingface"
    return "open_clip"


def _check_huggingface(config: CLIPConfig, preprocess: PreprocessConfig | None, adaptation: Adaptation) -> None:
    if not is_siglip_form(config):
        return tower_pair.check_form(config)
    check_siglip_form(config, preprocess or PreprocessConfig())
    if adaptation != UNADAPTED:
        raise UserError(ADAPTERS_REFUSED)
