"""Learning findings from labels: of each its own logistic regression on frozen features, CLIP's linear probe.

That is a linear layer with a sigmoid for each finding, fitted by binary cross-entropy, with a regularisation of its
own for each: the best on the images that validate, a fifth of those learned from. A label that does not count is left
out of its finding's regression alone.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from biomedclip_jax.data.labelled.multi_label import MultiLabelled, answers_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation, check_finite
from biomedclip_jax.evaluation._metrics import ranks_of, sklearn_metrics
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.multi_label._numbers import THRESHOLDS, Scored, findings_results
from biomedclip_jax.evaluation.probe.logistic_regression import best_strength, fit_predict, quietly
from biomedclip_jax.evaluation.probe.sampling import VALIDATION, Budget
from biomedclip_jax.evaluation.report.results import MULTI_LABEL_PROBE, Result
from biomedclip_jax.support.terminal import progress_bar

METHOD = "logistic-regression"
_USUAL = 1.0  # the strength C where the validating images cannot choose one


@dataclass(frozen=True, eq=False)
class FindingsProbe:
    """Images to learn findings from and images to be tested on, with the same findings in the same order.

    where: the former, as the user named them. budgets: shares of them. seeds: a draw of each share that is not the whole,
    and of the images that validate.
    """

    train: MultiLabelled
    test: MultiLabelled
    where: str
    budgets: Sequence[Budget] = (Budget(fraction=1.0),)
    seeds: Sequence[int] = (0,)

    def check(self) -> None:
        """UserError for budgets that are shots, and for findings that differ."""
        for budget in self.budgets:
            if budget.fraction is None:
                raise UserError(f"--labels {budget.shots}: images with several findings have no shots; expected 10% or 100%")
        if self.train.findings != self.test.findings:
            raise UserError(
                f"{self.train.name} has the findings {', '.join(self.train.findings)}, {self.test.name} has "
                f"{', '.join(self.test.findings)}; expected the same ones in the same order"
            )

    def draws(self, count: int) -> Iterator[tuple[Budget, int, np.ndarray]]:
        """(budget, seed, positions among `count` training images) of each row, the positions shuffled."""
        for budget in self.budgets:
            share = budget.fraction or 1.0
            for seed in self.seeds[:1] if share == 1 else self.seeds:
                order = np.random.default_rng(seed).permutation(count)
                yield budget, seed, order[: int(np.ceil(np.round(count * share, 6)))]


@dataclass(frozen=True)
class _Learned:
    """The test images' log-odds of one finding; or why it could not be learned."""

    log_odds: np.ndarray | None
    strength: float = 0.0
    missing: str = ""
    chosen: bool = True


def probe_findings(evaluation: Evaluation, data: FindingsProbe, thresholds: Sequence[float] = THRESHOLDS) -> list[Result]:
    """A result for each candidate, budget and seed, with the numbers of `findings_results`.

    Raises UserError as of `FindingsProbe.check`, where no finding can be learned, and where an embedding is not finite.
    """
    sklearn_metrics()  # before hours of work
    data.check()
    tested, errors = evaluation.embed(data.test.images, data.test.fingerprint)
    kept = np.setdiff1d(np.arange(len(data.test)), list(errors))
    if not len(kept):
        raise UserError(f"{evaluation.dataset}: no image can be read by all of the models")
    learned_from, unread = evaluation.embed(data.train.images, data.train.fingerprint)
    readable = np.setdiff1d(np.arange(len(data.train)), list(unread))
    train = data.train.subset(readable)
    about = {"train": data.where, "train_fingerprint": answers_fingerprint(train), "method": METHOD}
    caveats = _caveats(data.train, len(unread), train)
    results: list[Result] = []
    for number, candidate in enumerate(evaluation.candidates):
        test = tested[number].features[np.isin(tested[number].kept, kept)]
        features = learned_from[number].features[np.isin(learned_from[number].kept, readable)]
        check_finite(candidate, test, [data.test.names[int(i)] for i in kept])
        check_finite(candidate, features, train.names)
        scored = []
        for budget, seed, drawn in data.draws(len(train)):
            found = _learn(candidate, features[drawn], train.answers[drawn], test)
            settings = about | {"budget": str(budget), "labels": len(drawn), "seeds": [seed], "thresholds": list(thresholds)}
            scored.append(_scored(candidate, data, found, settings, thresholds, caveats))
        results += findings_results(evaluation, MULTI_LABEL_PROBE, data.test, kept, errors, scored)
    return results


