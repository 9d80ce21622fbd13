"""Zero-shot accuracy on a case small enough to see."""

import numpy as np
import pytest

from biomedclip_jax.evaluation.zero_shot import accuracy

LABELS = ["brain", "lung", "skin"]
PROMPTS = np.eye(3, dtype=np.float32)


def test_accuracy_and_chance() -> None:
    image = PROMPTS[[0, 0, 1, 2, 1]] + 0.1
    found = accuracy(image, PROMPTS, LABELS, ["brain", "lung", "lung", "skin", "lung"])
    assert found == {"zero_shot_accuracy": pytest.approx(4 / 5), "chance": pytest.approx(3 / 5)}


def test_labels_are_matched_by_name_not_by_order() -> None:
    truth = ["skin", "brain", "lung"]
    assert accuracy(PROMPTS[[2, 0, 1]], PROMPTS, LABELS, truth)["zero_shot_accuracy"] == 1
    assert accuracy(PROMPTS, PROMPTS, LABELS, truth)["zero_shot_accuracy"] == 0


def test_chance_is_the_best_constant_answer() -> None:
    """On unbalanced data a model that always says the same thing scores high; `chance` shows that it is nothing."""
    constant = np.tile(PROMPTS[1], (10, 1))
    found = accuracy(constant, PROMPTS, LABELS, ["lung"] * 9 + ["skin"])
    assert found["zero_shot_accuracy"] == found["chance"] == pytest.approx(0.9)
