"""Tip-Adapter against its formula, spelled out image by image; what is searched where."""

import dataclasses
import math

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate, make_task

from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.evaluation.prompt_learning import Recipe, TipAdapter, TipAdapterF
from biomedclip_jax.evaluation.prompt_learning.tip_adapter import Search


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> FewShot:
    return make_task(make_candidate(tmp_path_factory.mktemp("model")))


def formula(task: FewShot, part: Part, keys: np.ndarray, labels: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Logits in float64: for each image, the zero-shot ones and exp(-beta (1 - cosine)) added to the class of each key."""
    scores = task.candidate.clip.logit_scale * (part.unit.astype(np.float64) @ task.text.T)
    for row, image in zip(scores, part.unit.astype(np.float64), strict=True):
        for key, label in zip(keys, labels, strict=True):
            row[label] += alpha * math.exp(-beta * (1 - image @ key))
    return scores


def probabilities(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def test_without_validation_it_is_the_formula(task: FewShot) -> None:
    alone = dataclasses.replace(task, validation=task.validation.subset(np.zeros(0, int)))
    prediction = TipAdapter(alpha=1.7, beta=3.0)(alone)
    expected = probabilities(formula(task, task.test, task.given.unit, task.given.labels, 1.7, 3.0))
    assert np.abs(prediction.probabilities - expected).max() <= 1e-6
    assert prediction.settings["search"].startswith("none") and prediction.settings["alpha"] == 1.7


def test_alpha_and_beta_are_the_best_on_validation(task: FewShot) -> None:
    task = make_task(task.candidate, noise=1.5)  # hard: keys that hold the validation images would find another pair
    search = Search(most_alpha=40, alphas=5, most_beta=20, betas=4)
    prediction = TipAdapter(search=search)(task)
    best = (-1.0, 0.0, 0.0)
    for beta in [i * (20 - 0.1) / 4 + 0.1 for i in range(4)]:  # the authors' search_hp
        for alpha in [i * (40 - 0.1) / 5 + 0.1 for i in range(5)]:
            scores = formula(task, task.validation, task.train.unit, task.train.labels, alpha, beta)
            accuracy = (scores.argmax(axis=1) == task.validation.labels).mean()
            if accuracy > best[0]:
                best = (accuracy, alpha, beta)
    assert (prediction.settings["alpha"], prediction.settings["beta"]) == pytest.approx(best[1:])
    assert best[1] > 0.1, "the search has to make a difference here"
    expected = probabilities(formula(task, task.test, task.given.unit, task.given.labels, *best[1:]))
    assert np.abs(prediction.probabilities - expected).max() <= 1e-5  # float32 logits of about 50 here
    truth = task.test.labels
    zero_shot = ((task.test.unit @ task.text.T).argmax(axis=1) == truth).mean()
    assert (prediction.probabilities.argmax(axis=1) == truth).mean() > zero_shot


def test_tuned_keys_fit_what_was_given(task: FewShot) -> None:
    recipe = Recipe(epochs=30, batch_size=256, learning_rate=1e-2, optimizer="adamw", weight_decay=0.01)
    method = TipAdapterF(alpha=0.3, recipe=recipe, search=Search(most_alpha=40))
    keys = method.keys(task, task.given)

    def loss(keys: np.ndarray) -> float:
        found = probabilities(formula(task, task.given, keys, task.given.labels, 0.3, 1.0))
        return -np.log(found[np.arange(len(task.given)), task.given.labels]).mean()

    assert loss(keys) < loss(task.given.unit) - 0.1
    prediction = method(task)
    chosen = prediction.settings["alpha"], prediction.settings["beta"]
    expected = probabilities(formula(task, task.test, keys, task.given.labels, *chosen))
    assert np.abs(prediction.probabilities - expected).max() <= 1e-5
    assert np.array_equal(prediction.probabilities, method(task).probabilities)


def test_the_published_defaults() -> None:
    alphas, betas = Search().grid()
    assert (len(alphas), len(betas)) == (20, 200) and alphas[0] == betas[0] == 0.1
    assert alphas[-1] == pytest.approx(0.1 + 19 * 2.9 / 20) and betas[-1] == pytest.approx(0.1 + 199 * 6.9 / 200)
    recipe = TipAdapterF().recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.optimizer) == (20, 256, 1e-3, "adamw")
    assert (TipAdapter().name, TipAdapterF().name) == ("tip-adapter", "tip-adapter-f")
