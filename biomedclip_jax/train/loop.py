"""The run: stages over one state, with checkpoints, metrics, and at the end the model folder and what it can do."""

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from biomedclip_jax.compilation import enable_compilation_cache
from biomedclip_jax.config import TrainConfig, to_json
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.data.pairs import read_pairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text
from biomedclip_jax.interop.folders import check_writable, write_model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.sharding import make_mesh, put_batch
from biomedclip_jax.train.checkpoint import Checkpoints
from biomedclip_jax.train.export import CONFIG, in_workdir, model_of, tokenizer_folder
from biomedclip_jax.train.finish import evaluate, held_out_pairs
from biomedclip_jax.train.metrics import Clock, MetricsFile, Progress, flops_per_pair
from biomedclip_jax.train.schedule import learning_rate, samples_before, stage_steps
from biomedclip_jax.train.state import abstract_state, at_image_size, model_at, new_state, parameter_count
from biomedclip_jax.train.step import check_stage, make_optimizer, make_step

RESULTS = "results.json"


def train(config: TrainConfig, workdir: Path, max_steps: int | None = None) -> dict[str, Any] | None:
    """Run, or go on with, the training that `config` describes, in the run folder `workdir`.

    Stops after `max_steps` updates in total where that is given. Returns the results when the run is finished, else None.
    The same call goes on where an interrupted run stopped. UserError for input that cannot work, before anything is computed.
    """
    enable_compilation_cache()
    _check_owner(config, workdir)
    if (workdir / RESULTS).is_file():
        return json.loads((workdir / RESULTS).read_text(encoding="utf-8"))
    for stage in config.stages:
        check_stage(stage, jax.device_count())
        check_writable(model_at(config, config.image_size(stage)))
    start = time.perf_counter()
    if config.prepare is not None:
        config.prepare(workdir)
    data = config.data
    pairs = read_pairs(Path(in_workdir(data.train, workdir)), data.image_column, data.caption_column)
    held_out = held_out_pairs(config, workdir)
    text = config.model.text
    tokenizer = Tokenizer(tokenizer_folder(config, workdir), text.context_length, text.pad_id, text.vocab_size)
    print(
        f"{config.name}: {len(pairs)} pairs ({len(pairs.rejects)} rejected), "
        f"{parameter_count(config.model):,} parameters, {jax.device_count()} x {jax.devices()[0].device_kind}"
    )

    write_text(workdir / CONFIG, to_json(config))
    rejects = _Rejects(workdir / "rejects.jsonl", pairs.rejects)
    loader = TrainLoader(pairs, tokenizer, config.preprocess, data.crop_scale, config.seed, rejects.add)
    run = _Run(config, workdir, loader)
    try:
        finished = run.train(max_steps)
    finally:
        run.close()
    if not finished:
        print(f"stopped after {run.step} of {run.total} steps; the same command without --max-steps goes on")
        return None
    model = model_of(run.state, config, workdir, run.image_size)
    write_model(model, workdir / "model", replace=True)
    results = evaluate(config, workdir, held_out, run.metrics.lines)
    results["seconds"] = round(run.seconds_before + time.perf_counter() - start, 1)
    write_text(workdir / RESULTS, json.dumps(results, indent=2) + "\n")
    return results


def _check_owner(config: TrainConfig, workdir: Path) -> None:
    """UserError if the folder holds a run with another config."""
    path = workdir / CONFIG
    if path.is_file() and path.read_text(encoding="utf-8") != to_json(config):
        raise UserError(f"{path}: this folder holds a run with another config; choose another --workdir, or remove it")


class _Rejects:
    """`rejects.jsonl`: records that could not be used, each once, with the reason. What an interrupted run listed stays."""

    def __init__(self, path: Path, known: list[dict[str, str]]):
        self._path = path
        self._seen: set[str] = set()
        self._lock = threading.Lock()  # the loader's threads may meet the same record at once
        before = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        path.write_text("", encoding="utf-8")
        # a killed run may have left half a line
        for record in [*(json.loads(line) for line in before if line.endswith("}\n")), *known]:
            self.add(record)

    def add(self, record: dict[str, str]) -> None:
        with self._lock:
            if record["image"] not in self._seen:
                self._seen.add(record["image"])
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")


