"""Resampled metrics against the metrics of the resampled images, and what the intervals say of known chance."""

import time

import numpy as np
import pytest
import sklearn.metrics as sk

from biomedclip_jax.evaluation import _bootstrap as tested
from biomedclip_jax.evaluation._bootstrap import bootstrap, differences, interval, intervals
from biomedclip_jax.evaluation._metrics import classification_metrics, ranks, softmax


def answers(n: int, classes: int, seed: int = 0, ties: bool = False, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = skill * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (30, 3), (90, 7), (9, 4)])
def test_as_if_the_images_were_repeated(n: int, classes: int, ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric of every resample is scikit-learn's of the list with its repetitions; some lack a class, of nine images."""
    labels, logits = answers(n, classes, ties=ties)
    monkeypatch.setattr(tested, "_WEIGHTS", 4 * n)  # more than one chunk
    (found,) = bootstrap(labels, [logits], 10, seed=3)
    weights = np.concatenate(list(tested._weights(n, 10, 3)), axis=1)
    assert weights.shape == (n, 10) and (weights.sum(axis=0) == n).all()
    for r in range(10):
        repeated = np.repeat(np.arange(n), weights[:, r].astype(int))
        expected = classification_metrics(labels[repeated], logits[repeated])
        assert {name: values[r] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)
    assert len(set(found["auroc"].tolist())) > 3


@pytest.mark.parametrize("ties", [False, True])
def test_the_weighted_ranking(ties: bool) -> None:
    labels, logits = answers(500, 2, ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (500, 6)).astype(np.float64)
    auroc, precision = tested._Ranking(labels == 1, ranks(logits)[:, 1]).metrics(weights)
    for r in range(6):
        side = labels, softmax(logits)[:, 1]
        assert auroc[r] == pytest.approx(sk.roc_auc_score(*side, sample_weight=weights[:, r]), abs=1e-12)
        assert precision[r] == pytest.approx(sk.average_precision_score(*side, sample_weight=weights[:, r]), abs=1e-12)


def test_a_resample_without_one_of_the_classes_has_no_auroc() -> None:
    """Two images, of two classes: half of the resamples have only one of them. The intervals are of the others."""
    (found,) = bootstrap(np.array([0, 1]), [np.log([[0.9, 0.1], [0.2, 0.8]])], 100)
    missing = np.isnan(found["auroc"])
    assert 30 < missing.sum() < 70
    assert (found["auroc"][~missing] == 1).all() and interval(found["auroc"]) == (1, 1)
    (found,) = bootstrap(np.array([0, 0]), [np.log([[0.9, 0.1], [0.2, 0.8]])], 10)
    assert "auroc" not in found and intervals(found)["accuracy"] == (0, 1)


def test_the_seed() -> None:
    labels, logits = answers(50, 3)
    first, again, other = (bootstrap(labels, [logits], 20, seed)[0]["accuracy"].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_the_interval_covers_the_truth() -> None:
    """Of 200 studies of 150 images each, about 95 % give an interval that holds the true accuracy."""
    rng = np.random.default_rng(0)
    held = 0
    for study in range(200):
        labels = rng.integers(0, 2, 150)
        right = rng.uniform(size=150) < 0.7
        answer = np.where(right, labels, 1 - labels)
        logits = np.log(np.where(np.arange(2) == answer[:, None], 0.8, 0.2))
        low, high = intervals(bootstrap(labels, [logits], 200, seed=study)[0])["accuracy"]
        assert low < high
        held += low <= 0.7 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_paired_differences() -> None:
    """The same resamples for both: a model that is right wherever the other is, and on a few images more, is surely better."""
    labels, weak = answers(300, 3, skill=1)
    strong = weak.copy()
    wrong = np.flatnonzero(weak.argmax(axis=1) != labels)[:25]
    strong[wrong] = np.log(0.9 * np.eye(3)[labels[wrong]] + 0.1 / 3)
    metrics = [classification_metrics(labels, each) for each in (strong, weak)]
    samples = bootstrap(labels, [strong, weak], 400)
    found = differences(samples[0], samples[1], metrics[0], metrics[1])
    difference, low, high, better = found["accuracy"]
    assert difference == pytest.approx(25 / 300) and 0 < low < difference < high and better == 1
    apart = intervals(samples[0])["accuracy"][0] - intervals(samples[1])["accuracy"][1]
    assert apart < 0, "their own intervals overlap: only the paired one shows it"
    back = differences(samples[1], samples[0], metrics[1], metrics[0])
    assert back["accuracy"] == pytest.approx([-difference, -high, -low, 0])
    assert found.keys() == metrics[0].keys()


def test_less_error_is_better_and_equal_is_not() -> None:
    samples = {"expected_calibration_error": np.array([0.1, 0.2, 0.3, 0.1])}, {"expected_calibration_error": np.full(4, 0.2)}
    metrics = {"expected_calibration_error": 0.15}, {"expected_calibration_error": 0.2}
    assert differences(*samples, *metrics)["expected_calibration_error"][3] == 0.5
    assert differences(*samples[::-1], *metrics[::-1])["expected_calibration_error"][3] == 0.25
    assert differences(samples[0], samples[0], metrics[0], metrics[0])["expected_calibration_error"] == [0, 0, 0, 0]


def test_a_thousand_resamples_of_pcam_take_seconds() -> None:
    labels, logits = answers(32_768, 2)
    started = time.perf_counter()
    (found,) = bootstrap(labels, [logits])
    assert len(found["auroc"]) == 1_000
    assert time.perf_counter() - started < 20
