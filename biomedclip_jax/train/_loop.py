"""The updates of a run: stages over one state, with metrics, evaluation and checkpoints in between.

`Run._updates` is the loop itself: read it first.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import numpy as np

from biomedclip_jax.config import Stage, TrainConfig, reads_padding
from biomedclip_jax.data.loader import Batch
from biomedclip_jax.data.unread_texts import say_unread, unread_lines
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_text
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train._checkpoint import About, Checkpoints, restored_state
from biomedclip_jax.train._frozen import frozen_fingerprint, without_frozen
from biomedclip_jax.train._held_out import Inputs
from biomedclip_jax.train._metrics import Clock, HeldOutLine, Progress, StepLine
from biomedclip_jax.train._prompt_stage import class_prompts, with_context
from biomedclip_jax.train._questions import begun
from biomedclip_jax.train._run_folder import with_these_data
from biomedclip_jax.train._writers import metrics_of
from biomedclip_jax.train.flops import flops_per_pair
from biomedclip_jax.train.microbatches import put_training_batch
from biomedclip_jax.train.multihost.hosts import all_agree, is_first, say
from biomedclip_jax.train.multihost.stopping import StopListener, Watchdog
from biomedclip_jax.train.optimizer import learning_rate, samples_before, stage_steps
from biomedclip_jax.train.profile import FOLDER, Profile
from biomedclip_jax.train.state import at_image_size, new_state, optimizer_for
from biomedclip_jax.train.step import make_step
from biomedclip_jax.train.text_buckets import Buckets, caption_lengths, plan_buckets, token_share

NOT_FINITE = "not_finite.json"

# What a host asks of all hosts. It travels with the batch, and the largest is acted on by all at the same step.
_NOTHING, _SAVE, _STOP = 0, 1, 2
_SAMPLE = 4_096  # captions that are looked at before a run or a stage begins

Outcome = Literal["finished", "stopped", "terminated"]


class _StageWork(NamedTuple):
    """A stage that is ready to run: its compiled update, its batches from the run's position on, and the clock on them."""

    number: int
    update: Callable[..., tuple[Any, dict[str, jax.Array]]]
    batches: Iterator[Batch]
    clock: Clock


class _Sent(NamedTuple):
    """An update that was handed to the devices and whose metrics nobody has read yet."""

    step: int
    metrics: dict[str, jax.Array]


