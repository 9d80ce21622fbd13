"""What a run writes beside its checkpoints: `metrics.jsonl`, the line on the screen, and `rejects.jsonl`."""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.support.terminal import progress_bar
from biomedclip_jax.train.flops import peak_flops

Batch = TypeVar("Batch")


class Speed(NamedTuple):
    """How fast a run has been since the last reading. mfu is None on a chip whose peak is not known."""

    pairs_per_second: float
    mfu: float | None
    data_wait_fraction: float
    seconds_per_step: float


class Clock:
    """Measures the speed of a stage: pairs a second, MFU, and the share of time spent waiting for data."""

    def __init__(self, flops_per_step: float, pairs_per_step: int):
        self._flops = flops_per_step
        self._pairs = pairs_per_step
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Hand on the batches; the time until each of them arrives counts as waiting for data."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited += time.perf_counter() - before
            yield batch

    def step_done(self) -> None:
        """One more update has been computed."""
        self._steps += 1

    def read(self) -> Speed:
        """The speed since the last call, or since the clock was made."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps = max(self._steps, 1)
        peak = peak_flops()
        speed = Speed(
            pairs_per_second=round(steps * self._pairs / seconds, 2),
            mfu=None if peak is None else steps * self._flops / seconds / peak,
            data_wait_fraction=round(min(self._waited / seconds, 1.0), 4),
            seconds_per_step=seconds / steps,
        )
        self._restart()
        return speed


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """A line of `metrics.jsonl` about an update: measures of the state that went into it, and the speed since the
    line before.

    logit_scale is the factor itself (e to the parameter), logit_bias is left out where the model has none,
    grad_norm is that before clipping. seconds: of the whole run, with the parts before this one.
    """

    step: int
    stage: int
    samples_seen: int
    grad_norm: float
    learning_rate: float
    logit_bias: float | None = None
    logit_scale: float
    loss: float
    pairs_per_second: float
    mfu: float | None
    data_wait_fraction: float
    seconds: float
    seconds_left: float

    def record(self) -> dict[str, Any]:
        """The keys and values of the line, in the order of the fields."""
        record = dataclasses.asdict(self)
        if self.logit_bias is None:
            del record["logit_bias"]
        return record


@dataclass(frozen=True, kw_only=True)
class HeldOutLine:
    """A line of `metrics.jsonl` about an evaluation on the held-out pairs; scores: see `HeldOut.evaluate`.

    table: how often the held-out pairs had been changed since the run began; not in the line where they never were.
    """

    step: int
    stage: int
    samples_seen: int
    scores: dict[str, float]
    seconds: float
    table: int = 0

    def record(self) -> dict[str, Any]:
        """The keys and values of the line; those of the scores begin with "held_out_"."""
        scores = {_HELD_OUT + name: value for name, value in self.scores.items()}
        position = {"step": self.step, "stage": self.stage, "samples_seen": self.samples_seen}
        return position | scores | {"seconds": self.seconds} | ({"table": self.table} if self.table else {})


def of_table(lines: Sequence["Line"], table: int) -> list["Line"]:
    """The lines about updates, and about evaluations on these held-out pairs: losses of others are not compared."""
    return [line for line in lines if not isinstance(line, HeldOutLine) or line.table == table]


Line = StepLine | HeldOutLine
_HELD_OUT = "held_out_"


def _parsed(text: str) -> Line:
    """The inverse of `json.dumps(line.record())`."""
    record = json.loads(text)
    if "loss" in record:
        return StepLine(**record)
    scores = {name: record.pop(name) for name in list(record) if name.startswith(_HELD_OUT)}
    return HeldOutLine(**record, scores={name.removeprefix(_HELD_OUT): value for name, value in scores.items()})


class Writer(Protocol):
    """Something that keeps the lines of a run. Every method may fail: it is then asked no more."""

    def write(self, line: Line) -> None:
        """Take one line of the run; those of one kind come in the order of their steps, each once."""
        ...

    def close(self) -> None:
        """Finish what was begun; the run may be taken up again later."""
        ...


class MetricsFile:
    """`metrics.jsonl` of a run folder: one object a line. Lines after `step` (from a run that was cut off) are dropped."""

    def __init__(self, path: Path, step: int, *, write: bool = True):
        """write: False on all hosts but the first, which only keep the lines."""
        self.lines: list[Line] = []
        if path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a killed run may be half a line
                    self.lines.append(_parsed(text))
            self.lines = [line for line in self.lines if line.step <= step]
        self._file = None
        self._writer: Writer | None = None
        if write:
            path.write_text("".join(json.dumps(line.record()) + "\n" for line in self.lines), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Append one line, at once on disk."""
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line.record()) + "\n")
            self._file.flush()
        if self._writer is not None:
            self._writer.write(line)

    def also_to(self, writer: Writer) -> None:
        """Give `writer` all lines so far, and each new one. It is closed with this."""
        self._writer = writer
        for line in self.lines:
            writer.write(line)

    def close(self) -> None:
        """Close the file; the lines stay."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()


class Progress:
    """A bar on a terminal, a line every now and then elsewhere."""

    def __init__(self, total: int, done: int, *, show: bool = True):
        """show: False on all hosts but the first."""
        self._total = total
        self._show = show
        self._bar = progress_bar(total, "step", done, show=show)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._show:
            self._bar.write(text)

    def update(self) -> None:
        """Move the bar on by one step."""
        self._bar.update()

    def show(self, line: StepLine) -> None:
        """Print the newest metrics, as a line or beside the bar."""
        self._bar.set_postfix_str(f"loss {line.loss:.3f}, {line.pairs_per_second:.3g} pairs/s")
        if self._bar.disable and self._show:
            mfu = "n/a" if line.mfu is None else f"{line.mfu:.1%}"
            print(
                f"step {line.step}/{self._total}  stage {line.stage}  loss {line.loss:.4f}  lr {line.learning_rate:.2e}  "
                f"scale {line.logit_scale:.1f}  grad {line.grad_norm:.2f}  {line.pairs_per_second:.3g} pairs/s  MFU {mfu}  "
                f"wait {line.data_wait_fraction:.0%}  left {line.seconds_left / 60:.1f} min",
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class Rejects:
    """`rejects.jsonl` of a run folder: each unusable record once, with the reason. What an interrupted run listed stays."""

    def __init__(self, path: Path, known: Sequence[Reject]):
        """Open the list at `path`, and put on it the rejects that are known at the start."""
        self._path = path
        self._seen: set[str] = set()
        self._lock = threading.Lock()  # the loader's threads may meet the same record at once
        before = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        path.write_text("", encoding="utf-8")
        # a killed run may have left half a line
        for reject in [*(Reject(**json.loads(line)) for line in before if line.endswith("}\n")), *known]:
            self.add(reject)

    def add(self, reject: Reject) -> None:
        """List a record, unless one with the same image is listed already."""
        with self._lock:
            if reject.image not in self._seen:
                self._seen.add(reject.image)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(vars(reject)) + "\n")
