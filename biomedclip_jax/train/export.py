"""From a run to a model: the finished run's model folder, and the model in a run that is not finished."""

import dataclasses
import json
from pathlib import Path

import jax

from biomedclip_jax.config import TrainConfig, from_json
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.folders import Model
from biomedclip_jax.interop.hub import local_folder
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train.checkpoint import Checkpoints
from biomedclip_jax.train.state import abstract_state, exported_params, optimizer_for
from biomedclip_jax.train.step import State

CONFIG = "config.json"


def in_workdir(path: str, workdir: Path) -> str:
    """A path of the config, with `{workdir}` filled in."""
    return path.replace("{workdir}", str(workdir))


def tokenizer_folder(config: TrainConfig, workdir: Path) -> Path:
    """Where the run's tokenizer is; a hub address is fetched."""
    return local_folder(in_workdir(config.data.tokenizer, workdir), weights=False)


def model_of(state: State, config: TrainConfig, workdir: Path, image_size: int) -> Model:
    """The model in a state, ready to be written as a folder."""
    preprocess = dataclasses.replace(config.preprocess, image_size=image_size)
    params = exported_params(state, config, image_size)
    return Model(config.model_at(image_size), preprocess, params, tokenizer_folder(config, workdir))


def read_config(workdir: Path) -> TrainConfig:
    """The config of a run folder. UserError if there is none, or it is not one of ours."""
    path = workdir / CONFIG
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable run config ({error}); was the run started by `biomedclip train`?") from error


def read_run(workdir: Path) -> Model:
    """The model of the newest checkpoint of a run. UserError if there is none yet."""
    config = read_config(workdir)
    checkpoints = Checkpoints(workdir)
    try:
        step = checkpoints.latest
        if step is None:
            raise UserError(f"{workdir}: this run has no checkpoint yet; let `biomedclip train` go on for a while")
        size = checkpoints.about(step)["image_size"]
        mesh = make_mesh(jax.local_devices()[:1])
        state = checkpoints.restore(step, abstract_state(config, size, optimizer_for(config), mesh))
    finally:
        checkpoints.close()
    return model_of(state, config, workdir, size)
