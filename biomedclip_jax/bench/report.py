"""The bench from its flags to its table: times of each side, their ratios, memory and compile times."""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedclip_jax.bench._alternate import OPEN_CLIP, OURS, Counted, Facts, Side, Times, alternate
from biomedclip_jax.bench._machine import measured_on
from biomedclip_jax.bench.task import Task, check_possible
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_text

_GIB = 2**30


@dataclasses.dataclass
class Result:
    """What a side said of its work, and what it measured in each turn."""

    facts: Facts
    turns: list[Times] = dataclasses.field(default_factory=list)

    def seconds(self, what: str) -> list[float]:
        """Seconds of every timed call of one kind."""
        return [value for turn in self.turns for value in turn.seconds.get(what, [])]

    def cpu_seconds(self, what: str) -> list[float]:
        """Processor seconds of every timed call of one kind."""
        return [value for turn in self.turns for value in turn.cpu_seconds.get(what, [])]

    @property
    def peak_bytes(self) -> int:
        """The most memory that the side has used."""
        return max(turn.peak_bytes for turn in self.turns)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The timed calls of one kind together: seconds, pairs a second, and the step's MFU (None on an unknown chip)."""

    median: float
    low: float
    high: float
    cpu_seconds: float
    pairs_per_second: float
    mfu: float | None


@dataclasses.dataclass(frozen=True)
class Ratios:
    """Our time by theirs, turn by turn (median of its calls): the median of these, the least, the most, by processor time."""

    median: float
    low: float
    high: float
    cpu: float


def bench(task: Task, *, against: bool, turns: int | None, json_file: Path | None) -> None:
    """Time the task on our side and, with `against`, on open_clip's, in alternating turns; print what came out.

    turns: of each side, by default 3 on CPU and 2 elsewhere. json_file: gets every single time. UserError for a missing
    folder or package.
    """
    check_possible(json_file, ("torch", "open_clip") if against else ())
    results: dict[Side, Result] = {}
    with tempfile.TemporaryDirectory() as folder:
        # empty caches, or the compile times would be those of reading them; kept between turns
        environment = {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch",
        }
        if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # an accelerator is one process's alone
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.92"
        if against:
            environment["CUDA_VISIBLE_DEVICES"] = "0"
        sides = (OURS, OPEN_CLIP) if against else (OURS,)
        for side, facts, times in alternate(sides, task, turns, environment):
            results.setdefault(side, Result(facts)).turns.append(times)
            shown = "  ".join(f"{name} {_time(statistics.median(v))}" for name, v in times.seconds.items())
            print(f"turn {len(results[side].turns)}  {side.name:14s}  {shown}", file=sys.stderr, flush=True)
    sizes = {result.facts.parameters for result in results.values()}
    if len(sizes) > 1:
        raise UserError(f"the sides' models differ: {' and '.join(f'{n:,}' for n in sizes)} parameters")
    print("\n".join(describe(task, results)))
    if task.profile is not None:
        from biomedclip_jax.train.profile import FOLDER, how_to_look

        print(f"profile of {task.profile} calls of each kind: {how_to_look(Path(FOLDER))}")
    if json_file is not None:
        write_text(json_file, json.dumps(as_json(task, results), indent=1) + "\n")


def as_json(task: Task, results: dict[Side, Result]) -> dict[str, Any]:
    """The task, and for each side its facts, every time, and the summary."""
    summary = {side.name: {what: vars(summarise(task, results, side, what)) for what in task.what} for side in results}
    raw = {
        side.name: {"facts": r.facts.record(), "turns": [vars(turn) for turn in r.turns], "peak_bytes": r.peak_bytes}
        for side, r in results.items()
    }
    return {"task": json.loads(task.to_json()) | {"config": json.loads(json.loads(task.to_json())["config"])}} | {
        "sides": raw,
        "summary": summary,
        "ratios": {what: vars(ratios(results, what)) for what in task.what} if len(results) > 1 else {},
    }


