"""Checkpoints of a run (Orbax). The only file that knows Orbax."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.train._frozen import check_frozen, frozen_fingerprint, stored, without_frozen
from biomedclip_jax.train._same_data import DataIdentity, data_identity_from
from biomedclip_jax.train.optimizer import Optimizer
from biomedclip_jax.train.state import TrainState, abstract_state, starting_params

FOLDER = "checkpoints"
DAMAGED = "checkpoints-damaged"

_MARGIN = 1 << 20  # bytes of a checkpoint that are not arrays
_NOT_EVALUATED = float("inf")  # never the best, and Orbax has a warning for checkpoints without metrics


@dataclass(frozen=True)
class About:
    """What is kept beside the state of a checkpoint.

    image_size: of the stage, and so of the position table. pairs: usable training pairs, by which changed data is noticed.
    frozen: fingerprint of the parameters that are not in the checkpoint; None where it has all of them. best_loss: the
    lowest held-out loss so far of those that the exported weights are chosen by, None before the first. stale: evaluations
    since then. table: how often the held-out pairs were changed; losses of other tables are not compared. data: what the
    data are; None in checkpoints of before.
    """

    image_size: int
    pairs: int
    frozen: str | None = None
    best_loss: float | None = None
    stale: int = 0
    table: int = 0
    data: DataIdentity | None = None

    def record(self) -> dict[str, Any]:
        """The facts as JSON beside a checkpoint; without those that are None."""
        facts = vars(self) | {"data": None if self.data is None else self.data.record()}
        return {name: value for name, value in facts.items() if value is not None}


def _about_from(record: dict[str, Any]) -> About:
    data = record.get("data")
    return About(**{**record, "data": None if data is None else data_identity_from(data)})


class Checkpoints:
    """The checkpoints of a run folder: the newest `keep`, and the one with the lowest held-out loss.

    They are written in the background.
    """

    def __init__(self, workdir: Path, keep: int = 2, *, read_only: bool = False):
        """Open them. read_only: change nothing in the folder, in which a run may be writing at this moment."""
        self.table = 0  # whose losses are compared, see `About`
        best = keeping.BestN(get_metric_fn=self._loss, reverse=True, n=1)
        writing = ocp.CheckpointManagerOptions(
            preservation_policy=keeping.AnyPreservationPolicy([keeping.LatestN(keep), best]),
            best_fn=self._loss,
            best_mode="min",
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # what a killed run left half-written
        )
        reading = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        self._workdir = workdir
        with _only_errors("absl"):  # which warns that the folder was opened as it was asked to
            self._manager = ocp.CheckpointManager((workdir / FOLDER).resolve(), options=reading if read_only else writing)

    @property
    def latest(self) -> int | None:
        """Updates done in the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Updates done in the checkpoint with the lowest held-out loss; None where nothing was evaluated."""
        step = self._manager.best_step()
        metrics = None if step is None else self._manager.metrics(step)
        return step if metrics is not None and self._loss(metrics) < _NOT_EVALUATED else None

    def _loss(self, metrics: dict[str, float]) -> float:
        return metrics["held_out_loss"] if metrics.get("table", 0) == self.table else _NOT_EVALUATED

    def save(self, step: int, state: TrainState, about: About, held_out_loss: float | None = None) -> None:
        """Write the state after `step` updates; returns before the writing is done, at once if it is written already.

        UserError where an earlier checkpoint could not be written, as on a full disk.
        """
        if step == self.latest:
            return
        self._finish_writing()
        # asked before, because Orbax' threads say with hundreds of lines that a disk is full
        free, needed = shutil.disk_usage(self._workdir).free, sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if free < needed + _MARGIN:
            raise self._not_written(f"{free / 1e6:,.0f} MB are free, {needed / 1e6:,.0f} MB are needed")
        metrics = {"held_out_loss": _NOT_EVALUATED if held_out_loss is None else held_out_loss, "table": self.table}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about.record())),
                metrics=metrics,
            )
        except Exception as error:
            raise self._not_written(first_line(error)) from error

    def about(self, step: int) -> About:
        """What was kept beside the state after `step` updates."""
        return _about_from(self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"])

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state after `step` updates. `abstract`: the same tree of `jax.ShapeDtypeStruct`s with shardings."""
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]

    def set_aside(self, step: int) -> Path:
        """Move a damaged checkpoint out of the way; returns where it is now."""
        target = self._workdir / DAMAGED / str(step)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        (self._workdir / FOLDER / str(step)).rename(target)
        self._manager.reload()
        return target

    def close(self) -> None:
        """Wait until all is written. UserError if it could not be."""
        try:
            self._finish_writing()
        finally:
            self._manager.close()

    def _finish_writing(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_written(first_line(error)) from error

    def _not_written(self, reason: str) -> UserError:
        return UserError(
            f"{self._workdir / FOLDER}: a checkpoint could not be written ({reason}); the ones before it are kept; "
            "make room, or move the run folder, and run the same command again"
        )


@contextlib.contextmanager
def _only_errors(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def restored_state(
    checkpoints: Checkpoints, step: int, config: TrainConfig, optimizer: Optimizer, mesh: Mesh
) -> tuple[TrainState, About]:
    """The state after `step` updates, with what its checkpoint does not hold, and what was kept beside it.

    UserError where the pretrained weights of a run are no longer what they were.
    """
    about = checkpoints.about(step)
    abstract = abstract_state(config, about.image_size, optimizer, mesh)
    if about.frozen is None:
        return checkpoints.restore(step, abstract), about
    own_params = without_frozen(abstract.params, config, optimizer)
    saved = checkpoints.restore(step, dataclasses.replace(abstract, params=own_params))
    start = stored(starting_params(config, about.image_size, abstract.params), config, optimizer)
    check_frozen(frozen_fingerprint(start, config, optimizer), about.frozen, config)
    flat, own = flatten_dict(start, sep="/"), flatten_dict(saved.params, sep="/")
    params = unflatten_dict({path: own.get(path, leaf) for path, leaf in flat.items()}, sep="/")
    return dataclasses.replace(saved, params=params), about
