"""The number that says how much a map depends on the words."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from biomedclip_jax.heatmaps._words import dependence, rank_correlation


def maps(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 8, 8))


def test_it_is_one_minus_spearmans_correlation() -> None:
    a, b = maps(2)
    mixed = 0.8 * a + 0.2 * b
    assert rank_correlation(a, mixed) == pytest.approx(spearmanr(a.ravel(), mixed.ravel()).statistic)
    assert dependence(a, mixed[None]) == pytest.approx(1 - spearmanr(a.ravel(), mixed.ravel()).statistic)
    ties = np.round(a)
    assert rank_correlation(ties, mixed) == pytest.approx(spearmanr(ties.ravel(), mixed.ravel()).statistic)


def test_brightness_and_contrast_make_no_difference_but_places_do() -> None:
    own = maps(1)[0]
    assert dependence(own, np.stack([3 * own + 7, np.exp(own)])) == pytest.approx(0, abs=1e-12)
    assert dependence(own, -own[None]) == 1
    assert dependence(own, np.stack([own, -own])) == pytest.approx(0.5)
    assert dependence(own, maps(200)[1:]) > 0.9


def test_a_map_of_one_value_says_nothing() -> None:
    own, flat = maps(1)[0], np.zeros((8, 8))
    assert dependence(flat, flat[None] + 1) == 0
    assert dependence(own, flat[None]) == dependence(flat, own[None]) == 1
