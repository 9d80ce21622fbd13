"""What a model answers questions by, in a folder `answering/` of its own inside the model folder.

config.json         `config.AnsweringConfig`, with the answers that it knows
model.safetensors   its parameters, under the paths that they have in the model

Whatever else reads the model folder (open_clip, transformers) sees the towers alone.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import AnsweringConfig, from_json, to_json
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import read_weights, write_safetensors
from biomedclip_jax.models import abstract_model

FOLDER = "answering"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def holds_answering(folder: Path) -> bool:
    """Whether a model folder says what questions are answered by."""
    return (folder / FOLDER).is_dir()


def without_answering(model: Model) -> Model:
    """The towers of a model alone."""
    params = {name: part for name, part in model.params.items() if name != FOLDER}
    return dataclasses.replace(model, config=dataclasses.replace(model.config, answering=None), params=params)


def write_answering(model: Model, folder: Path) -> None:
    """Write what `model` answers questions by into its folder; nothing where it answers none."""
    if model.config.answering is None:
        return
    own = folder / FOLDER
    own.mkdir()
    write_text(own / _CONFIG, to_json(model.config.answering) + "\n")
    flat: dict[str, Any] = flatten_dict(model.params[FOLDER], sep="/")
    write_safetensors(own / _WEIGHTS, {path: np.asarray(leaf, np.float32) for path, leaf in flat.items()})


def with_answering(model: Model, folder: Path) -> Model:
    """`model`, which was read from a folder, with what it answers questions by. UserError names what does not fit."""
    path = folder / FOLDER / _CONFIG
    try:
        answering = from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: not readable ({error}); write the model again") from error
    if not isinstance(answering, AnsweringConfig):
        raise UserError(f"{path}: a {type(answering).__name__}; expected what a model answers questions by")
    config = dataclasses.replace(model.config, answering=answering)
    weights = folder / FOLDER / _WEIGHTS
    tensors = read_weights(weights)
    shapes: dict[str, Any] = flatten_dict(abstract_model(config)[1][FOLDER], sep="/")
    if missing := sorted(shapes.keys() - set(tensors)):
        raise UserError(f"{weights}: no tensor {missing[0]}; {len(missing)} of {len(shapes)} are missing")
    if unknown := sorted(set(tensors) - shapes.keys()):
        raise UserError(f"{weights}: tensor {unknown[0]} has no place in the model; {len(unknown)} are too many")
    for name, leaf in shapes.items():
        if tensors.shape(name) != leaf.shape:
            raise UserError(f"{weights}: tensor {name} has shape {tensors.shape(name)}; expected {leaf.shape}")
    own = {name: np.asarray(tensors[name], np.float32) for name in shapes}
    if bad := next((name for name, array in own.items() if not np.isfinite(array).all()), None):
        raise UserError(f"{weights}: tensor {bad} is not finite")
    return dataclasses.replace(model, config=config, params=model.params | {FOLDER: unflatten_dict(own, sep="/")})