class _Run:
    """State and position of a run; each method leaves them in step with each other."""

    def __init__(self, config: TrainConfig, workdir: Path, loader: TrainLoader):
        self.config = config
        self.loader = loader
        self.start = time.perf_counter()
        self.mesh = make_mesh()
        self.steps = stage_steps(config.stages, len(loader.pairs))
        self.total = sum(self.steps)
        self.rate = learning_rate(config.optimizer, config.stages, self.steps)
        self.optimizer = make_optimizer(config.optimizer, self.rate)
        self.checkpoints = Checkpoints(workdir)
        self.step = self.checkpoints.latest or 0
        if self.step:
            self.image_size = self.checkpoints.image_size(self.step)
            shapes = abstract_state(config, self.image_size, self.optimizer, self.mesh)
            self.state = self.checkpoints.restore(self.step, shapes)
            print(f"going on after step {self.step}")
        else:
            self.image_size = config.image_size(config.stages[0])
            self.state = new_state(config, self.image_size, self.optimizer, self.mesh)
        self.metrics = MetricsFile(workdir / "metrics.jsonl", self.step)
        self.seconds_before = self.metrics.lines[-1]["seconds"] if self.metrics.lines else 0.0
        self.progress = Progress(self.total, self.step)

    def close(self) -> None:
        self.progress.close()
        self.checkpoints.close()
        self.metrics.close()

    def train(self, max_steps: int | None) -> bool:
        """Up to `max_steps` updates in total; True if the whole run is done."""
        last = self.total if max_steps is None else min(max_steps, self.total)
        before = 0
        for number, count in enumerate(self.steps):
            until = min(before + count, last)
            if self.step < until:
                self._stage(number, until)
            before += count
        self.checkpoints.save(self.step, self.state, self.image_size)
        return self.step == self.total

    def _stage(self, number: int, until: int) -> None:
        config = self.config
        stage = config.stages[number]
        size = config.image_size(stage)
        if size != self.image_size:
            self.state = at_image_size(self.state, config, size)
            self.image_size = size
        model = model_at(config, size)
        graph, _ = abstract_model(model, config.compute)
        update = make_step(graph, self.mesh, stage, self.optimizer, self.rate, config.seed)
        place = samples_before(self.step, config.stages, self.steps)
        loader = dataclasses.replace(self.loader, preprocess=dataclasses.replace(config.preprocess, image_size=size))
        batches = loader.batches(place, stage.batch_size, until - self.step, jax.process_index(), jax.process_count())
        clock = Clock(flops_per_pair(model, stage) * stage.batch_size, stage.batch_size)
        pending: tuple[int, dict[str, jax.Array]] | None = None
        for batch in clock.timed(batches):
            self.state, metrics = update(self.state, put_batch(batch, self.mesh))
            self.step += 1
            # read the step before this one: the device has the next to work on while the host waits
            if pending is not None:
                self._log(number, *pending, clock)
            pending = self.step, metrics
            if self.step % config.checkpoint_every == 0 and self.step < until:
                self._log(number, *pending, clock)  # which refuses a state that is not finite
                pending = None
                self.checkpoints.save(self.step, self.state, size)
        if pending is not None:
            self._log(number, *pending, clock, always=True)

    def _log(self, stage: int, step: int, metrics: dict[str, jax.Array], clock: Clock, *, always: bool = False) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        # the loss is that of the state before the update; the gradient tells of the state after it, which may be saved next
        for name, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
            if not np.isfinite(values[name]):
                raise UserError(
                    f"step {step}, stage {stage}: the {what} is {values[name]}; the last checkpoint is kept; "
                    "try a lower learning_rate or clip_norm = 1.0"
                )
        clock.step_done()
        self.progress.update()
        if step % self.config.log_every and not always:
            return
        speed = clock.read()
        samples = samples_before(step, self.config.stages, self.steps)
        left = (self.total - step) * speed.pop("seconds_per_step")
        seconds = round(self.seconds_before + time.perf_counter() - self.start, 1)
        line = {"step": step, "stage": stage, "samples_seen": samples} | values | speed
        line |= {"seconds": seconds, "seconds_left": round(left, 1)}
        self.metrics.write(line)
        self.progress.show(line)
