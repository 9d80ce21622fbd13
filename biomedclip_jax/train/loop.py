"""The updates of a run: stages over one state, with metrics, evaluation and checkpoints in between."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from biomedclip_jax.config import Stage, TrainConfig
from biomedclip_jax.data.loader import TrainLoader
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_text
from biomedclip_jax.sharding import make_mesh, put_batch
from biomedclip_jax.train.checkpoint import Checkpoints, restored_state
from biomedclip_jax.train.flops import flops_per_pair
from biomedclip_jax.train.frozen import frozen_fingerprint, without_frozen
from biomedclip_jax.train.held_out import HeldOut
from biomedclip_jax.train.metrics import Clock, MetricsFile, Progress
from biomedclip_jax.train.multihost.hosts import all_agree, is_first, say
from biomedclip_jax.train.multihost.signals import StopListener
from biomedclip_jax.train.multihost.watchdog import Watchdog
from biomedclip_jax.train.prompt_stage import class_prompts, with_context
from biomedclip_jax.train.schedule import learning_rate, samples_before, stage_steps
from biomedclip_jax.train.state import at_image_size, new_state, optimizer_for
from biomedclip_jax.train.step import make_step
from biomedclip_jax.train.text_buckets import Buckets, caption_lengths, plan_buckets, token_share

NOT_FINITE = "not_finite.json"

# What a host asks of all hosts. It travels with the batch, and the largest is acted on by all at the same step.
_NOTHING, _SAVE, _STOP = 0, 1, 2
_SAMPLE = 4_096  # captions whose lengths decide the text buckets

Outcome = Literal["finished", "stopped", "terminated"]


class _Pending(NamedTuple):
    """An update that has been sent to the devices and not been looked at."""

    step: int
    metrics: dict[str, jax.Array]


class Run:
    """State and position of a run; each method leaves them in step with each other."""

    def __init__(self, config: TrainConfig, workdir: Path, loader: TrainLoader, held_out: HeldOut | None, stop: StopListener):
        self.config = config
        self.workdir = workdir
        self.loader = loader
        self.held_out = held_out
        self.stop = stop
        self.start = time.perf_counter()
        self.mesh = make_mesh(fsdp=config.sharding.fsdp)
        self.steps = stage_steps(config.stages, len(loader.pairs))
        self.total = sum(self.steps)
        self.rate = learning_rate(config.optimizer, config.stages, self.steps)
        self.optimizer = optimizer_for(config)
        self.watchdog = Watchdog(60 * config.stall_minutes)
        self.watchdog.busy("restoring or making the state")
        self.checkpoints = Checkpoints(workdir, config.keep_checkpoints)
        self.saved = time.monotonic()
        self.asked = False  # for a checkpoint by time
        self.step = 0
        classes, tokenizer = loader.classes, loader.tokenizer
        self.prompts = class_prompts(config, classes, tokenizer) if classes else None
        if not self._restore():
            self.image_size = config.image_size(config.stages[0])
            self.state = with_context(new_state(config, self.image_size, self.optimizer, self.mesh), config, tokenizer)
            self.frozen = frozen_fingerprint(self.state.params, config, self.optimizer)
        self.metrics = MetricsFile(workdir / "metrics.jsonl", self.step, write=is_first())
        self.seconds_before = self.metrics.lines[-1]["seconds"] if self.metrics.lines else 0.0
        self.progress = Progress(self.total, self.step, show=is_first())

    def _restore(self) -> bool:
        """Take up the newest checkpoint that can be read; damaged ones are named and set aside. False if there is none."""
        while (step := self.checkpoints.latest) is not None:
            error = None
            try:
                about = self.checkpoints.about(step)
                self.state, self.image_size, self.frozen = restored_state(
                    self.checkpoints, step, self.config, self.optimizer, self.mesh
                )
            except (UserError, jax.errors.JaxRuntimeError):
                raise  # not the checkpoint's fault
            except Exception as damage:  # Orbax raises bare Exception, too
                error = damage
            if all_agree(error is None):
                if about["pairs"] != len(self.loader.pairs):
                    raise UserError(
                        f"{self.config.data.train}: {len(self.loader.pairs)} usable pairs, but this run began with "
                        f"{about['pairs']}; bring the data back as it was, or choose another --workdir"
                    )
                self.step = step
                say(f"going on after step {step}")
                return True
            aside = self.checkpoints.set_aside(step)
            why = first_line(error) if error else "on another host"
            say(f"the checkpoint of step {step} is damaged ({why}); it is now {aside}, and the one before is used")
        return False

    def close(self) -> None:
        """Wait until all is written."""
        self.watchdog.busy("writing the last checkpoint")
        try:
            self.checkpoints.close()
        finally:
            self.progress.close()
            self.metrics.close()
            self.watchdog.close()

    def train(self, max_steps: int | None) -> Outcome:
        """Up to `max_steps` updates in total. "terminated": a signal asked for the end, and the state is saved."""
        last = self.total if max_steps is None else min(max_steps, self.total)
        before = 0
        for number, count in enumerate(self.steps):
            until = min(before + count, last)
            if self.step < until and not self._stage(number, until):
                return "terminated"
            before += count
        if self.step == self.total and self.held_out is not None and self.config.evaluate_every is not None:
            self._evaluate(len(self.steps) - 1)
        self._save()
        return "finished" if self.step == self.total else "stopped"

    def _stage(self, number: int, until: int) -> bool:
        """The updates of stage `number` up to `until`; False if a signal ended it before."""
        config = self.config
        stage = config.stages[number]
        self.watchdog.busy(f"preparing stage {number}")
        size = config.image_size(stage)
        if size != self.image_size:
            self.state = at_image_size(self.state, config, size)
            self.image_size = size
        buckets = self._buckets(stage)
        prompts = self.prompts if stage.prompted else None
        update = make_step(config, number, self.mesh, self.optimizer, self.rate, buckets, prompts)
        place = samples_before(self.step, config.stages, self.steps)
        loader = self.loader.at(config.preprocess_in(stage), labels=stage.prompted)
        batches = loader.batches(place, stage.batch_size, until - self.step, jax.process_index(), jax.process_count())
        flops = flops_per_pair(config.model_in(stage), stage, buckets, prompts and prompts.tokens.shape)
        clock = Clock(flops * stage.batch_size, stage.batch_size)
        pending: _Pending | None = None
        self.watchdog.busy(f"compiling stage {number}")
        for batch in clock.timed(batches):
            arrays = batch.arrays() | {"signal": np.full(len(batch), self._signal(), np.int32)}
            self.watchdog.step_begun(self.step + 1)
            self.state, metrics = update(self.state, put_batch(arrays, self.mesh))
            self.step += 1
            # read the step before this one: the device has the next to work on while the host waits
            signal = self._look_at(number, pending, clock) if pending is not None else _NOTHING
            pending = _Pending(self.step, metrics)
            evaluate = config.evaluate_every is not None and self.step % config.evaluate_every == 0
            due = self.step % config.checkpoint_every == 0 or evaluate or signal >= _SAVE
            if due and (self.step < until or signal == _STOP):
                signal = max(signal, self._look_at(number, pending, clock))  # which refuses a state that is not finite
                pending = None
                if evaluate and signal != _STOP:
                    self._evaluate(number)
                self._save()
            if signal == _STOP:
                return False
        if pending is not None:
            self._look_at(number, pending, clock, always=True)
        return True

    def _buckets(self, stage: Stage) -> Buckets:
        """The text buckets of a stage, from the lengths of a sample of the captions."""
        text, count = self.config.model.text, self.config.compute.text_buckets
        if count == 1:
            return ()
        captions, complete = self.loader.sample_texts(_SAMPLE)
        lengths = np.asarray(caption_lengths(self.loader.tokenizer(captions), text.pad_id))
        buckets = plan_buckets(lengths, text.context_length, stage, self.mesh.size, count, complete=complete)
        if buckets:
            share = token_share(buckets, text.context_length)
            shape = ", ".join(f"{b.rows} x {b.length}" for b in buckets)
            real = lengths.mean() / text.context_length
            say(f"captions a device: {shape} tokens; {share:.0%} of the padded tokens are computed, {real:.0%} are real")
        return buckets

    def _signal(self) -> int:
        if self.stop.requested:
            return _STOP
        late = time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes
        if late and is_first() and not self.asked:
            self.asked = True
            return _SAVE
        return _NOTHING

    def _save(self, held_out_loss: float | None = None) -> None:
        self.watchdog.busy("saving")
        state = self.state
        if self.frozen is not None:
            state = dataclasses.replace(state, params=without_frozen(state.params, self.config, self.optimizer))
        self.checkpoints.save(self.step, state, self._about(), held_out_loss)
        self.saved, self.asked = time.monotonic(), False

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"image_size": self.image_size, "pairs": len(self.loader.pairs)}
        return about if self.frozen is None else about | {"frozen": self.frozen}

    def _evaluate(self, number: int) -> None:
        assert self.held_out is not None
        self.watchdog.busy("evaluating")
        results = self.held_out.evaluate(self.state, number)
        line = {"step": self.step, "stage": number, "samples_seen": self._samples(self.step)} | results
        self.metrics.write(line | {"seconds": self._seconds()})
        shown = "  ".join(f"{name.removeprefix('held_out_')} {value:.3f}" for name, value in results.items())
        self.progress.say(f"step {self.step}/{self.total}  held out: {shown}")
        self._save(results["held_out_loss"])

    def _samples(self, step: int) -> int:
        return samples_before(step, self.config.stages, self.steps)

    def _seconds(self) -> float:
        return round(self.seconds_before + time.perf_counter() - self.start, 1)

    def _look_at(self, number: int, pending: _Pending, clock: Clock, *, always: bool = False) -> int:
        """Wait for an update, check and report it; returns what the hosts ask for."""
        values = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        signal = int(values.pop("signal"))
        self.watchdog.step_done(pending.step)
        self._check_finite(number, pending.step, values)
        clock.step_done()
        self.progress.update()
        if pending.step % self.config.log_every and not always:
            return signal
        speed = clock.read()
        left = (self.total - pending.step) * speed.pop("seconds_per_step")
        line = {"step": pending.step, "stage": number, "samples_seen": self._samples(pending.step)} | values | speed
        line |= {"seconds": self._seconds(), "seconds_left": round(left, 1)}
        self.metrics.write(line)
        self.progress.show(line)
        return signal

    def _check_finite(self, number: int, step: int, values: dict[str, float]) -> None:
        # the loss is that of the state before the update; the gradient tells of the state after it, which may be saved next
        for name, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
            if not np.isfinite(values[name]):
                examples = self.loader.examples(self._samples(step - 1), self.config.stages[number].batch_size)
                record = {
                    "step": step,
                    "stage": number,
                    name: str(values[name]),
                    "examples": [vars(example) for example in examples],
                }
                if is_first():
                    write_text(self.workdir / NOT_FINITE, json.dumps(record, indent=1) + "\n")
                first = ", ".join(example.image for example in examples[:3])
                raise UserError(
                    f"step {step}, stage {number}: the {what} is {values[name]}; the batch of {len(examples)} examples is "
                    f"listed in {self.workdir / NOT_FINITE} ({first}, ...); the last checkpoint is kept; "
                    "try a lower learning_rate or clip_norm = 1.0"
                )
