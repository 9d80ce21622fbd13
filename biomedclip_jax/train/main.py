"""A training run from its config to its results: input checked, updates made, model folder written, evaluated."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax

from biomedclip_jax.config import ComputeConfig, Mix, ShardingConfig, TrainConfig, from_json, to_json
from biomedclip_jax.data.labelled.classes import classes_in
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import Ended, UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.interop.formats.adapter_folder import write_adapter
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.models.adapters import merged_config
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.support.xla_cache import enable_compilation_cache
from biomedclip_jax.train.export import CONFIG, adapter_of, in_workdir, model_of, tokenizer_folder
from biomedclip_jax.train.final_evaluation import evaluate
from biomedclip_jax.train.held_out import HeldOut, held_out_pairs
from biomedclip_jax.train.loop import Run
from biomedclip_jax.train.metrics import Rejects
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost.hosts import is_first, say
from biomedclip_jax.train.multihost.signals import StopListener
from biomedclip_jax.train.prompt_stage import learned_prompts
from biomedclip_jax.train.state import optimizer_for, parameter_count, trained_groups
from biomedclip_jax.train.step import check_stage

RESULTS = "results.json"
_EVALUATION_SECONDS = 24 * 3600  # the first process alone evaluates at the end: the others wait so long


class Terminated(Ended):
    """A signal asked the run to end. Its state is saved: the same call goes on."""

    code = hosts.SAVED


def train(config: TrainConfig, workdir: Path, max_steps: int | None = None) -> dict[str, Any] | None:
    """Run, or go on with, the training that `config` describes, in the run folder `workdir`.

    Stops after `max_steps` updates in total where that is given. Returns the results when the run is finished, else None.
    The same call goes on where an interrupted run stopped. With several processes (`hosts.start`) each makes the same call,
    and the first one writes. UserError for input that cannot work, before anything is computed; `Terminated` after SIGTERM.
    """
    with StopListener() as stop:  # from the first moment: a signal while the data is read is heeded at the first step
        return _train(config, workdir, max_steps, stop)


def _train(config: TrainConfig, workdir: Path, max_steps: int | None, stop: StopListener) -> dict[str, Any] | None:
    enable_compilation_cache()
    _check_owner(config, workdir)
    if (workdir / RESULTS).is_file():
        return json.loads((workdir / RESULTS).read_text(encoding="utf-8"))
    optimizer = optimizer_for(config)
    for stage in config.stages:
        check_stage(stage, jax.device_count())
        export_format(merged_config(config.model_in(stage)), config.preprocess_in(stage))
    start = time.perf_counter()
    if config.prepare is not None and is_first():
        config.prepare(workdir)
    hosts.barrier("the data", 60 * config.stall_minutes)
    data = config.data
    prompted = any(stage.prompted for stage in config.stages)
    label_column = data.label_column if prompted else None
    pairs = open_pairs(_source(data.train, workdir), data.image_column, data.caption_column, label_column)
    classes = classes_in(pairs, data.label_separator) if prompted else ()
    held_out = held_out_pairs(config, workdir)
    text = config.model.text
    folder = tokenizer_folder(config, workdir)
    tokenizer = Tokenizer(folder, text.context_length, text.pad_id, text.vocab_size)
    model = config.model
    shapes = parameter_count(model), parameter_count(model, optimizer.all_trained())
    say(
        f"{config.name}: {len(pairs)} pairs ({len(pairs.rejects)} rejected), {shapes[0]:,} parameters"
        f"{'' if shapes[0] == shapes[1] else f', of which {shapes[1]:,} are trained'}, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        f"{'' if jax.process_count() == 1 else f' in {jax.process_count()} processes'}"
    )
    if shapes[0] != shapes[1]:
        say("trained: " + ", ".join(f"{name} {count:,}" for name, count in trained_groups(config).items()))

    if is_first():
        write_text(workdir / CONFIG, to_json(config))
    hosts.barrier("the run folder", 60 * config.stall_minutes)
    own = "" if is_first() else f".{jax.process_index()}"
    rejects = Rejects(workdir / f"rejects{own}.jsonl", pairs.rejects if is_first() else [])
    loader = TrainLoader(pairs, tokenizer, config.preprocess, data, config.seed, rejects.add, classes)
    watched = None
    if held_out is not None:
        watched = HeldOut(config, held_out, folder, make_mesh(fsdp=config.sharding.fsdp), classes)
    run = Run(config, workdir, loader, watched, stop)
    try:
        outcome = run.train(max_steps)
    finally:
        run.close()
    if outcome == "terminated":
        raise Terminated(f"stopped by a signal after step {run.step} of {run.total}, which is saved; the same command goes on")
    if outcome == "stopped":
        say(f"stopped after {run.step} of {run.total} steps; the same command without --max-steps goes on")
        return None
    trained = model_of(run.state, config, workdir, run.image_size)
    adapter = adapter_of(run.state, config, workdir, run.image_size)
    learned = learned_prompts(run.state, config, classes)
    if is_first():
        if adapter is not None:
            write_adapter(adapter, workdir / "adapter", replace=True)
        write_model(trained, workdir / "model", export_format(trained.config, trained.preprocess), replace=True)
        results = evaluate(config, workdir, held_out, run.metrics.lines, learned)
        results["seconds"] = round(run.seconds_before + time.perf_counter() - start, 1)
        write_text(workdir / RESULTS, json.dumps(results, indent=2) + "\n")
    hosts.barrier("the results", _EVALUATION_SECONDS)
    return json.loads((workdir / RESULTS).read_text(encoding="utf-8"))


def _essence(config: TrainConfig) -> TrainConfig:
    """The config without what may change from one part of a run to the next: it decides speed or memory, not the result."""
    compute = ComputeConfig(dtype=config.compute.dtype, frozen_dtype=config.compute.frozen_dtype)
    stages = tuple(dataclasses.replace(stage, microbatch=None) for stage in config.stages)
    free = ("log_every", "evaluate_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "stall_minutes")
    default = {f.name: f.default for f in dataclasses.fields(config) if f.name in free}
    data = dataclasses.replace(config.data, workers=None)
    return dataclasses.replace(
        config, compute=compute, stages=stages, data=data, sharding=ShardingConfig(), prepare=None, **default
    )


def _source(source: str | Mix, workdir: Path) -> str | Mix:
    if isinstance(source, str):
        return in_workdir(source, workdir)
    return tuple((in_workdir(part, workdir), weight) for part, weight in source)


def _check_owner(config: TrainConfig, workdir: Path) -> None:
    """UserError if the folder holds a run with another config; names the fields that differ."""
    path = workdir / CONFIG
    if not path.is_file():
        return
    try:
        stored = from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable run config ({error}); choose another --workdir, or remove it") from error
    ours, theirs = _essence(config), _essence(stored)
    differ = [f.name for f in dataclasses.fields(config) if getattr(ours, f.name) != getattr(theirs, f.name)]
    if differ:
        raise UserError(
            f"{path}: this folder holds a run with another config (they differ in {', '.join(differ)}); "
            "choose another --workdir, or remove it"
        )
