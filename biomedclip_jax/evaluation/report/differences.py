"""Whether two rows differ by more than chance: every pair of rows on the same images, on the same resamples of these.

A difference is the later row minus the earlier one, or the adapted minus its base. It is kept in `differences.json`
with the ids of both rows, and made anew when one of the two has been measured again.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from biomedclip_jax.evaluation._bootstrap import Samples, bootstrap, bootstrap_findings, bootstrap_ranks, differences
from biomedclip_jax.evaluation.report._groups import kind_of, may_be_compared, same_data
from biomedclip_jax.evaluation.report.results import Result, read_outcomes
from biomedclip_jax.evaluation.vqa.scores import Outcome
from biomedclip_jax.evaluation.vqa.scores import samples as answer_samples
from biomedclip_jax.files import write_text

DIFFERENCES = "differences.json"


@dataclass(frozen=True)
class Difference:
    """`after` minus `before`, both rows by `Result.id`.

    metrics: metric -> [difference, low and high end of its 95 % interval, share of resamples in which `after` is better].
    """

    after: str
    before: str
    metrics: Mapping[str, Sequence[float]]


def paired(folder: Path, results: Sequence[Result], changed: Sequence[Result], resamples: int, seed: int) -> list[Difference]:
    """The difference of each pair of rows that can be compared; those of pairs without a changed row are read, not made.

    folder: that of `results.json`. resamples, seed: of the bootstrap.
    """
    known = {(each.after, each.before): each for each in _read(folder)}
    new = {row.id for row in changed}
    groups: dict[str, list[Result]] = {}
    for row in results:
        if row.measured is not None and kind_of(row) in ("retrieval", "zero-shot", "multi-label", "vqa"):
            groups.setdefault(same_data(row), []).append(row)
    found = []
    for rows in groups.values():
        samples: dict[str, Samples | None] = {}
        for first, second in combinations(rows, 2):
            if not may_be_compared(first, second):
                continue
            after, before = (first, second) if _adapted(first, second) else (second, first)
            old = known.get((after.id, before.id))
            if old is not None and not new & {after.id, before.id} and _is_of(old, after, before):
                found.append(old)
                continue
            both = []
            for row in (after, before):
                if row.id not in samples:
                    samples[row.id] = _samples(folder, row, resamples, seed)
                both.append(samples[row.id])
            if both[0] is not None and both[1] is not None:
                metrics = differences(both[0], both[1], after.metrics, before.metrics)
                found.append(Difference(after.id, before.id, metrics))
    return found


def write_differences(folder: Path, found: Sequence[Difference], results: Sequence[Result]) -> None:
    """Write `differences.json` into `folder`: for each pair also what both rows are, for those who read it alone."""
    rows = {row.id: row for row in results}
    told = []
    for each in found:
        after, before = rows[each.after], rows[each.before]
        about = {"task": after.task, "dataset": after.dataset, "n": after.n}
        told.append(about | {"after_model": after.who, "before_model": before.who} | dataclasses.asdict(each))
    write_text(folder / DIFFERENCES, json.dumps(told, indent=2) + "\n")


def _read(folder: Path) -> list[Difference]:
    """Those of an earlier evaluation; none where the file cannot be read: they are made again then."""
    try:
        rows = json.loads((folder / DIFFERENCES).read_text(encoding="utf-8"))
        return [Difference(row["after"], row["before"], dict(row["metrics"])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _is_of(known: Difference, after: Result, before: Result) -> bool:
    """Whether a kept difference is that of the two rows as they are: an evaluation may have ended before it was made."""
    return all(value[0] == after.metrics[name] - before.metrics[name] for name, value in known.metrics.items())


def _adapted(row: Result, other: Result) -> bool:
    """Whether the row is of the other's model with an adapter, or with prompts that were learned for it."""
    own, base = row.measured, other.measured
    if own is None or base is None:
        return False
    if own.model_fingerprint == base.model_fingerprint:
        return row.settings.get("prompts") == "learned" and other.settings.get("prompts") != "learned"
    return own.model == base.model and own.adapter != "" and base.adapter == ""


def _samples(folder: Path, row: Result, resamples: int, seed: int) -> Samples | None:
    """The metrics of a row on each resample; None where what happened to each image was not kept."""
    outcomes = read_outcomes(folder, row)
    if outcomes is None:
        return None
    if "labels" in outcomes:
        return bootstrap(outcomes["labels"], [outcomes["logits"]], resamples, seed, outcomes.get("groups"))[0]
    if "answers" in outcomes:
        return bootstrap_findings(outcomes["answers"], [outcomes["scores"]], resamples, seed)[0].means
    if "right" in outcomes:
        return answer_samples(Outcome.of_arrays(outcomes), resamples, seed)
    return bootstrap_ranks(outcomes, resamples, seed)
