"""How much a map depends on the words: maps of several texts over one image, compared by the order of their patches."""

import numpy as np
from scipy.stats import rankdata

HARDLY = 0.1  # a mean rank correlation of 0.9: the eye takes such maps for the same


def dependence(map_: np.ndarray, others: np.ndarray) -> float:
    """From 0, where the map orders the patches as those of the other texts do, to 1, where it has nothing to do with them.

    1 minus the mean, over the other texts, of Spearman's rank correlation with their maps; below 0 counts as 0, since
    a map upside down is no less another one. So brightness and contrast make no difference, only which patches come before
    which. A map of one value everywhere says nothing: two such are the same, one such beside another kind is different.
    map_: [g, g]; others: [k, g, g], at least one.
    """
    return 1 - float(np.mean([max(0.0, rank_correlation(map_, other)) for other in others]))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of one shape, with mean ranks for equal values."""
    x, y = (rankdata(each.ravel()) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    flat = [not each.any() for each in (x, y)]
    if any(flat):
        return float(all(flat))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
