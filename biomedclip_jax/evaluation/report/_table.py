"""A table of text, and how numbers of a result stand in its cells."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biomedclip_jax.evaluation.report._groups import Group
from biomedclip_jax.evaluation.report.results import Result

# (task, data set) -> rows of papers: whose, and metrics as fractions
Published = Callable[[str, str], Sequence[tuple[str, Mapping[str, float]]]]
SURE = "Percent, with 95 % intervals."


@dataclass(frozen=True)
class Table:
    """A table of text: head and rows have the same number of cells, and the first of each row names it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def percent(value: float | None) -> str:
    """A fraction in percent; "-" for none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def cell(result: Result, metric: str) -> str:
    """A metric in percent, with the 95 % interval, or why it has none."""
    text = percent(result.metrics.get(metric))
    if text != "-" and metric in result.intervals:
        text += ends(result.intervals[metric])
    elif text != "-" and (reason := result.details.get("no_interval", {}).get(metric)):
        text += f" ({reason})"
    return text


def missing(group: Group) -> list[str]:
    """What of the data is in no number of a group, and what else has to be said of them."""
    found = "; ".join(dict.fromkeys(row.left_out for row in group.rows if row.left_out))
    return [f"Of the data{'' if found.startswith('left out') else ':'} {found}."] if found else []


def ends(interval: Sequence[float]) -> str:
    """An interval of fractions behind its number, " (61.2 to 70.1)", without a line break inside."""
    low, high = interval
    return f" ({100 * low:.1f}\u00a0to\u00a0{100 * high:.1f})"


def side(at: Mapping[str, Any], name: str) -> str:
    """Sensitivity or specificity at a threshold, with its interval, or why it has none."""
    if f"{name}_interval" in at:
        return percent(at[name]) + ends(at[f"{name}_interval"])
    return percent(at.get(name)) + (f" ({at[f'{name}_no_interval']})" if f"{name}_no_interval" in at else "")
