"""Metrics against scikit-learn's own, to the last digit, and the edges where it warns or gives up."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.special import logsumexp

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._metrics import (
    BINS,
    Calibration,
    classification_metrics,
    confusion_counts,
    log_odds,
    majority_metrics,
    metrics_per_class,
    ranks,
    softmax,
)


def answers(n: int, classes: int, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels, most of them of the first class, and probabilities that know something of them; ties: only a few values."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, n) - 1, classes - 1)
    scores = 1.5 * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    scores = np.round(scores) if ties else scores
    powers = np.exp(scores)
    return labels, powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_as_scikit_learn_says(classes: int, ties: bool) -> None:
    labels, probabilities = answers(300, classes, ties=ties)
    predicted = probabilities.argmax(axis=1)
    found = classification_metrics(labels, np.log(probabilities))
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
    }
    exact = np.round(probabilities, 12)  # equal scores are equal, whatever a sum's last digit
    if classes == 2:
        expected["auroc"] = sk.roc_auc_score(labels, exact[:, 1])
        expected["average_precision"] = sk.average_precision_score(labels, exact[:, 1])
    else:
        each = [(labels == c, exact[:, c]) for c in range(classes)]
        expected["auroc"] = np.mean([sk.roc_auc_score(*side) for side in each])
        assert ties or expected["auroc"] == sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        expected["average_precision"] = sk.average_precision_score(labels, exact, average="macro")
    if classes > 5:
        expected["top_5_accuracy"] = sk.top_k_accuracy_score(labels, probabilities, k=5)
        assert expected["top_5_accuracy"] < 1
    expected["expected_calibration_error"] = found["expected_calibration_error"]  # scikit-learn has none
    assert found == expected, "to the last digit, and nothing else"
    assert all(type(value) is float for value in found.values())
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_rankings_survive_saturation(classes: int) -> None:
    """Logits far apart make probabilities of exactly 1, all equal; the images are still told apart by their margins."""
    labels, probabilities = answers(300, classes)
    logits = np.log(probabilities)
    sure = 2_000 * logits
    assert (softmax(sure).max(axis=1) == 1).mean() > 0.9
    found, expected = classification_metrics(labels, sure), classification_metrics(labels, logits)
    for c in [1] if classes == 2 else range(classes):
        margin = sure[:, c] - logsumexp(np.delete(sure, c, axis=1), axis=1)
        assert log_odds(sure)[:, c] == pytest.approx(margin, abs=1e-6)
    if classes == 2:
        assert found["auroc"] == expected["auroc"] and found["average_precision"] == expected["average_precision"]
        saturated = sk.roc_auc_score(labels, softmax(sure)[:, 1])
        assert abs(saturated - found["auroc"]) > 1e-3, "what the probabilities alone would have given"


def test_log_odds_are_those_of_the_probabilities() -> None:
    _, probabilities = answers(50, 5)
    logits = np.log(probabilities) + 3.0
    assert log_odds(logits) == pytest.approx(np.log(probabilities / (1 - probabilities)), abs=1e-12)
    two = np.array([[0.1, 0.3], [0.3, 0.1], [5.0, 5.2]])
    assert log_odds(two)[:, 1].tolist() == (two[:, 1] - two[:, 0]).tolist(), "of two classes exactly the difference"
    never = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 0.0]])
    assert log_odds(never).tolist() == [[-1.0, -np.inf, 1.0], [-np.inf, -np.inf, np.inf]]
    assert ranks(never).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_per_class_as_scikit_learn_says() -> None:
    labels, probabilities = answers(200, 3)
    predicted = probabilities.argmax(axis=1)
    found = metrics_per_class(labels, predicted, ["a", "b", "c"])
    precision, recall, f1, n = sk.precision_recall_fscore_support(labels, predicted)
    assert [each["precision"] for each in found.values()] == precision.tolist()
    assert [each["recall"] for each in found.values()] == recall.tolist()
    assert [each["n"] for each in found.values()] == n.tolist()
    assert [each["f1"] for each in found.values()] == pytest.approx(f1.tolist(), abs=1e-15)
    assert confusion_counts(labels, predicted, 3).tolist() == sk.confusion_matrix(labels, predicted).tolist()


def test_what_a_constant_answer_reaches() -> None:
    """The numbers of the RSNA set, of which 77.5 % are normal."""
    labels = np.array([1] * 225 + [0] * 775)
    found = majority_metrics(labels)
    assert found == {
        "majority_accuracy": 0.775,
        "majority_balanced_accuracy": 0.5,
        "majority_macro_f1": pytest.approx(0.4366, abs=1e-4),
    }
    assert found["majority_macro_f1"] == sk.f1_score(labels, np.zeros(1000, int), average="macro", zero_division=0)


def test_a_class_that_does_not_occur() -> None:
    """It is answered, which costs accuracy and precision; there is no recall and no ranking of it to average."""
    labels, probabilities = answers(100, 4)
    labels[labels == 2] = 0
    predicted = probabilities.argmax(axis=1)
    assert (predicted == 2).any()
    found = classification_metrics(labels, np.log(probabilities))
    present = [0, 1, 3]
    recalls = [(predicted[labels == c] == c).mean() for c in present]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-15)
    assert found["auroc"] == np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in present])
    per_class = metrics_per_class(labels, predicted, "abcd")
    assert per_class["c"] == {"n": 0, "precision": 0.0, "recall": None, "f1": 0.0}
    assert found["macro_f1"] == pytest.approx(np.mean([per_class[c]["f1"] for c in "abcd"]), abs=1e-15)
    # nor does it occur in the answers: then it is as if it were not there
    probabilities[:, 2] = 0
    with np.errstate(divide="ignore"):
        found = classification_metrics(labels, np.log(probabilities))
    assert metrics_per_class(labels, probabilities.argmax(axis=1), "abcd")["c"] == {
        "n": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    f1 = sk.f1_score(labels, probabilities.argmax(axis=1), average="macro", labels=present)
    assert found["macro_f1"] == f1


def test_labels_of_one_class_only() -> None:
    """There is nothing to rank; NaN would not be JSON."""
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    found = classification_metrics(np.array([0, 0]), np.log(probabilities))
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5
    assert found.keys() == {"accuracy", "balanced_accuracy", "macro_f1", "expected_calibration_error"}
    assert majority_metrics(np.array([1, 1]))["majority_macro_f1"] == 1
    assert classification_metrics(np.array([0, 0]), np.log(probabilities[[0, 0]]))["macro_f1"] == 1


def test_calibration_by_hand() -> None:
    """Four confidences of 0.8 with three right, one of 0.6 that is wrong."""
    probabilities = np.array([[0.8, 0.2]] * 4 + [[0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1])
    calibration = Calibration.of(labels, probabilities)
    assert calibration.expected_error == pytest.approx((4 * 0.05 + 0.6) / 5)
    assert calibration.counts.sum() == 5 and np.flatnonzero(calibration.counts).tolist() == [8, 11]
    assert calibration.accuracy[[8, 11]].tolist() == [0, 0.75]
    edges = np.array([1.0, 0.5 + 1e-9, 7.5 / BINS + 1e-9, 8 / BINS])
    assert np.flatnonzero(Calibration.of(np.zeros(4, int), np.stack([edges, 1 - edges], axis=1)).counts).tolist() == [7, 14]


def test_a_perfectly_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 40_000)
    labels = (rng.uniform(size=40_000) > confidence).astype(int)
    assert Calibration.of(labels, np.stack([confidence, 1 - confidence], axis=1)).expected_error < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: np.where(np.arange(len(p))[:, None] == 2, np.nan, p), "image 2 are not finite"),
        (lambda p: np.where(np.arange(len(p))[:, None] == 3, -np.inf, p), "image 3 are not finite"),
        (lambda p: np.where(np.eye(len(p), 3) == 1, np.inf, p), "image 0 are not finite"),
        (lambda p: p[:0], "no image"),
    ],
)
def test_what_cannot_be_measured(change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    labels, probabilities = answers(5, 3)
    logits = change(np.log(probabilities))
    with pytest.raises(UserError, match=message):
        classification_metrics(labels[: len(logits)], logits)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'biomedclip_jax\[evaluate\]'"):
        majority_metrics(np.array([0, 1]))
