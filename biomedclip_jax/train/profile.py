"""A trace of some updates, for xprof: what the devices and the host do in them, operation by operation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from biomedclip_jax.errors import first_line
from biomedclip_jax.train.multihost.hosts import is_first, say

FOLDER = "profile"
_FIRST = 2  # updates of a stage that are not traced: the first compiles, the second may be slower than those after it

Update = Callable[[Any, Any], Any]


def how_to_look(folder: Path) -> str:
    """Where a trace is, and the command that shows it."""
    return f"{folder}; to look at it: pip install xprof; xprof --logdir {folder}"


class Profile:
    """Traces up to `steps` updates of one stage of a run, into `folder`; nothing where steps is None.

    What is computed is the same, and a profiler that fails is said and stops nothing. The devices are waited for before
    and after, so that the trace has whole updates.
    """

    def __init__(self, steps: int | None, folder: Path):
        """Of several processes the first one alone traces."""
        self._asked = steps is not None and is_first()
        self._left = steps or 0 if self._asked else 0
        self._folder = folder
        self._traced = 0
        self._open = False

    def around(self, update: Update, done: int) -> Update:
        """The update of a stage, traced from its third call on. done: updates before the first."""
        self._stop()  # the compilation of the next stage is no part of the trace
        if self._left == 0 or self._traced:
            return update
        calls = 0

        def call(state: Any, batch: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls <= _FIRST or self._left == 0 or not self._started(state):
                return update(state, batch)
            with jax.profiler.StepTraceAnnotation("train", step_num=done + calls):
                result = update(state, batch)
            self._left -= 1
            self._traced += 1
            if self._left == 0:
                jax.block_until_ready(result)
                self._stop()
            return result

        return call

    def close(self) -> None:
        """End the trace where the run ends before."""
        self._stop()
        if self._asked and not self._traced:
            say(f"--profile: nothing was traced, as no stage had more than its first {_FIRST} updates here")

    def _started(self, state: Any) -> bool:
        if self._open:
            return True
        try:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
        except Exception as error:  # another trace is running, or the folder cannot be written
            self._fails(error)
            return False
        self._open = True
        return True

    def _stop(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            jax.profiler.stop_trace()
        except Exception as error:  # the trace is written now: a full disk
            self._fails(error)
            return
        updates = f"{self._traced} update{'s' * (self._traced != 1)}"
        say(f"profile of {updates}: {how_to_look(self._folder)}")

    def _fails(self, error: Exception) -> None:
        self._left, self._asked = 0, False
        say(f"--profile: {self._folder}: no profile ({first_line(error)}); the rest goes on")