def _learn(candidate: Candidate, features: np.ndarray, answers: np.ndarray, test: np.ndarray) -> list[_Learned]:
    """What is learned of each finding from features [m, E] and answers [m, F]; the first fifth of them validates."""
    given, tested = features.astype(np.float64), test.astype(np.float64)
    with quietly(), progress_bar(answers.shape[1], f"finding ({candidate.name})") as bar, ThreadPoolExecutor() as pool:
        found = []
        for each in pool.map(lambda own: _learn_one(given, own, tested), answers.T):
            found.append(each)
            bar.update(1)
    return found


def _learn_one(features: np.ndarray, answers: np.ndarray, test: np.ndarray) -> _Learned:
    known = answers >= 0
    features, truth = features[known], answers[known].astype(np.int64)
    if len(np.unique(truth)) < 2:
        missing = "no label" if not len(truth) else "no image with it" if not truth.any() else "no image without it"
        return _Learned(None, missing=f"{missing} to learn from")
    split = int(np.ceil(VALIDATION * len(truth)))
    strength, chosen = _USUAL, False
    if len(np.unique(truth[:split])) == len(np.unique(truth[split:])) == 2:

        def area(strengths: Sequence[float]) -> np.ndarray:
            rows = (fit_predict(features[split:], truth[split:], features[:split], c, 2)[:, 1] for c in strengths)
            return np.array([sklearn_metrics().roc_auc_score(truth[:split], ranks_of(own)) for own in rows])

        strength, chosen = best_strength(area).weight_decay, True
    return _Learned(fit_predict(features, truth, test, strength, 2)[:, 1], strength, chosen=chosen)


def _scored(
    candidate: Candidate,
    data: FindingsProbe,
    found: Sequence[_Learned],
    settings: dict[str, Any],
    thresholds: Sequence[float],
    caveats: Sequence[str],
) -> Scored:
    missing = {f: each.missing for f, each in enumerate(found) if each.log_odds is None}
    nothing = np.zeros(next((len(each.log_odds) for each in found if each.log_odds is not None), 0))
    if len(missing) == len(found):
        raise UserError(f"{data.train.name}: no finding can be learned: {next(iter(missing.values()))}")
    columns = [nothing if each.log_odds is None else each.log_odds for each in found]
    names = data.train.findings
    strengths = {name: each.strength for name, each in zip(names, found, strict=True) if each.log_odds is not None}
    unsure = [name for name, each in zip(names, found, strict=True) if each.log_odds is not None and not each.chosen]
    said = [f"too few images to choose C of {', '.join(unsure)}: it is {_USUAL:g}"] if unsure else []
    return Scored(candidate, np.stack(columns, axis=1), settings | {"C": strengths}, thresholds, missing, (*caveats, *said))


def _caveats(train: MultiLabelled, unread: int, kept: MultiLabelled) -> list[str]:
    """What has to be said of the images to learn from."""
    left = len(train.rejects) + unread
    missing = [f"{left:,} of {len(train) + len(train.rejects):,} left out"] if left else []
    if train.whole is not None and train.whole != len(kept):
        missing.append(f"{len(kept):,} of the benchmark's {train.whole:,}")
    return [f"of the training images: {each}" for each in (*missing, *train.caveats, *kept.policy_said)]
