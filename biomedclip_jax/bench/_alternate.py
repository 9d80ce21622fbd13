"""The sides of a comparison, each a process, alternate; what a process does is timed inside it.

A side's module calls `serve` with a function that builds its work. One line of JSON goes each way: the task and
what was built; then for each turn an empty line and its times. On CPU both processes stay, and sleep while the
other works, so that a slow minute of the machine meets both. An accelerator's memory is not shared out: there each
turn is a process of its own.
"""

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import biomedclip_jax
from biomedclip_jax.bench.task import Task
from biomedclip_jax.errors import UserError

_WARM_UPS = 2  # the second call may still allocate

Record = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Counted:
    """What our side knows of its compiled programs.

    temporary_bytes: of each call, on a device. captions: (rows, tokens) of the text buckets, () where they are padded.
    flops_per_pair: of what is computed, padded_flops_per_pair: if captions were padded. peak_flops: of all devices
    together, in bfloat16; None on an unknown chip and in float32.
    """

    temporary_bytes: dict[str, int]
    captions: list[list[int]]
    flops_per_pair: float
    padded_flops_per_pair: float
    peak_flops: float | None


@dataclass(frozen=True)
class Facts:
    """What a side says of itself once its work is built. compile_seconds: by call. notes: by call, how it is compiled."""

    platform: str
    devices: str
    versions: dict[str, str]
    parameters: int
    compile_seconds: dict[str, float]
    notes: dict[str, str] | None = None
    counted: Counted | None = None

    def record(self) -> Record:
        """The facts as JSON: those that a side does not have are left out, and `counted` is not nested."""
        record = {name: value for name, value in vars(self).items() if name != "counted" and value is not None}
        return record | (vars(self.counted) if self.counted is not None else {})

    @staticmethod
    def of(record: Record) -> "Facts":
        """The facts that `record` wrote."""
        names = [field.name for field in dataclasses.fields(Counted)]
        counted = {name: record[name] for name in names if name in record}
        own = {name: value for name, value in record.items() if name not in names}
        return Facts(**own, counted=Counted(**counted) if counted else None)


@dataclass(frozen=True)
class Times:
    """What a side measured in a turn: of each timed call its seconds, by the clock and of processors; memory used at most."""

    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, list[float]]
    peak_bytes: int


@dataclass(frozen=True)
class Work:
    """What a side has built. calls: each does its work once and waits for it. peak_bytes: the most memory used so far."""

    facts: Facts
    calls: dict[str, Callable[[], None]]
    peak_bytes: Callable[[], int]


def resident_peak() -> int:
    """Most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(build: Callable[[Task], Work]) -> None:
    """The life of a side's process. What libraries print on stdout goes to stderr: stdout is the parent's."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(reply: Record) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    task = Task.from_json(sys.stdin.readline())
    try:
        work = build(task)
    except UserError as error:
        answer({"error": str(error)})
        return
    for call in work.calls.values():
        for _ in range(_WARM_UPS):
            call()
    answer(work.facts.record())
    for _ in sys.stdin:
        times = {name: [_timed(call) for _ in range(task.repeats)] for name, call in work.calls.items()}
        seconds = {name: [wall for wall, _ in both] for name, both in times.items()}
        cpu_seconds = {name: [cpu for _, cpu in both] for name, both in times.items()}
        answer(vars(Times(seconds, cpu_seconds, work.peak_bytes())))


def _timed(call: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock, and of all threads and finished child processes together on the processors."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    call()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


@dataclass(frozen=True)
class Side:
    """A name, and the module that serves."""

    name: str
    module: str


OURS = Side("biomedclip_jax", "biomedclip_jax.bench.ours")
OPEN_CLIP = Side("open_clip", "biomedclip_jax.bench._open_clip")


class _Process:
    def __init__(self, side: Side, task: Task, environment: Mapping[str, str]):
        root = str(Path(biomedclip_jax.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._side = side
        self._child = subprocess.Popen(
            [sys.executable, "-m", side.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | dict(environment),
        )
        try:
            self.facts = Facts.of(self._ask(task.to_json()))
        except BaseException:
            self.close()
            raise

    def times(self) -> Times:
        """Let the side do its work for a turn."""
        return Times(**self._ask(""))

    def _ask(self, line: str) -> Record:
        """The answer to a line. UserError with the side's own message, or when its process has ended."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; the empty answer says so
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        text = self._child.stdout.readline()
        if not text:
            code = self._child.wait()
            raise UserError(f"{self._side.name}: its process ended with code {code} (above: why; -9: out of memory)")
        reply: Record = json.loads(text)
        if "error" in reply:
            raise UserError(f"{self._side.name}: {reply['error']}")
        return reply

    def close(self) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.kill()
        self._child.wait()
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.stdout.close()


def alternate(
    sides: tuple[Side, ...], task: Task, turns: int | None, environment: Mapping[str, str]
) -> Iterator[tuple[Side, Facts, Times]]:
    """(side, what it built, times) after each turn. turns: of each side; None: 3 on CPU, 2 on an accelerator."""
    staying: dict[Side, _Process] = {}
    try:
        done = 0
        while done < (turns or 2):
            for side in sides:
                process = staying.pop(side, None) or _Process(side, task, environment)
                staying[side] = process
                yield side, process.facts, process.times()
                if process.facts.platform == "cpu":
                    turns = turns or 3
                else:
                    staying.pop(side).close()
            done += 1
    finally:
        for process in staying.values():
            process.close()
