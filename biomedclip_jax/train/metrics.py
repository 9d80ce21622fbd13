"""What a run writes beside its checkpoints: `metrics.jsonl`, the line on the screen, and `rejects.jsonl`."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.support.terminal import progress_bar
from biomedclip_jax.train.flops import peak_flops


class Clock:
    """Speed since the last reading: pairs a second, MFU, and the share of time spent waiting for data."""

    def __init__(self, flops_per_step: float, pairs_per_step: int):
        self._flops = flops_per_step
        self._pairs = pairs_per_step
        self._restart()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, with the time until each is there."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited += time.perf_counter() - before
            yield batch

    def step_done(self) -> None:
        self._steps += 1

    def read(self) -> dict[str, Any]:
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps = max(self._steps, 1)
        peak = peak_flops()
        speed = {
            "pairs_per_second": round(steps * self._pairs / seconds, 2),
            "mfu": None if peak is None else steps * self._flops / seconds / peak,
            "data_wait_fraction": round(min(self._waited / seconds, 1.0), 4),
            "seconds_per_step": seconds / steps,
        }
        self._restart()
        return speed


class MetricsFile:
    """`metrics.jsonl` of a run folder: one object a line. Lines after `step` (from a run that was cut off) are dropped."""

    def __init__(self, path: Path, step: int, *, write: bool = True):
        """write: False on all hosts but the first, which only keep the lines."""
        self.lines: list[dict[str, Any]] = []
        if path.is_file():
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # the last line of a killed run
                if line["step"] <= step:
                    self.lines.append(line)
        self._file = None
        if write:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, at once on disk."""
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Progress:
    """A bar on a terminal, a line every now and then elsewhere."""

    def __init__(self, total: int, done: int, *, show: bool = True):
        """show: False on all hosts but the first."""
        self._total = total
        self._show = show
        self._bar = progress_bar(total, "step", done, show=show)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._show:
            self._bar.write(text)

    def update(self) -> None:
        """One more step is done."""
        self._bar.update()

    def show(self, line: dict[str, Any]) -> None:
        """The newest metrics."""
        mfu = "n/a" if line["mfu"] is None else f"{line['mfu']:.1%}"
        text = (
            f"loss {line['loss']:.4f}  lr {line['learning_rate']:.2e}  scale {line['logit_scale']:.1f}  "
            f"grad {line['grad_norm']:.2f}  {line['pairs_per_second']:.3g} pairs/s  MFU {mfu}  "
            f"wait {line['data_wait_fraction']:.0%}"
        )
        self._bar.set_postfix_str(f"loss {line['loss']:.3f}, {line['pairs_per_second']:.3g} pairs/s")
        if self._bar.disable and self._show:
            minutes = line["seconds_left"] / 60
            print(f"step {line['step']}/{self._total}  stage {line['stage']}  {text}  left {minutes:.1f} min", flush=True)

    def close(self) -> None:
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
