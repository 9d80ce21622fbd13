"""Resampled metrics against the metrics of the resampled images, and what the intervals say of known chance."""

import time

import numpy as np
import pytest
import sklearn.metrics as sk

from biomedclip_jax.evaluation import _bootstrap as tested
from biomedclip_jax.evaluation._bootstrap import (
    bootstrap,
    bootstrap_findings,
    bootstrap_ranks,
    bootstrap_shares,
    differences,
    interval,
)
from biomedclip_jax.evaluation._intervals import FEWEST, balanced_interval, classification_intervals, wilson
from biomedclip_jax.evaluation._metrics import classification_metrics, ranks, softmax


def answers(n: int, classes: int, seed: int = 0, ties: bool = False, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = skill * np.eye(classes)[labels] + rng.normal(size=(n, classes))
    return labels, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (30, 3), (90, 7), (9, 4)])
def test_as_if_the_images_were_repeated(n: int, classes: int, ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric of every resample is scikit-learn's of the list with its repetitions."""
    labels, logits = answers(n, classes, ties=ties)
    monkeypatch.setattr(tested, "_WEIGHTS", 4 * n)  # more than one chunk
    (found,) = bootstrap(labels, [logits], 10, seed=3)
    weights = np.concatenate(list(tested._weights(tested._strata(labels), 10, 3)), axis=1)
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


@pytest.mark.parametrize("rare", [False, True])
def test_groups_are_drawn_whole(rare: bool) -> None:
    """Every resample is of whole groups: each image as often as the others of its group; the metrics are those of the list."""
    labels, logits = answers(60 if rare else 400, 3)
    groups = np.random.default_rng(1).integers(0, 20 if rare else 200, len(labels))
    groups = np.unique(groups, return_inverse=True)[1]
    strata = tested._strata_of_groups(labels, groups)
    assert sorted(np.concatenate(strata).tolist()) == list(range(groups.max() + 1)) and (len(strata) > 1) == rare
    (found,) = bootstrap(labels, [logits], 8, seed=5, groups=groups)
    drawn = np.concatenate(list(tested._weights(strata, 8, 5)), axis=1)
    for r in range(8):
        repeated = np.repeat(np.arange(len(labels)), drawn[groups, r].astype(int))
        expected = classification_metrics(labels[repeated], logits[repeated])
        assert {name: values[r] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
def test_findings_as_if_the_images_were_repeated(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each finding scikit-learn's numbers of the list with its repetitions, without the labels that do not count; ties."""
    monkeypatch.setattr(tested, "_WEIGHTS", 4 * 90)  # more than one chunk
    rng = np.random.default_rng(0)
    answers = rng.choice([-1, 0, 1], (90, 3), p=[0.1, 0.5, 0.4]).astype(np.int8)
    answers[:, 2] = np.where(rng.random(90) < 0.1, 1, np.minimum(answers[:, 2], 0))  # rare
    scores = np.round(answers + rng.normal(size=(90, 3)), 1)
    groups = np.unique(rng.integers(0, 70, 90), return_inverse=True)[1] if grouped else np.arange(90)
    (found,) = bootstrap_findings(answers, [scores], 10, 3, groups if grouped else None)
    common = np.concatenate(list(tested._weights([np.arange(groups.max() + 1)], 10, 3)), axis=1)[groups]
    for f in range(3):
        own = answers[:, f] >= 0
        truth, drawn = answers[own, f].astype(int), np.unique(groups[own], return_inverse=True)[1]
        strata = tested._strata_of_groups(truth, drawn) if grouped else tested._strata(truth)
        apart = np.concatenate(list(tested._weights(strata, 10, 3)), axis=1)[drawn]
        for r in range(10):
            weights = apart[:, r] if len(strata) > 1 else common[own, r]
            expected = sk.roc_auc_score(truth, scores[own, f], sample_weight=weights)
            assert found.auroc[f, r] == pytest.approx(expected, abs=1e-12)
            expected = sk.average_precision_score(truth, scores[own, f], sample_weight=weights)
            assert found.average_precision[f, r] == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(found.means["mean_auroc"]).all()


def test_shares_over_groups() -> None:
    rng = np.random.default_rng(0)
    counts, right, groups = rng.random(200) < 0.5, rng.random(200) < 0.7, rng.integers(0, 40, 200)
    shares = bootstrap_shares(counts, right, groups, 300)
    assert shares.mean() == pytest.approx(right[counts].mean(), abs=0.02)
    alone = bootstrap_shares(counts, right, np.arange(200), 300)
    assert alone.std() == pytest.approx(np.sqrt(0.7 * 0.3 / counts.sum()), rel=0.25)


def test_ranks_over_groups() -> None:
    rank, groups = np.random.default_rng(0).integers(0, 12, 25), np.arange(25) // 3
    found = bootstrap_ranks({"image_to_text": rank}, 8, 2, {"image_to_text": groups})
    weights = np.concatenate(list(tested._weights([np.arange(9)], 8, 2)), axis=1)[groups]
    for r in range(8):
        again = np.repeat(rank, weights[:, r].astype(int))
        assert found["image_to_text_recall_at_5"][r] == pytest.approx((again < 5).mean())
        assert found["image_to_text_median_rank"][r] == np.median(again) + 1


def test_groups_of_one_are_images() -> None:
    labels, logits = answers(200, 2)
    (images,), (groups,) = (bootstrap(labels, [logits], 20, groups=each) for each in (None, np.arange(200)))
    assert images.keys() == groups.keys()
    assert all(np.array_equal(images[name], groups[name], equal_nan=True) for name in images)


def test_intervals_over_groups_hold_the_truth_where_images_of_one_are_alike() -> None:
    """80 patients with five images each, right or wrong together: intervals over images are too narrow."""
    rng = np.random.default_rng(0)
    groups, held = np.repeat(np.arange(80), 5), {"images": 0, "groups": 0}
    for study in range(60):
        labels = np.repeat(rng.integers(0, 2, 80), 5)
        right = np.repeat(rng.random(80) < 0.7, 5)
        logits = np.where(right, 1.0, -1.0)[:, None] * np.where(labels[:, None] == [0, 1], 1.0, -1.0)
        for kind, own in (("images", None), ("groups", groups)):
            (samples,) = bootstrap(labels, [logits], 200, study, own)
            low, high = classification_intervals(labels, logits, samples, own)[0]["accuracy"]
            held[kind] += low <= 0.7 <= high
    assert held["groups"] >= 53 and held["images"] <= 45


def test_few_groups_of_a_class_are_too_few_to_say() -> None:
    labels = np.repeat([0, 1], [100, 100])
    groups = np.concatenate([np.arange(100), 100 + np.arange(100) // 25])  # 4 patients with class 1
    logits = np.random.default_rng(0).normal(size=(200, 2))
    (samples,) = bootstrap(labels, [logits], 50, groups=groups)
    found, missing = classification_intervals(labels, logits, samples, groups)
    assert not found and set(missing.values()) == {"too few to say"}


def test_a_rare_class_is_in_every_resample() -> None:
    """Drawn class by class, each as often as it is there; classes of 30 images and more are drawn with all others."""
    labels = np.repeat([0, 1, 3], [200, 29, 1])
    weights = np.concatenate(list(tested._weights(tested._strata(labels), 50, 0)), axis=1)
    for c, n in ((0, 200), (1, 29), (3, 1)):
        assert (weights[labels == c].sum(axis=0) == n).all()
    assert len(set(weights[0])) > 1
    common = np.repeat([0, 1], [200, 30])
    weights = np.concatenate(list(tested._weights(tested._strata(common), 50, 0)), axis=1)
    assert (weights.sum(axis=0) == 230).all() and len(set(weights[common == 1].sum(axis=0))) > 5


def test_a_single_image_of_a_class_is_too_few_to_say() -> None:
    """Its AUROC is one image's place among the others: the bootstrap would draw it again and again."""
    labels, logits = answers(400, 3)
    few = np.concatenate([np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:1]])
    labels, logits = labels[few], logits[few]
    (samples,) = bootstrap(labels, [logits], 50)
    assert np.isfinite(samples["auroc"]).all()
    found, missing = classification_intervals(labels, logits, samples)
    assert missing == dict.fromkeys(["macro_f1", "auroc", "average_precision"], "too few to say")
    assert found.keys() == {"accuracy", "balanced_accuracy", "expected_calibration_error"}


@pytest.mark.parametrize("count", [FEWEST - 1, FEWEST])
def test_how_few_are_too_few(count: int) -> None:
    labels = np.repeat([0, 1], [100, count])
    logits = np.random.default_rng(0).normal(size=(100 + count, 2)) + np.eye(2)[labels]
    found, _ = classification_intervals(labels, logits, bootstrap(labels, [logits], 100)[0])
    assert ("auroc" in found) == (count == FEWEST)


def test_everything_right_is_no_certainty() -> None:
    labels = np.repeat([0, 1], 20)
    logits = 5.0 * np.eye(2)[labels]
    found, missing = classification_intervals(labels, logits, bootstrap(labels, [logits], 50)[0])
    low, high = found["accuracy"]
    assert low == pytest.approx(0.9124, abs=1e-4) and high == 1, "of 40, by Wilson's formula"
    assert 0.8 < found["balanced_accuracy"][0] < low and found["balanced_accuracy"][1] == 1
    assert missing["auroc"] == missing["macro_f1"] == "every resample the same"
    found, _ = classification_intervals(labels, -logits, bootstrap(labels, [-logits], 50)[0])
    assert found["accuracy"] == pytest.approx((0, 1 - low)) and found["balanced_accuracy"][0] == 0
    one_class, _ = classification_intervals(labels[:5], logits[:5], bootstrap(labels[:5], [logits[:5]], 50)[0])
    assert "auroc" not in one_class and one_class["accuracy"] == one_class["balanced_accuracy"]


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 10), (1, 10), (50, 100), (99, 100), (7, 7)])
def test_wilson(count: int, n: int) -> None:
    """Against SciPy's implementation."""
    from scipy.stats import binomtest

    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert wilson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_of_balanced_accuracy_covers_the_truth() -> None:
    """Three classes of 5, 40 and 200 images with recalls 0.9, 0.6 and 0.8: about 95 % of 2,000 studies hold the mean."""
    rng, n, recalls = np.random.default_rng(0), np.array([5, 40, 200]), np.array([0.9, 0.6, 0.8])
    held = 0
    for _ in range(2_000):
        low, high = balanced_interval(rng.binomial(n, recalls), n)
        held += low <= recalls.mean() <= high
    assert 0.93 <= held / 2_000 <= 0.99


def test_ranks_as_if_the_queries_were_repeated() -> None:
    ranks = {"image_to_text": np.random.default_rng(0).integers(0, 12, 25), "text_to_image": np.arange(30)}
    found = bootstrap_ranks(ranks, 8, seed=2)
    for direction, rank in ranks.items():
        weights = np.concatenate(list(tested._weights([np.arange(len(rank))], 8, 2)), axis=1)
        for r in range(8):
            again = np.repeat(rank, weights[:, r].astype(int))
            assert found[f"{direction}_recall_at_5"][r] == pytest.approx((again < 5).mean())
            assert found[f"{direction}_mean_reciprocal_rank"][r] == pytest.approx((1 / (1 + again)).mean())
            assert found[f"{direction}_median_rank"][r] == np.median(again) + 1
    assert len(found) == 10 and len(set(found["image_to_text_median_rank"].tolist())) > 1


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
        (samples,) = bootstrap(labels, [logits], 200, seed=study)
        low, high = classification_intervals(labels, logits, samples)[0]["accuracy"]
        drawn_low, drawn_high = interval(samples["accuracy"])
        assert (drawn_low, drawn_high) == pytest.approx((low, high), abs=0.03), "what the bootstrap says of it, too"
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
    apart = interval(samples[0]["accuracy"])[0] - interval(samples[1]["accuracy"])[1]
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
