"""One row for each file or series, from the rows of its frames, slices or tiles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def mean_of_groups(embeddings: Float[np.ndarray, "n E"], groups: Sequence[str]) -> tuple[Float[np.ndarray, "g E"], list[str]]:
    """The mean of each group's unit embeddings, made unit length again, and the groups in the order in which they begin."""
    names, where = _numbered(groups)
    sums = np.zeros((len(names), embeddings.shape[1]))
    np.add.at(sums, where, embeddings)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.maximum(lengths, 1e-12)).astype(np.float32), names


def highest_of_groups(
    probabilities: Float[np.ndarray, "n C"], groups: Sequence[str]
) -> tuple[Float[np.ndarray, "g C"], list[str]]:
    """For each group and label the highest probability that any of its images has; rows do not sum to 1."""
    names, where = _numbered(groups)
    highest = np.zeros((len(names), probabilities.shape[1]), probabilities.dtype)
    np.maximum.at(highest, where, probabilities)
    return highest, names


def _numbered(groups: Sequence[str]) -> tuple[list[str], list[int]]:
    numbers: dict[str, int] = {}
    return [*dict.fromkeys(groups)], [numbers.setdefault(group, len(numbers)) for group in groups]
