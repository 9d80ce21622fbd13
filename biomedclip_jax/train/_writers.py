"""Where else the lines of `metrics.jsonl` go: TensorBoard, Weights & Biases and trackio, each by its own library.

A run has one id with all of them, kept in its folder together with what each was given: a run that goes on goes on
there, too, and no line is sent twice. What a writer missed, as it failed or was asked for later, it gets when the run
goes on, from `metrics.jsonl`. A failing writer never stops a run.
"""

import contextlib
import importlib
import json
import os
import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.config import TrainConfig, from_json, to_json
from biomedclip_jax.config.changes import refused_changes
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.files import write_text
from biomedclip_jax.train._metrics import Line, MetricsFile, Writer
from biomedclip_jax.train.multihost.hosts import is_first, say

# of a run folder: the run's id, for each writer the last step that it was given, by kind of line, and the config
WRITERS = "writers.json"
_LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_PROJECT = "biomedclip_jax"
_CLOSE_SECONDS = 60.0  # for what is still on its way when a run ends


# config, run folder, run id -> the writer, which takes up what it has of this run
Opener = Callable[[TrainConfig, Path, str], Writer]


def check_writers(writers: Sequence[str]) -> None:
    """UserError, before anything is computed, where the library of a writer is not installed."""
    for name in writers:
        library = _LIBRARIES[name]
        try:
            module = importlib.import_module(library)
            # a folder of this name, such as the one that wandb makes, is found as a module, too, and has no file
            if hasattr(module, "__path__") and getattr(module, "__file__", None) is None:
                raise ImportError(f"no module in the folder {library!r}")
        except ImportError as error:
            needs = f"run.writers: {name} needs the library {library} ({first_line(error)})"
            raise UserError(f"{needs}: pip install 'biomedclip_jax[{name}]'") from error


def _numbers(line: Line) -> dict[str, float]:
    """The numbers of a line under their names in `metrics.jsonl`, without the step and what is not known."""
    return {name: value for name, value in line.record().items() if name != "step" and value is not None}


class _TensorBoard:
    """Event files in `RUN/tensorboard/ID-OF-THE-RUN`."""

    def __init__(self, config: TrainConfig, workdir: Path, run_id: str):
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found]

        folder = workdir / "tensorboard" / run_id
        parts = len(list(folder.glob("events.*")))
        # a file for each part of the run; the library's own names are alike within a second
        self._writer = SummaryWriter(str(folder), filename_suffix=f".part-{parts}")
        if not parts:
            self._writer.add_text("config", f"```json\n{to_json(config)}\n```", 0)

    def write(self, line: Line) -> None:
        for name, value in _numbers(line).items():
            self._writer.add_scalar(name, value, line.step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases: project and mode by its own WANDB_PROJECT, WANDB_MODE ..., files in `RUN/wandb`."""

    def __init__(self, config: TrainConfig, workdir: Path, run_id: str):
        import wandb  # type: ignore[import-not-found]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=os.environ.get("WANDB_NAME", config.name),
            id=run_id,
            resume="allow",
            dir=str(workdir),
            config=json.loads(to_json(config)),
            settings=wandb.Settings(console="off"),  # the terminal stays the run's own
        )

    def write(self, line: Line) -> None:
        self._run.log(_numbers(line), step=line.step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A run of trackio, where its own TRACKIO_DIR, TRACKIO_SPACE_ID ... say."""

    def __init__(self, config: TrainConfig, workdir: Path, run_id: str):
        import trackio  # type: ignore[import-not-found]

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{config.name}-{run_id}",  # by which trackio knows a run again
            config=json.loads(to_json(config)),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write(self, line: Line) -> None:
        self._run.log(_numbers(line), step=line.step)

    def close(self) -> None:
        self._run.finish()


OPENERS: dict[str, Opener] = {"tensorboard": _TensorBoard, "wandb": _WandB, "trackio": _Trackio}


class Writers:
    """All writers that a config names, as one `Writer` that never fails and never keeps the run waiting.

    Each is opened at once and then has a thread of its own, to which lines are handed.
    """

    def __init__(self, config: TrainConfig, workdir: Path):
        """Open them; one that cannot be opened is named and left out. `check_writers` has been asked before."""
        self._path = workdir / WRITERS
        self._lock = threading.Lock()
        self._config = to_json(config)
        self._run_id, self._sent = _known(self._path, config)
        self._threads = []
        for name in dict.fromkeys(config.run.writers):
            try:
                writer = OPENERS[name](config, workdir, self._run_id)
            except Exception as error:  # whatever a library or its network comes up with
                _say_dropped(name, error)
                continue
            self._threads.append(_WriterThread(name, writer, self._is_new, self._was_sent))
        if self._threads:
            self._keep()

    def write(self, line: Line) -> None:
        """Hand the line to each writer that has not had it."""
        for thread in self._threads:
            thread.lines.put(line)

    def close(self) -> None:
        """Wait until all lines have arrived, for a minute at most."""
        for thread in self._threads:
            thread.lines.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)
            if thread.is_alive():
                _say_dropped(thread.name, TimeoutError(f"not finished after {_CLOSE_SECONDS:.0f} s"))

    def _is_new(self, name: str, line: Line) -> bool:
        return line.step > self._sent.get(name, {}).get(type(line).__name__, -1)

    def _was_sent(self, name: str, line: Line) -> None:
        with self._lock:
            self._sent.setdefault(name, {})[type(line).__name__] = line.step
            self._keep()

    def _keep(self) -> None:
        write_text(self._path, json.dumps({"run": self._run_id, "sent": self._sent, "config": self._config}) + "\n")


def metrics_of(config: TrainConfig, workdir: Path, step: int) -> MetricsFile:
    """`metrics.jsonl` of a run that goes on after `step`, and the writers beside it, which the first process alone has."""
    metrics = MetricsFile(workdir / "metrics.jsonl", step, write=is_first())
    if is_first() and config.run.writers:
        metrics.also_to(Writers(config, workdir))
    return metrics


class _WriterThread(threading.Thread):
    """Gives lines to one writer until None comes; a failure is said once, and nothing more is given."""

    def __init__(self, name: str, writer: Writer, is_new: Callable[[str, Line], bool], sent: Callable[[str, Line], None]):
        super().__init__(name=name, daemon=True)
        self.lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._writer, self._is_new, self._sent = writer, is_new, sent
        self.start()

    def run(self) -> None:
        try:
            while (line := self.lines.get()) is not None:
                if self._is_new(self.name, line):
                    self._writer.write(line)
                    self._sent(self.name, line)
        except Exception as error:  # whatever a library or its network comes up with
            _say_dropped(self.name, error)
            with contextlib.suppress(Exception):
                self._writer.close()
            return
        try:
            self._writer.close()
        except Exception as error:
            _say_dropped(self.name, error)


def _say_dropped(name: str, error: Exception) -> None:
    here = f"{name} fails ({first_line(error)}): the run goes on without it"
    say(f"{here}; metrics.jsonl has every line, and {name} gets what it missed when the run is taken up again")


def _known(path: Path, config: TrainConfig) -> tuple[str, dict[str, dict[str, int]]]:
    """The run's id and what each writer was given, from `writers.json`.

    A new id where there is none that can be read, or where a start with another config has left it.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not refused_changes(config, from_json(known["config"])):
            return str(known["run"]), {name: dict(steps) for name, steps in known["sent"].items()}
    return uuid.uuid4().hex[:12], {}
