"""Budgets of labels: the shots are those that ELEVATER draws, nothing leaks, small shares are parts of greater ones."""

import random

import numpy as np
import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.sampling import Budget, first_of_each_class, share, shortages, shots, split

LABELS = np.random.default_rng(0).choice(3, 200, p=[0.6, 0.3, 0.1])


def drawn_by_hand(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """ELEVATER's rule, one image at a time: shuffle, take an image while its class has fewer than `count`."""
    order = list(enumerate(labels.tolist()))
    random.Random(seed).shuffle(order)
    taken: list[int] = []
    have = dict.fromkeys(set(labels.tolist()), 0)
    for position, label in order:
        if have[label] < count:
            have[label] += 1
            taken.append(position)
    return taken


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", [2, 5, 15])
def test_shots_are_elevaters(count: int, seed: int) -> None:
    assert shots(LABELS, count, seed).tolist() == drawn_by_hand(LABELS, count, seed)


def test_shots_of_vision_datasets_itself() -> None:
    """What `sample_few_shot_subset(2, seed)` of vision-datasets 0.2.17 gave for twelve images of three classes."""
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    assert [shots(labels, 2, seed).tolist() for seed in (0, 1, 2)] == [
        [1, 9, 8, 5, 10, 3],
        [7, 11, 0, 8, 6, 10],
        [9, 11, 3, 4, 7, 8],
    ]


def test_validation_is_the_first_fifth_of_each_class() -> None:
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1])
    assert first_of_each_class(labels).nonzero()[0].tolist() == [0, 1, 2], "ceil(1.2) = 2 of six, ceil(0.6) = 1 of three"


@pytest.mark.parametrize("budget", [Budget(shots=5), Budget(shots=20), Budget(fraction=0.1), Budget(fraction=1.0)])
def test_train_and_validation_make_the_budget(budget: Budget) -> None:
    found = split(LABELS, 3, budget, 1)
    assert sorted([*found.train, *found.validation]) == sorted(found.given) and len(set(found.given)) == len(found.given)
    counts = np.bincount(LABELS[found.given])
    assert np.bincount(LABELS[found.validation]).tolist() == np.ceil(counts * 0.2).tolist()
    if budget.shots:
        assert counts.tolist() == np.minimum(np.bincount(LABELS), budget.shots).tolist()


def test_all_labels_keep_the_order_of_the_file() -> None:
    assert split(LABELS, 3, Budget(fraction=1.0), 2).given.tolist() == list(range(200))


def test_one_shot_validates_on_a_second_image() -> None:
    found = split(LABELS, 3, Budget(shots=1), 0)
    assert np.bincount(LABELS[found.given]).tolist() == [1, 1, 1] == np.bincount(LABELS[found.validation]).tolist()
    assert found.given.tolist() == found.train.tolist() and not set(found.given) & set(found.validation)


def test_shares_are_nested_and_stratified() -> None:
    small, great = share(LABELS, 0.1, 7), share(LABELS, 0.5, 7)
    assert set(small) < set(great)
    assert np.bincount(LABELS[great]).tolist() == np.ceil(np.bincount(LABELS) * 0.5).tolist()
    assert share(np.repeat([0, 1], 100), 0.07, 0).size == 14, "0.07 x 100 is 7.000000000000001 in floating point"
    assert np.bincount(LABELS[share(LABELS, 0.001, 0)]).tolist() == [2, 2, 2], "one to learn from and one to validate"


def test_seeds_differ() -> None:
    assert len({tuple(sorted(split(LABELS, 3, Budget(shots=5), seed).given)) for seed in (0, 1, 2)}) == 3


def test_a_limited_search_sees_part_of_the_images() -> None:
    found = split(LABELS, 3, Budget(fraction=1.0), 0, search_shots=10)
    assert len(found.given) == 200 and len(found.train) + len(found.validation) == 30
    assert not set(found.train) & set(found.validation)


@pytest.mark.parametrize(
    "text, budget", [("5", Budget(shots=5)), ("10%", Budget(fraction=0.1)), ("100 %", Budget(fraction=1.0))]
)
def test_parse(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "five", "0", "-1", "0%", "101%", "x%", "nan%"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UserError, match="expected"):
        Budget.parse(text)


def test_a_class_without_images() -> None:
    with pytest.raises(UserError, match="no image of class 1"):
        split(np.array([0, 0, 2]), 3, Budget(shots=5), 0)
    with pytest.raises(UserError, match="none to train on"):
        split(np.array([0, 1]), 2, Budget(shots=5), 0)


LESS = "a class is less than two images, of which one validates: taken are"


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(shots=2), []),
        (Budget(shots=5), ["5 per class, but there are only 2 of 'a', 3 of 'b'"]),
        (Budget(fraction=0.5), [f"50 % of {LESS} 2 of 'a'"]),
        (Budget(fraction=0.1), [f"10 % of {LESS} 2 of 'a', 2 of 'b', 2 of 'c'"]),
        (Budget(fraction=1.0), []),
    ],
)
def test_classes_with_too_few_images_are_said(budget: Budget, said: list[str]) -> None:
    labels = np.array([0] * 2 + [1] * 3 + [2] * 10)
    assert shortages(labels, "abc", budget) == said


def test_one_image_of_a_class_validates_and_is_said() -> None:
    assert shortages(np.array([0, 1, 1]), "ab", Budget(shots=1)) == [
        "1 per class, and one more to validate, but there are only 1 of 'a'"
    ]
    many = shortages(np.arange(8), "abcdefgh", Budget(shots=5))
    assert many[0].endswith("1 of 'e' and of 3 more")
