"""A tower fine-tuned for several findings: its loss, what chooses, and that no test label does."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny_labels import TinyCandidate
from sklearn.metrics import roc_auc_score

from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._thresholds import log_odds_of, sensitivity_specificity, youden
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.multi_label.learning import FindingsToLearn, FindingTask, Part, learn_findings
from biomedclip_jax.evaluation.probe._head import binary_cross_entropy
from biomedclip_jax.evaluation.probe.finetune import FineTune
from biomedclip_jax.evaluation.probe.finetune_findings import FineTuneFindings
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.prompts.findings import FindingPrompts

FINDINGS = ("red", "green", "blue")
SAYS = FindingPrompts.default(FINDINGS)


class Words(Embeddings):
    """The tiny model has no tokenizer: sentences are random, but always the same."""

    def texts(self, candidate: Any, texts: Any, what: str) -> np.ndarray:
        found = np.random.default_rng(0).normal(size=(len(texts), 16))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def coloured(count: int, seed: int) -> MultiLabelled:
    """Noise in which each of three colours may be strong."""
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=(count, 3)) < 0.4).astype(np.int8)
    noise = rng.integers(0, 150, (count, 16, 16, 3))
    images = [np.minimum(own + 100 * there, 255).astype(np.uint8) for own, there in zip(noise, labels, strict=True)]
    return MultiLabelled("colours", FINDINGS, images, [f"{i}" for i in range(count)], labels, fingerprint([f"{count} {seed}"]))


@pytest.fixture(scope="module")
def candidate() -> TinyCandidate:
    found = TinyCandidate()
    found.adapter = ""
    return found


@pytest.fixture(scope="module")
def method() -> FineTuneFindings:
    return FineTuneFindings(FineTune(search="none", learning_rate=0.02), SAYS)


def learn(out: Path, candidate: TinyCandidate, method: FineTuneFindings, train: MultiLabelled, test: MultiLabelled) -> Result:
    evaluation = Evaluation(candidates=[candidate], dataset="set", embeddings=Words(None), out=out, resamples=50)
    (row,) = learn_findings(evaluation, FindingsToLearn(train, test, "train.csv"), method)
    return row


def test_the_loss_is_the_mean_over_findings_of_what_counts() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    answers = np.array([[1, 0, -1], [0, 1, 1], [-1, -1, -1], [1, 1, 0]])
    weights = np.array([0.5, 0.25, 0.25, 0.0], np.float32)
    p = 1 / (1 + np.exp(-x.astype(np.float64) @ kernel - 0.1))
    each = -np.where(answers == 1, np.log(p), np.log(1 - p))
    expected = sum(w * row[own >= 0].sum() / 3 for w, row, own in zip(weights, each, answers, strict=True))
    linear = {"kernel": jax.numpy.asarray(kernel), "bias": jax.numpy.full(3, 0.1)}
    assert float(binary_cross_entropy(linear, *map(jax.numpy.asarray, (x, answers, weights)))) == pytest.approx(
        expected, rel=1e-5
    )


def test_it_learns_and_no_test_label_takes_part(candidate: TinyCandidate, method: FineTuneFindings, tmp_path: Path) -> None:
    train, test = coloured(100, 0), coloured(60, 1)
    row = learn(tmp_path, candidate, method, train, test)
    assert row.task == "multi-label-finetune" and row.metrics["mean_auroc"] > 0.85 and row.who == "tiny, finetune, 100 %"
    assert row.settings["validation"] == 20 and row.settings["validation_mean_auroc"] > 0.8
    assert row.settings["begun_from"]["negative_prompts"][0] == ["no red"]
    own, scores = row.details["per_finding"]["green"], row.outcomes["scores"][:, 1]
    assert own["auroc"] == pytest.approx(roc_auc_score(test.labels[:, 1], scores))
    at = own["at"]["chosen"]
    expected = sensitivity_specificity(test.labels[:, 1] == 1, scores, log_odds_of(at["threshold"]))
    assert at == {"threshold": at["threshold"]} | expected and own["at"].keys() == {"0.5", "chosen"}
    assert row.settings["thresholds_chosen_on"] == "the 20 training images that were not trained on"

    other = dataclasses.replace(test, labels=1 - test.labels)
    again = learn(tmp_path, candidate, method, train, other)
    np.testing.assert_array_equal(again.outcomes["scores"], row.outcomes["scores"])
    assert again.settings["epochs"] == row.settings["epochs"]
    assert again.details["per_finding"]["green"]["at"]["chosen"]["threshold"] == at["threshold"]


def test_what_cannot_be_learned_or_chosen(candidate: TinyCandidate, method: FineTuneFindings, tmp_path: Path) -> None:
    train, test = coloured(100, 0), coloured(60, 1)
    labels = train.labels.copy()
    labels[:, 1] = 0
    row = learn(tmp_path, candidate, method, dataclasses.replace(train, labels=labels), test)
    assert row.details["per_finding"]["green"]["missing"] == "no image with it to learn from"
    assert row.details["measured_findings"] == ["red", "blue"]
    with pytest.raises(UserError, match="of 3 training images 1 validate, and of no finding they have images with it and"):
        learn(tmp_path, candidate, method, coloured(3, 2), test)
    wild = FineTuneFindings(FineTune(search="none", learning_rate=1e6, weight_decay=1e6), SAYS)
    with pytest.raises(UserError, match="tiny diverged with learning rate"):
        learn(tmp_path, candidate, wild, train, test)


def test_groups_validate_whole(candidate: TinyCandidate) -> None:
    data = dataclasses.replace(coloured(40, 0), groups=tuple(f"p{i % 7}" for i in range(40)))
    task = FindingTask(candidate, Embeddings(None), Part(data, np.zeros((40, 2))), Part(data, np.zeros((40, 2))), 0)
    kinds = {(group, bool(own)) for group, own in zip(data.groups or (), task.validates(), strict=True)}
    assert len(kinds) == 7 and 8 <= task.validates().sum() < 14


def test_the_chosen_threshold() -> None:
    rng = np.random.default_rng(0)
    scores, truth = np.round(rng.normal(size=200), 1), rng.uniform(size=200) < 0.4
    scores[truth] += 1
    chosen = youden(truth, scores)
    assert chosen is not None

    def index(threshold: float) -> float:
        found = sensitivity_specificity(truth, scores, threshold)
        return found["sensitivity"] + found["specificity"]

    tried = [index(each) for each in np.linspace(scores.min() - 1, scores.max() + 1, 2_000)]
    assert index(chosen) == pytest.approx(max(tried)) and chosen not in scores
    assert youden(np.ones(3, bool), np.arange(3.0)) is None and youden(np.array([True, False]), np.array([0.0, 1.0])) is None
