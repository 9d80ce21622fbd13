"""Findings learned from labels: each its own regression, what does not count left out, what cannot be learned said."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.multi_label.test_zero_shot import FINDINGS, SAYS, coloured, evaluation
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.multi_label.learning import FindingsToLearn, learn_findings
from biomedclip_jax.evaluation.multi_label.probe import FindingsProbe
from biomedclip_jax.evaluation.multi_label.zero_shot import zero_shot_findings
from biomedclip_jax.evaluation.probe.sampling import Budget
from biomedclip_jax.evaluation.report.tables import markdown, tables


def probe(**options: Any) -> FindingsToLearn:
    return FindingsToLearn(coloured(200, seed=1), coloured(), "train.csv", **options)


def features(data: Any) -> np.ndarray:
    return np.stack([np.asarray(image)[0, 0] for image in data.images]).astype(np.float64)


def test_each_finding_is_a_logistic_regression(tmp_path: Path) -> None:
    data = probe()
    (row,) = learn_findings(evaluation(tmp_path), data, FindingsProbe())
    assert row.task == "multi-label-probe" and row.settings["labels"] == 200 and row.settings["budget"] == "100 %"
    order = np.random.default_rng(0).permutation(200)
    for f, name in enumerate(FINDINGS):
        model = LogisticRegression(C=row.settings["C"][name], max_iter=1_000)
        model.fit(features(data.train)[order], data.train.labels[order, f])
        odds = model.decision_function(features(data.test))
        assert row.outcomes["scores"][:, f] == pytest.approx(odds, abs=1e-6)
        own = row.details["per_finding"][name]
        assert own["auroc"] == pytest.approx(roc_auc_score(data.test.labels[:, f], odds)) and own["auroc"] > 0.7
        assert {"sensitivity", "specificity"} < own["at"]["0.5"].keys() and own["intervals"].keys() == {
            "auroc",
            "average_precision",
        }
    assert row.settings["method"] == "logistic-regression" and row.settings["train"] == "train.csv"


def test_labels_that_do_not_count_are_not_learned_from(tmp_path: Path) -> None:
    data = probe()
    labels = data.train.labels.copy()
    labels[:100, 0] = -1
    some = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
    # what the others say does not matter: random labels in their place are the same as none
    (row,) = learn_findings(evaluation(tmp_path), some, FindingsProbe())
    (whole,) = learn_findings(evaluation(tmp_path), data, FindingsProbe())
    assert row.outcomes["scores"][:, 1:] == pytest.approx(whole.outcomes["scores"][:, 1:])
    assert np.abs(row.outcomes["scores"][:, 0] - whole.outcomes["scores"][:, 0]).max() > 1e-3
    assert row.details["caveats"] == ["of the training images: 100 of 600 are uncertain labels, left out"]
    assert row.id != whole.id, "learned from other labels"


def test_what_cannot_be_learned_is_said(tmp_path: Path) -> None:
    data = probe()
    labels = data.train.labels.copy()
    labels[:, 1] = 0
    some = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
    (row,) = learn_findings(evaluation(tmp_path), some, FindingsProbe())
    assert row.details["per_finding"]["green"]["missing"] == "no image with it to learn from"
    assert "auroc" not in row.details["per_finding"]["green"] and row.details["measured_findings"] == ["red", "blue"]
    labels[:] = 1
    with pytest.raises(UserError, match="no finding can be learned: no image without it to learn from"):
        learn_findings(
            evaluation(tmp_path),
            dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels)),
            FindingsProbe(),
        )


def test_shares_and_seeds(tmp_path: Path) -> None:
    data = probe(budgets=(Budget(fraction=0.1), Budget(fraction=1.0)), seeds=(0, 1))
    rows = learn_findings(evaluation(tmp_path), data, FindingsProbe())
    assert [(row.settings["budget"], row.settings["labels"], row.settings["seeds"]) for row in rows] == [
        ("10 %", 20, [0]),
        ("10 %", 20, [1]),
        ("100 %", 200, [0]),
    ]
    rows += zero_shot_findings(evaluation(tmp_path), data.test, SAYS)
    text = markdown(tables(rows, lambda *_: []))
    assert text.count("## Several findings: set") == 1, "what is learned stands beside what is asked"
    for name in ("eye, logistic-regression, 10 % (seeds 1)", "eye, logistic-regression, 100 %", "eye, cosine alone"):
        assert f"| {name} | 3 of 3 |" in text
    with pytest.raises(UserError, match="--labels 5: images with several findings have no shots"):
        learn_findings(evaluation(tmp_path), probe(budgets=(Budget(shots=5),)), FindingsProbe())


def test_too_few_to_choose(tmp_path: Path) -> None:
    data = probe(budgets=(Budget(fraction=0.02),))
    (row,) = learn_findings(evaluation(tmp_path), data, FindingsProbe())
    assert any(each.startswith("too few images to choose C of ") for each in row.details["caveats"])


def test_other_findings(tmp_path: Path) -> None:
    data = probe()
    train = dataclasses.replace(data.train, findings=("a", "b", "c"))
    with pytest.raises(UserError, match="has the findings a, b, c, colours has red, green, blue"):
        learn_findings(evaluation(tmp_path), dataclasses.replace(data, train=train), FindingsProbe())
