"""CLIP's probe is scikit-learn's regression with the regularisation that validates best."""

import warnings

import numpy as np
import pytest
from helpers.tiny_labels import PROMPTS, TinyCandidate, overlapping, part_of, task, unit
from sklearn.linear_model import LogisticRegression

from biomedclip_jax.evaluation._metrics import softmax
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe._search import STRENGTHS
from biomedclip_jax.evaluation.probe.logistic_regression import LogisticRegressionProbe, fit_predict
from biomedclip_jax.evaluation.probe.methods import FewShot
from biomedclip_jax.evaluation.probe.sampling import Budget, split

TEXT = unit(np.random.default_rng(3).normal(size=(3, 16)))


def test_it_is_scikit_learns_with_the_best_c() -> None:
    """No C of the coarse seven validates better than the one chosen, and the prediction is scikit-learn's with that."""
    shots = task(overlapping(150, 0), overlapping(90, 1), Budget(shots=30), TEXT, TinyCandidate())
    predicted = LogisticRegressionProbe()(shots)
    strength = predicted.settings["C"]
    assert strength in STRENGTHS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=strength, max_iter=1_000)
        model.fit(shots.given.features.astype(np.float64), shots.given.labels)
        expected = model.predict_proba(shots.test.features.astype(np.float64))
        np.testing.assert_allclose(predicted.probabilities, expected, atol=1e-12)
        scores = {}
        for c in (strength, *STRENGTHS[::16]):
            model = LogisticRegression(C=c, max_iter=1_000)
            model.fit(shots.train.features.astype(np.float64), shots.train.labels)
            scores[c] = model.score(shots.validation.features, shots.validation.labels)
    assert predicted.settings["validation_accuracy"] == pytest.approx(scores[strength]) == max(scores.values())
    assert min(scores.values()) < max(scores.values())


def test_a_class_without_images_has_probability_0() -> None:
    known = overlapping(60, 0)
    two = known.subset(np.flatnonzero(known.labels != 1))
    given, asked = two.features.astype(np.float64), known.features.astype(np.float64)
    found = fit_predict(given, two.labels, asked, 1.0, 3)
    assert np.isneginf(found[:, 1]).all() and np.isfinite(found[:, [0, 2]]).all()
    expected = LogisticRegression(C=1.0, max_iter=1_000).fit(given, two.labels).predict_proba(asked)
    np.testing.assert_allclose(softmax(found), np.insert(expected, 1, 0, axis=1), atol=1e-12)


def test_weak_regularisation_is_no_warning() -> None:
    """Separable classes and C up to 1e6: the solver stops at its thousandth step, from several threads."""
    labels = np.arange(60) % 3
    features = np.random.default_rng(0).normal(size=(60, 16)) * 1e3
    shots = task(part_of(features, labels), part_of(features, labels), Budget(shots=20), TEXT, TinyCandidate())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        LogisticRegressionProbe()(shots)
    assert not told


def test_of_two_classes_the_validation_images_are_predicted_by_a_regression_that_has_not_seen_them() -> None:
    known = overlapping(90, 0)
    two = known.subset(np.flatnonzero(known.labels != 2))
    at = split(two.labels, 2, Budget(shots=20), 0)
    parts = (two.subset(at.given), two.subset(at.train), two.subset(at.validation), two)
    predicted = LogisticRegressionProbe()(FewShot(TinyCandidate(), Embeddings(None), PROMPTS, TEXT[:2], *parts, 0))
    own = two.subset(at.train)
    model = LogisticRegression(C=predicted.settings["C"], max_iter=1_000).fit(own.features.astype(np.float64), own.labels)
    assert predicted.validation is not None
    expected = model.decision_function(parts[2].features.astype(np.float64))
    np.testing.assert_allclose(predicted.validation[:, 1] - predicted.validation[:, 0], expected)