class Run:
    """A training run that is open: its state and position, which each method leaves in step with each other.

    `with Run(...) as run: run.train(None)`. Entering restores the newest checkpoint or makes a new state; leaving,
    also by an error, waits until all is written and ends every thread that the run has started.
    """

    def __init__(self, config: TrainConfig, workdir: Path, inputs: Inputs, stop: StopListener, profile: int | None = None):
        """Starts nothing yet. stop: asked between steps. profile: how many updates are traced."""
        loader = inputs.loader
        self.config = config
        self.workdir = workdir
        self.loader = loader
        self.held_out = inputs.held_out
        self.data = inputs.identity
        self.stop = stop
        self.profile = Profile(profile, workdir / FOLDER)
        self.start = time.perf_counter()
        self.mesh = make_mesh(fsdp=config.sharding.fsdp)
        self.steps = stage_steps(config.stages, len(loader.pairs))
        self.total = sum(self.steps)
        self.rate = learning_rate(config.optimizer, config.stages, self.steps)
        self.optimizer = optimizer_for(config)
        self.prompts = class_prompts(config, loader.classes, loader.tokenizer) if config.prompted else None
        self.step = 0
        self.best_loss: float | None = None
        self.stale = 0  # evaluations since the best one

    def __enter__(self) -> Self:
        config = self.config
        with contextlib.ExitStack() as opened:  # closes what is open already when one of these fails
            self.watchdog = opened.enter_context(contextlib.closing(Watchdog(60 * config.run.stall_minutes)))
            self.watchdog.busy("restoring or making the state")
            self.checkpoints = opened.enter_context(contextlib.closing(Checkpoints(self.workdir, config.run.keep_checkpoints)))
            self.saved = time.monotonic()
            self.save_requested = False  # because checkpoint_minutes have passed
            if not self._restore():
                self._begin()
            metrics = metrics_of(config, self.workdir, self.step)
            self.metrics = opened.enter_context(contextlib.closing(metrics))
            self.seconds_before = metrics.lines[-1].seconds if metrics.lines else 0.0
            progress = Progress(self.total, self.step, show=is_first())
            self.progress = opened.enter_context(contextlib.closing(progress))
            opened.callback(self.profile.close)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.watchdog.busy("writing the last checkpoint")
        self._opened.close()  # in reverse: the checkpoints before the watchdog, which watches over their writing

    def _begin(self) -> None:
        """The state before the first update."""
        self.image_size = self.config.image_size(self.config.stages[0])
        state = new_state(self.config, self.image_size, self.optimizer, self.mesh)
        self.state = begun(with_context(state, self.config, self.loader.tokenizer), self.config, self.loader)
        self.frozen = frozen_fingerprint(self.state.params, self.config, self.optimizer)
        if is_first() and not all(stage.prompted for stage in self.config.stages):
            captions, complete = self.loader.sample_texts(_SAMPLE)
            say_unread("captions" if complete else "captions, a sample", unread_lines(self.loader.tokenizer, captions))

    def _restore(self) -> bool:
        """Take up the newest checkpoint that can be read; damaged ones are named and set aside. False if there is none."""
        while (step := self.checkpoints.latest) is not None:
            error = None
            try:
                self.state, about = restored_state(self.checkpoints, step, self.config, self.optimizer, self.mesh)
                self.image_size, self.frozen = about.image_size, about.frozen
            except (UserError, jax.errors.JaxRuntimeError):
                raise  # not the checkpoint's fault
            except Exception as damage:  # Orbax raises bare Exception, too
                error = damage
            if all_agree(error is None):
                about = with_these_data(about, self.data, self.loader.pairs, self.config, self.workdir)
                self.best_loss, self.stale, self.checkpoints.table = about.best_loss, about.stale, about.table
                self.step = step
                say(f"going on after step {step}")
                return True
            aside = self.checkpoints.set_aside(step)
            why = first_line(error) if error else "on another host"
            say(f"the checkpoint of step {step} is damaged ({why}); it is now {aside}, and the one before is used")
        return False

    def train(self, max_steps: int | None) -> Outcome:
        """Up to `max_steps` updates in total. "terminated": a signal asked for the end, and the state is saved."""
        last = self.total if max_steps is None else min(max_steps, self.total)
        evaluates = self.held_out is not None and self.held_out.compares
        if evaluates and self.checkpoints.latest is None:
            self._evaluate(0)  # the start, to which all is compared
        before = 0
        for number, count in enumerate(self.steps):
            until = min(before + count, last)
            if self._ends_early():
                break
            if self.step < until and not self._stage(number, until):
                return "terminated"
            # a signal during a stage's last step must not wait for the next one to be compiled
            if before < self.step < last and self.step == until and not all_agree(not self.stop.requested):
                self._save()
                return "terminated"
            before += count
        if self.step == self.total and evaluates:
            self._evaluate(len(self.steps) - 1)
        self._save()
        return "finished" if self.step == self.total or self._ends_early() else "stopped"

    def take_up_exported(self) -> int:
        """Put the state that the run hands over in the place of the last one; returns the updates done in it."""
        best = self.checkpoints.best if self.config.export == "best" else None
        if best is not None and best != self.step:
            del self.state  # or the devices would have to hold both
            self.state, about = restored_state(self.checkpoints, best, self.config, self.optimizer, self.mesh)
            self.image_size = about.image_size
        return self.step if best is None else best

    def _ends_early(self) -> bool:
        return self.config.patience is not None and self.stale >= self.config.patience

    def _stage(self, number: int, until: int) -> bool:
        """The updates of stage `number` up to `until`; False if a signal ended it before."""
        config, stage = self.config, self.config.stages[number]
        self.watchdog.busy(f"preparing stage {number}")
        size = config.image_size(stage)
        if size != self.image_size:
            self.state = at_image_size(self.state, config, size)
            self.image_size = size
        buckets = self._buckets(stage)
        prompts = self.prompts if stage.prompted else None
        update = make_step(config, number, self.mesh, self.optimizer, self.rate, buckets, prompts)
        flops = flops_per_pair(config.model_in(stage), stage, buckets, prompts and prompts.tokens.shape, config.adaptation)
        clock = Clock(flops * stage.batch_size, stage.batch_size)
        loader = self.loader.at(config.preprocess_in(stage), labels=stage.prompted or stage.answers)
        position = self._samples(self.step)
        batches = loader.batches(position, stage.batch_size, until - self.step, jax.process_index(), jax.process_count())
        self.watchdog.busy(f"compiling stage {number}")
        with contextlib.closing(batches):  # ends the loader's workers, also after an error
            return self._updates(_StageWork(number, self.profile.around(update, self.step), clock.timed(batches), clock), until)

    def _updates(self, work: _StageWork, until: int) -> bool:
        """The loop: each turn is one update of the state. False if a signal ended it before step `until`."""
        config = self.config
        waiting: _Sent | None = None
        for step, batch in enumerate(work.batches, self.step + 1):
            # What this host asks for travels with its rows, and every host reads the largest wish of all from the metrics of
            # this step: so all act on it after the same step, without a message of their own.
            arrays = batch.arrays() | {"signal": np.full(len(batch), self._request(), np.int32)}
            # The call returns as soon as the devices have their work. The state that goes in is used up (donated), so the
            # run's state and step change together.
            self.watchdog.step_begun(step)
            self.state, metrics = work.update(self.state, put_training_batch(arrays, self.mesh, config.compute))
            self.step = step
            # Only now are the metrics of the step before read: the devices have this one to work on while the host waits.
            request = self._read(work, waiting) if waiting is not None else _NOTHING
            waiting = _Sent(step, metrics)
            evaluate = config.run.evaluate_every is not None and step % config.run.evaluate_every == 0
            due = step % config.run.checkpoint_every == 0 or evaluate or request >= _SAVE
            # what is due, or asked for, at the last step of a stage happens there; after the last of all `train` does it
            if (due or step == until) and step < self.total:
                # Reading this step first refuses a state that is not finite: no checkpoint ever has one.
                request = max(request, self._read(work, waiting, always=step == until))
                waiting = None
                if evaluate and request != _STOP:
                    self._evaluate(work.number)  # saves, too: with its loss, by which the best checkpoint is kept
                if due or request >= _SAVE:
                    self._save()
                if evaluate and self._ends_early():
                    self.progress.say(f"step {step}/{self.total}  no lower held-out loss in {self.stale} evaluations: ended")
                    return True
            if request == _STOP and step < self.total:  # after the last step there is nothing left to go on with
                return False
        if waiting is not None:
            self._read(work, waiting, always=True)
        return True

    def _request(self) -> int:
        """What this host asks of all hosts."""
        if self.stop.requested:
            return _STOP
        late = time.monotonic() - self.saved > 60 * self.config.run.checkpoint_minutes
        if late and is_first() and not self.save_requested:
            self.save_requested = True
            return _SAVE
        return _NOTHING

    def _read(self, work: _StageWork, sent: _Sent, *, always: bool = False) -> int:
        """Wait for an update, check and report it; returns what the hosts ask for. always: report it between log steps, too."""
        values = {name: float(value) for name, value in jax.device_get(sent.metrics).items()}
        request = int(values.pop("signal"))
        self.watchdog.step_done(sent.step)
        self._check_finite(work.number, sent.step, values)
        work.clock.step_done()
        self.progress.update()
        if sent.step % self.config.run.log_every == 0 or always:
            speed = work.clock.read()
            line = StepLine(
                step=sent.step,
                stage=work.number,
                samples_seen=self._samples(sent.step),
                **values,
                pairs_per_second=speed.pairs_per_second,
                mfu=speed.mfu,
                data_wait_fraction=speed.data_wait_fraction,
                seconds=self._seconds(),
                seconds_left=round((self.total - sent.step) * speed.seconds_per_step, 1),
            )
            self.metrics.write(line)
            self.progress.show(line)
        return request

    def _check_finite(self, number: int, step: int, values: dict[str, float]) -> None:
        """UserError, with the examples of the batch in `not_finite.json`, where loss or gradient is NaN or infinite."""
        # the loss is that of the state before the update; the gradient tells of the state after it, which may be saved next
        name = next((name for name in ("loss", "grad_norm") if not np.isfinite(values[name])), None)
        if name is None:
            return
        what = {"loss": "loss", "grad_norm": "gradient's norm"}[name]
        examples = self.loader.examples(self._samples(step - 1), self.config.stages[number].batch_size)
        listed = [vars(example) for example in examples]
        record = {"step": step, "stage": number, name: str(values[name]), "examples": listed}
        if is_first():
            write_text(self.workdir / NOT_FINITE, json.dumps(record, indent=1) + "\n")
        first = ", ".join(example.image for example in examples[:3])
        raise UserError(
            f"step {step}, stage {number}: the {what} is {values[name]}; the batch of {len(examples)} examples is "
            f"listed in {self.workdir / NOT_FINITE} ({first}, ...); the last checkpoint is kept; "
            "try a lower learning_rate or clip_norm = 1.0"
        )

    def _evaluate(self, number: int) -> None:
        """Evaluate the state on the held-out pairs, report it, and save it with its loss."""
        assert self.held_out is not None
        self.watchdog.busy("evaluating")
        scores = self.held_out.evaluate(self.state, number, self.watchdog.busy)
        seen, seconds, table = self._samples(self.step), self._seconds(), self.checkpoints.table
        line = HeldOutLine(step=self.step, stage=number, samples_seen=seen, scores=scores, seconds=seconds, table=table)
        self.metrics.write(line)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        self.progress.say(f"step {self.step}/{self.total}  held out: {shown}")
        # a loss that is no number would be the best one for ever
        counts = self._is_comparable(number) and np.isfinite(scores["loss"])
        if counts:
            better = self.best_loss is None or scores["loss"] < self.best_loss
            self.best_loss, self.stale = (scores["loss"], 0) if better else (self.best_loss, self.stale + 1)
        self._save(scores["loss"] if counts else None)

    def _is_comparable(self, number: int) -> bool:
        """Whether the held-out loss in this stage, or at the start, is one that the exported weights are chosen by."""
        stage, last = self.config.stages[number], self.config.stages[-1]
        of_last = number == len(self.steps) - 1
        same = stage.loss == last.loss and self.config.image_size(stage) == self.config.image_size(last)
        return of_last or (self.step == 0 and same)

    def _save(self, held_out_loss: float | None = None) -> None:
        """Begin to write a checkpoint; there may be one of this step already."""
        self.watchdog.busy("saving")
        state = self.state
        if self.frozen is not None:
            state = dataclasses.replace(state, params=without_frozen(state.params, self.config, self.optimizer))
        evaluated = self.best_loss, self.stale, self.checkpoints.table
        about = About(self.image_size, len(self.loader.pairs), self.frozen, *evaluated, self.data)
        self.checkpoints.save(self.step, state, about, held_out_loss)
        self.saved, self.save_requested = time.monotonic(), False

    def _buckets(self, stage: Stage) -> Buckets:
        """The text buckets of a stage, from the lengths of a sample of the captions."""
        text, count = self.config.model.text, self.config.compute.text_buckets
        if count == 1 or reads_padding(text) or stage.answers:
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

    def _samples(self, step: int) -> int:
        """Pairs seen when `step` updates are done."""
        return samples_before(step, self.config.stages, self.steps)

    def _seconds(self) -> float:
        """Seconds that the run has taken, with its parts before a stop."""
        return round(self.seconds_before + time.perf_counter() - self.start, 1)
