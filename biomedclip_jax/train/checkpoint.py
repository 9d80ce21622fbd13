"""Checkpoints of a run (Orbax). The only file that knows Orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

FOLDER = "checkpoints"


class Checkpoints:
    """The newest checkpoints of a run folder, written while the run goes on."""

    def __init__(self, workdir: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((workdir / FOLDER).resolve(), options=options)

    @property
    def latest(self) -> int | None:
        """Updates done in the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: dict[str, Any], image_size: int) -> None:
        """Write the state after `step` updates; returns before the writing is done."""
        if step == self.latest:
            return
        described = ocp.args.JsonSave({"image_size": image_size})
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), about=described))

    def image_size(self, step: int) -> int:
        """The image size of the stage in which this checkpoint was written: the position table has it."""
        return self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]["image_size"]

    def restore(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """The state after `step` updates. `abstract`: the same tree of `jax.ShapeDtypeStruct`s with shardings."""
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]

    def close(self) -> None:
        """Wait until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()