def summarise(task: Task, results: dict[Side, Result], side: Side, what: Any) -> Summary:
    """The summary of one side's calls of one kind, over all turns."""
    seconds, cpu_seconds = results[side].seconds(what), results[side].cpu_seconds(what)
    median = statistics.median(seconds)
    speed = task.pairs(what) / median
    counted = _counted(results)
    flops = counted.flops_per_pair if side is OURS else counted.padded_flops_per_pair
    mfu = None if what != "step" or counted.peak_flops is None else speed * flops / counted.peak_flops
    return Summary(median, min(seconds), max(seconds), statistics.median(cpu_seconds), speed, mfu)


def _counted(results: dict[Side, Result]) -> Counted:
    counted = results[OURS].facts.counted
    assert counted is not None, "our side always counts"
    return counted


def ratios(results: dict[Side, Result], what: str) -> Ratios:
    """How our time compares with open_clip's."""
    turns = list(zip(results[OURS].turns, results[OPEN_CLIP].turns, strict=True))
    wall = [_ratio(ours.seconds[what], theirs.seconds[what]) for ours, theirs in turns]
    cpu = [_ratio(ours.cpu_seconds[what], theirs.cpu_seconds[what]) for ours, theirs in turns]
    return Ratios(statistics.median(wall), min(wall), max(wall), statistics.median(cpu))


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(ours) / max(statistics.median(theirs), 1e-9)


def _time(seconds: float) -> str:
    return f"{seconds:7.2f} s" if seconds >= 1 else f"{1e3 * seconds:6.4g} ms"


def describe(task: Task, results: dict[Side, Result]) -> Sequence[str]:
    """The lines of the report."""
    stage, model = task.stage, task.config.model
    facts, counted = results[OURS].facts, _counted(results)
    microbatch = f" in microbatches of {stage.microbatch:,}" if stage.microbatch else ""
    lines = [
        f"{task.config.name}: {facts.parameters:,} parameters, {stage.batch_size:,} pairs{microbatch}, "
        f"{task.image_size} px, patch keep {stage.patch_keep:g}, {model.text.context_length} tokens ({task.lengths} captions), "
        f"{task.config.compute.dtype}, remat {task.config.compute.remat}",
        f"  {measured_on()}",
    ]
    for side, result in results.items():
        versions = ", ".join(f"{name} {number}" for name, number in result.facts.versions.items())
        lines.append(f"  {side.name:14s}  {result.facts.devices}; {versions}")
        lines += [f"  {'':14s}  {name}: {note}" for name, note in (result.facts.notes or {}).items()]
    if counted.captions:
        shape = ", ".join(f"{rows} x {length}" for rows, length in counted.captions)
        lines.append(f"  captions of {OURS.name} on a device: {shape} tokens; others pad")
    lines.append("")
    lines.append(f"{'':23s} {'median':>9s} {'least':>9s} {'most':>9s} {'CPU time':>9s}  {'pairs/s':>9s}  {'MFU':>6s}")
    for what in task.what:
        for side in results:
            row = summarise(task, results, side, what)
            mfu = "n/a" if row.mfu is None else f"{row.mfu:.1%}"
            lines.append(
                f"{what:8s} {side.name:14s} {_time(row.median)} {_time(row.low)} {_time(row.high)} "
                f"{_time(row.cpu_seconds)}  {row.pairs_per_second:9.4g}  {mfu:>6s}"
            )
        if len(results) > 1:
            r = ratios(results, what)
            lines.append(
                f"{what:8s} {'ratio':14s} {r.median:.3g} x of open_clip's time, {r.low:.3g} to {r.high:.3g} by turn "
                f"({r.cpu:.3g} of its CPU time): {1 / r.median:.3g} x its pairs/s"
            )
    lines.append("")
    for side, result in results.items():
        compiling = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.facts.compile_seconds.items())
        lines.append(
            f"{side.name}: peak memory {result.peak_bytes / _GIB:.2f} GiB; compiling and first call: {compiling or 'nothing'}"
        )
    for name, size in counted.temporary_bytes.items():
        lines.append(f"{OURS.name}: {name}'s temporaries {size / _GIB:.3f} GiB a device")
    lines.append("MFU: 3 x the forward pass, less where a tower is frozen, at the lengths computed, by the bfloat16 peak")
    return lines
