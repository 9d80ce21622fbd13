"""From a run to a model: the finished run's model folder, and the model in a run that is not finished."""

import contextlib
import dataclasses
from pathlib import Path

import jax

from biomedclip_jax.config import UNADAPTED, TrainConfig, from_json
from biomedclip_jax.data.demo.sources import demo_path
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.interop.formats.adapter_folder import CONFIG_FILE as ADAPTER
from biomedclip_jax.interop.formats.adapter_folder import Adapter, read_adapter
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.models.adapters import CONTEXT
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train._checkpoint import Checkpoints, restored_state
from biomedclip_jax.train._frozen import sources
from biomedclip_jax.train.multihost.hosts import say
from biomedclip_jax.train.state import TrainState, exported_params, learned_params, optimizer_for

CONFIG = "config.json"


def in_workdir(path: str, workdir: Path) -> str:
    """A path of the config, with `{workdir}` filled in, or of a demo, whose data is in the run folder."""
    return demo_path(path.replace("{workdir}", str(workdir)), workdir)


def tokenizer_folder(config: TrainConfig, workdir: Path) -> Path:
    """The folder, or the one file, of the run's tokenizer; from a hub address it is fetched first.

    data.tokenizer may name what other commands take for a model: a run, a model folder, a pair of towers, an adapter.
    UserError if there is no such folder.
    """
    source = in_workdir(config.data.tokenizer, workdir)
    folder = local_folder(source, weights=False)
    if not folder.exists():
        raise UserError(
            f"data.tokenizer {source}: no such folder; expected a tokenizer's folder, a model folder, a run folder or "
            "hf-hub:org/name"
        )
    return _tokenizer_in(folder)


def _tokenizer_in(folder: Path) -> Path:
    if (folder / ADAPTER).is_file():
        return _tokenizer_in(local_folder(read_adapter(folder).tokenizer, weights=False))
    if (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
        return _tokenizer_in(folder / "model") if (folder / "model").is_dir() else tokenizer_folder(read_config(folder), folder)
    pair = all((folder / part / "config.json").is_file() for part in ("vision", "text"))
    return folder / "text" if pair else folder


def model_of(state: TrainState, config: TrainConfig, workdir: Path, image_size: int) -> Model:
    """The model in a state, ready to be written as a folder."""
    preprocess = dataclasses.replace(config.preprocess, image_size=image_size)
    params = exported_params(state, config, image_size)
    tokenizer, left = tokenizer_folder(config, workdir), config.adaptation.unmergeable
    return Model(config.model_at(image_size), preprocess, params, tokenizer, adaptation=left)


def adapter_of(state: TrainState, config: TrainConfig, workdir: Path, image_size: int) -> Adapter | None:
    """What the adapters in a state have learned.

    None where the model has none, where there is no base to put them on, and where `interpolate` mixes the weights.
    """
    adaptation = dataclasses.replace(config.adaptation, context=0)
    if adaptation == UNADAPTED or not sources(config):
        return None
    if config.interpolate < 1:
        say(f"interpolate = {config.interpolate}: the model is a mixture with its start, so there is no adapter/ folder")
        return None
    preprocess = dataclasses.replace(config.preprocess, image_size=image_size)
    learned, base = learned_params(state, config, optimizer_for(config))
    source = config.data.tokenizer  # what is not on a hub, as it can be found from any working directory
    tokenizer = source if source.startswith("hf-hub:") else str(tokenizer_folder(config, workdir).resolve())
    begun_from = {beginning: _lasting(source) for beginning, source in sources(config).items()}
    learned.pop(CONTEXT, None)  # is in a file of its own
    model = config.model_at(image_size)
    return Adapter(model, adaptation, preprocess, learned, base, config.compute.frozen_dtype, begun_from, tokenizer)


def _lasting(source: str) -> str:
    """The source as it can be found from any working directory: local paths made absolute."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def read_config(workdir: Path) -> TrainConfig:
    """The config of a run folder. UserError if there is none, or it is not one of ours."""
    path = workdir / CONFIG
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: not a readable run config ({error}); was the run started by `biomedclip train`?") from error


def read_run(workdir: Path) -> Model:
    """The model of the newest checkpoint of a run. UserError if there is none yet."""
    config = read_config(workdir)
    mesh = make_mesh(jax.local_devices()[:1])
    before = None
    while True:
        with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
            step = checkpoints.latest
            if step is None:
                raise UserError(f"{workdir}: this run has no checkpoint yet; let `biomedclip train` go on for a while")
            try:
                state, about = restored_state(checkpoints, step, config, optimizer_for(config), mesh)
            except UserError:
                raise
            except Exception as error:  # Orbax raises bare Exception, too
                if step == before:
                    raise UserError(f"{workdir}: the checkpoint of step {step} cannot be read ({first_line(error)})") from error
                before = step  # the run goes on, and may have replaced it by a newer one meanwhile
                continue
        return model_of(state, config, workdir, about.image_size)
