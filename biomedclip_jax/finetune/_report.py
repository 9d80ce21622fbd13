"""Before and after: the tasks of `biomedclip evaluate` on the held-out pairs and on the forgetting check, side by side."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.report.differences import DIFFERENCES
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.evaluation.run import Options, Task, evaluate
from biomedclip_jax.evaluation.sources import Source
from biomedclip_jax.finetune._judge import JudgedData
from biomedclip_jax.finetune.request import Request

_RECALLS = tuple(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
_MAIN = {"zero-shot": ("balanced_accuracy",), "retrieval": _RECALLS}
_SHOWN = {"zero-shot": ("accuracy", "balanced_accuracy", "auroc"), "retrieval": _RECALLS}
_HELD_OUT, _KEEP = "held_out", "keep"

Interval = Sequence[float]


@dataclass(frozen=True)
class Side:
    """Metrics of one model on one data set, by name, and the 95 % intervals of some. n: images measured."""

    n: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]

    def record(self) -> dict[str, Any]:
        """As `results.json` has it."""
        return {"n": self.n, **self.metrics, "intervals": {name: list(each) for name, each in self.intervals.items()}}


@dataclass(frozen=True)
class Compared:
    """One data set: before, after, and after minus before with its 95 % interval and the share of resamples in favour."""

    data: str
    before: Side
    after: Side
    difference: Mapping[str, Interval]

    @property
    def gain(self) -> float:
        """How much the score (see `_judge`) rose: the mean of what each task says."""
        gains = []
        for names in _MAIN.values():
            if own := [name for name in names if name in self.before.metrics]:
                gains.append(sum(self.after.metrics[name] - self.before.metrics[name] for name in own) / len(own))
        return sum(gains) / len(gains) if gains else 0.0


@dataclass(frozen=True)
class Comparison:
    """The held-out pairs and the forgetting check. tried: what was measured of weights that were then not handed over."""

    held_out: Compared
    keep: Compared | None
    tried: Compared | None = None

    @property
    def gain(self) -> float:
        """How much the score on the held-out pairs rose."""
        return self.held_out.gain

    @property
    def certain(self) -> bool:
        """Whether the 95 % interval of a difference lies above 0."""
        main = [name for names in _MAIN.values() for name in names]
        return any(self.held_out.difference[name][1] > 0 for name in main if name in self.held_out.difference)

    def rejected(self) -> "Comparison":
        """The same where the start is handed over: after is before."""
        same = [
            dataclasses.replace(each, after=each.before, difference={}) if each else None for each in (self.held_out, self.keep)
        ]
        assert same[0] is not None
        return Comparison(same[0], same[1], tried=self.held_out)

    def record(self) -> dict[str, Any]:
        """As `results.json` has it."""
        found: dict[str, Any] = {"before": self.held_out.before.record(), "after": self.held_out.after.record()}
        found["difference"] = {name: list(each) for name, each in self.held_out.difference.items()}
        if self.tried is not None:
            found["not_handed_over"] = self.tried.after.record()
        if self.keep is not None:
            sides = {"before": self.keep.before.record(), "after": self.keep.after.record()}
            change = {name: list(each) for name, each in self.keep.difference.items()}
            found["forgetting_check"] = {"data": self.keep.data, **sides, "difference": change}
        return found


def compare(request: Request, held_out: JudgedData, keep: JudgedData | None, after: Path | None, out: Path) -> Comparison:
    """Evaluate the start and the model in `after`, None where that is the start, and write the report in `out/report`."""
    candidates = [Candidate(request.model, "before")] + ([Candidate(str(after), "after")] if after else [])
    found = _of(request, _HELD_OUT, held_out, candidates, out)
    kept = None if keep is None else _of(request, _KEEP, keep, candidates, out)
    return Comparison(found, kept)


def _of(request: Request, part: str, data: JudgedData, candidates: Sequence[Candidate], out: Path) -> Compared:
    tasks: list[Task] = (["retrieval"] if data.captions else []) + (["zero-shot"] if data.classes else [])  # type: ignore[list-item]
    source = Source(name=part, where=str(out / "data" / f"{part}.jsonl"))
    report = out / "report"
    rows = evaluate(tasks, candidates, [source], _options(request), Embeddings(out / "embeddings"), report)
    sides = [_side([row for row in rows if row.model == each.name]) for each in candidates]
    differences: dict[str, Interval] = {}
    if len(sides) == 2:
        after = {row.id for row in rows if row.model == "after"}
        for each in json.loads((report / DIFFERENCES).read_text(encoding="utf-8")):
            if each["after"] in after:
                differences |= each["metrics"]
    return Compared(request.keep or part if part == _KEEP else part, sides[0], sides[-1], differences)


def _side(rows: Sequence[Result]) -> Side:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for row in rows:
        shown = _SHOWN[row.task]
        metrics |= {name: row.metrics[name] for name in shown if name in row.metrics}
        intervals |= {name: row.intervals[name] for name in shown if name in row.intervals}
    return Side(max(row.n for row in rows), metrics, intervals)


def _options(request: Request) -> Options:
    from biomedclip_jax.evaluation.probe.finetune import FineTune

    return Options(
        aggregate="mean",
        prompts=None,
        approximate=None,
        probes=(),
        finetune=FineTune(),
        learners=(),
        budgets=(),
        seeds=(),
        allow_overlap=False,
        resamples=1_000,
        seed=request.seed,
        command=f"biomedclip finetune {request.model}",
    )


def table(comparison: Comparison) -> list[str]:
    """The table that ends a fine-tuning, line by line: shares in percent, with 95 % intervals."""
    lines = _section(comparison.held_out, f"held out ({comparison.held_out.before.n} pairs)")
    if comparison.tried is not None:
        lines = _section(comparison.tried, f"held out ({comparison.tried.before.n} pairs); AFTER IS NOT HANDED OVER")
    if comparison.keep is not None:
        lines += _section(comparison.keep, f"forgetting check ({comparison.keep.data}, {comparison.keep.before.n} images)")
    return lines


def _section(compared: Compared, title: str) -> list[str]:
    lines = [f"{title:44s} {'before':>20s} {'after':>20s}  {'difference':>22s}"]
    for name, value in compared.before.metrics.items():
        before = _percent(value, compared.before.intervals.get(name))
        after = _percent(compared.after.metrics[name], compared.after.intervals.get(name))
        change = compared.difference.get(name)
        shown = "" if change is None else f"{100 * change[0]:+.1f} [{100 * change[1]:+.1f}, {100 * change[2]:+.1f}]"
        lines.append(f"  {name.replace('_', ' '):42s} {before:>20s} {after:>20s}  {shown:>22s}")
    return lines


def _percent(value: float, interval: Interval | None) -> str:
    return f"{100 * value:.1f}" + ("" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]")
