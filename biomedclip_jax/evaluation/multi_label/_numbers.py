"""The numbers of findings: AUROC, average precision, sensitivity and specificity of each, and means over the findings.

A finding that no image has, or all have, has no AUROC: that is said, and it is in no mean.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from biomedclip_jax.data.labelled.multi_label import MultiLabelled, answers_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._bootstrap import FindingSamples, bootstrap_findings, interval
from biomedclip_jax.evaluation._completeness import completeness, total
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._intervals import ALIKE, FEWEST, TOO_FEW
from biomedclip_jax.evaluation._metrics import ranks_of, scored_findings, sklearn_metrics
from biomedclip_jax.evaluation._thresholds import CHOSEN, log_odds_of, sensitivity_specificity
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.multi_label._picture import draw_findings
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.prompts.findings import probabilities_of

MEANS = ("mean_auroc", "mean_average_precision")


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model says of each finding of n images.

    scores: float64 [n, F], higher where the finding is rather there. thresholds: probabilities from which on it counts as
    there, of scores that are log-odds; () for others. chosen: of some findings such a score, chosen on `chosen_on`.
    settings: of the row. without: why some findings have no scores.
    """

    candidate: Candidate
    scores: np.ndarray
    settings: dict[str, Any]
    thresholds: Sequence[float] = ()
    chosen: Mapping[int, float] = field(default_factory=dict)
    chosen_on: str = ""
    without: Mapping[int, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class OfFinding:
    """The numbers of one finding, as fractions; None where there is none, and then `missing` says why.

    n: images that count for it. intervals: of 95 %, by metric. no_interval: why those of AUROC and average precision are
    not given. at: sensitivity and specificity, by threshold, with Wilson's intervals; the one that was chosen on other
    images is there as "chosen", with its probability, "threshold".
    """

    n: int
    positive: int
    auroc: float | None = None
    average_precision: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    no_interval: str = ""
    missing: str = ""
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The object of results.json, without what is empty."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in ("", {}, None)}


def findings_results(
    evaluation: Evaluation, task: str, data: MultiLabelled, kept: np.ndarray, errors: dict[int, str], scored: Sequence[Scored]
) -> list[Result]:
    """A row for each of `scored`, all on the images `kept` of the data. errors: why the others cannot be read.

    Each has a picture in `evaluation.out`. Metrics are `MEANS` over the findings that have them; details: per_finding (see
    `OfFinding`), measured_findings, no_interval, left_out and caveats. Raises UserError where no finding has a number.
    """
    own = data.subset(kept)
    results = []
    for each in scored:
        answers = own.answers.copy()
        answers[:, list(each.without)] = -1
        columns = scored_findings(answers)
        if not columns:
            raise UserError(
                f"{data.name}: none of {len(own.findings)} findings has both images with it and images without it, of "
                f"{len(own):,}; nothing can be measured{_hint(own)}"
            )
        drawn = bootstrap_findings(answers, [each.scores], evaluation.resamples, evaluation.seed)[0]
        numbers = {
            name: _of_finding(own.answers[:, f], each, f, drawn if f in columns else None)
            for f, name in enumerate(own.findings)
        }
        rare = any(numbers[own.findings[f]].no_interval == TOO_FEW for f in columns)
        intervals = {} if rare else {name: interval(values) for name, values in drawn.means.items()}
        alike = [name for name, (low, high) in intervals.items() if low == high]
        about = completeness(dataclasses.replace(data, caveats=(*data.caveats, *own.policy_said)), len(own), errors)
        about["caveats"] = [*about.get("caveats", ()), *each.caveats, *_without_number(numbers)]
        details = about | {
            "per_finding": {name: found.row() for name, found in numbers.items()},
            "measured_findings": [own.findings[f] for f in columns],
            "no_interval": dict.fromkeys(MEANS, TOO_FEW) if rare else dict.fromkeys(alike, ALIKE),
        }
        about_thresholds = {"thresholds_chosen_on": each.chosen_on} if each.chosen else {}
        settings = {"classes": list(own.findings), "uncertain": own.policy.uncertain, "empty": own.policy.empty}
        found = [numbers[own.findings[f]] for f in columns]
        means = np.mean([(n.auroc or 0.0, n.average_precision or 0.0) for n in found], axis=0).tolist()
        results.append(
            Result(
                model=each.candidate.name,
                task=task,
                dataset=evaluation.dataset,
                n=len(own),
                metrics=dict(zip(MEANS, means, strict=True)),
                intervals={name: ends for name, ends in intervals.items() if name not in alike},
                settings=settings
                | each.settings
                | about_thresholds
                | {"resamples": evaluation.resamples, "seed": evaluation.seed},
                details={name: value for name, value in details.items() if value},
                measured=evaluation.measured(each.candidate, answers_fingerprint(own), total(data)),
                outcomes={"answers": answers, "scores": each.scores},
            )
        )
    return [dataclasses.replace(row, pictures=draw_findings(evaluation.out, row)) for row in results]


def _of_finding(answers: np.ndarray, scored: Scored, f: int, drawn: FindingSamples | None) -> OfFinding:
    """The numbers of finding f. answers: int8 [n]. drawn: None where it has no AUROC."""
    known = answers >= 0
    truth, scores = answers[known] == 1, scored.scores[known, f]
    positive = int(truth.sum())
    plain = OfFinding(n=len(truth), positive=positive)
    if f in scored.without:
        return dataclasses.replace(plain, missing=scored.without[f])
    at = {f"{each:g}": sensitivity_specificity(truth, scores, log_odds_of(each)) for each in scored.thresholds}
    if (least := scored.chosen.get(f)) is not None:
        at[CHOSEN] = {"threshold": float(probabilities_of(np.array(least)))} | sensitivity_specificity(truth, scores, least)
    if drawn is None:
        missing = "no label that counts" if not len(truth) else "in no image" if not positive else "in all images"
        return dataclasses.replace(plain, missing=missing, at=at)
    ranked, sklearn = ranks_of(scores), sklearn_metrics()
    samples = {"auroc": drawn.auroc[f], "average_precision": drawn.average_precision[f]}
    few = min(positive, len(truth) - positive) < FEWEST
    intervals = {} if few else {name: interval(values) for name, values in samples.items()}
    different = {name: ends for name, ends in intervals.items() if ends[0] < ends[1]}
    return dataclasses.replace(
        plain,
        auroc=float(sklearn.roc_auc_score(truth, ranked)),
        average_precision=float(sklearn.average_precision_score(truth, ranked)),
        intervals=different,
        no_interval=TOO_FEW if few else ALIKE if len(different) < len(intervals) else "",
        at=at,
    )


def _without_number(numbers: Mapping[str, OfFinding]) -> list[str]:
    """What to say of the findings that are in no mean."""
    reasons: dict[str, list[str]] = {}
    for name, each in numbers.items():
        if each.auroc is None:
            reasons.setdefault(each.missing, []).append(name)
    if not reasons:
        return []
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    count = sum(map(len, reasons.values()))
    return [f"means over {len(numbers) - count} of {len(numbers)} findings, without {told}"]


def _hint(data: MultiLabelled) -> str:
    empty = [said for said in data.policy_said if said.endswith("left out")]
    return f" ({'; '.join(empty)}: see --empty and --uncertain)" if empty else ""
