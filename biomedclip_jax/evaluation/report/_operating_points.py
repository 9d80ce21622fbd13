"""Tables of how sensitive and specific rows of two classes are at stated and chosen thresholds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from biomedclip_jax.evaluation._thresholds import CHOSEN
from biomedclip_jax.evaluation.report._groups import Group, names_apart
from biomedclip_jax.evaluation.report._table import SURE, Table, percent, side
from biomedclip_jax.evaluation.report.results import Result

_SIDES = ("sensitivity", "specificity")


def operating_points(group: Group) -> list[Table]:
    """A table of the rows of a group that have operating points, a line for each threshold of each; none without."""
    named = [f"{row.model}, {row.task}, {row.settings['budget']}" if "runs" in row.details else row.who for row in group.rows]
    names = names_apart(named, group.rows)
    lines: list[tuple[str, ...]] = []
    positive = ""
    for name, row in zip(names, group.rows, strict=True):
        for which, points in _points(row):
            positive = points["positive"]
            for threshold, at in points["at"].items():
                lines.append((f"{name}{which}", _told(threshold, at, points), *(side(at, each) for each in _SIDES)))
            if points["chosen_on"] and CHOSEN not in points["at"]:
                said = f"none on {points['chosen_on']} does better than one answer for all"
                lines.append((f"{name}{which}", said, *(percent(None) for _ in _SIDES)))
    if not lines:
        return []
    note = f"{SURE} Sensitivity is of {positive!r}: images count as it from the stated probability on. 0.5 is where the answer "
    note += "changes; a chosen threshold has the largest sum of both on other images than those that are tested."
    head = ("model", "from which probability on", *_SIDES)
    return [Table(f"Sensitivity and specificity: {group.title}", head, tuple(lines), note)]


def _points(row: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The operating points of a row, or of each of its runs, and what tells a run from the others."""
    if found := row.details.get("operating_points"):
        yield "", found
    runs: Sequence[Mapping[str, Any]] = row.details.get("runs", ())
    for run in runs:
        if found := run.get("operating_points"):
            yield f", seed {run['seed']}" if len(runs) > 1 else "", found


def _told(threshold: str, at: Mapping[str, Any], points: Mapping[str, Any]) -> str:
    return f"{at['threshold']:.3g}, chosen on {points['chosen_on']}" if threshold == CHOSEN else threshold
