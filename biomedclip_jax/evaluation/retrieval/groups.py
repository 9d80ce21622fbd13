"""What the queries of a search belong to, such as a patient, and intervals over these instead of over queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.data.labelled.groups import said_of_groups
from biomedclip_jax.evaluation._bootstrap import bootstrap_ranks
from biomedclip_jax.evaluation._evaluation import Evaluation
from biomedclip_jax.evaluation._intervals import interval_over_groups

_IMAGES, _TEXTS = "image_to_text", "text_to_image"


@dataclass(frozen=True, eq=False)
class QueryGroups:
    """What images belong to. own: of each pair, a name of its own for one without a group. kind: what a group is."""

    own: tuple[str, ...]
    kind: str

    def of_queries(self, images: np.ndarray, own: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
        """The groups of the queries by direction, int from 0 on, and what is to be said of them.

        images: positions of the pairs that are asked with, int64. own: int64 [P, 2], which image, of these, and which text
        belong together. A text is of the group of its first image.
        """
        names = [self.own[int(i)] for i in images]
        of_image = np.unique(np.array(names), return_inverse=True)[1]
        order = np.argsort(own[:, 1], kind="stable")
        texts, first = np.unique(own[order, 1], return_index=True)
        of_text = of_image[own[order, 0][first]]
        several = len(np.unique(own[of_image[own[:, 0]] != of_text[own[:, 1]], 1]))
        said = [said_of_groups(names, self.kind)]
        if several:
            said.append(f"{several:,} of {len(texts):,} captions are of images of several groups and count for the first one")
        return {_IMAGES: of_image, _TEXTS: np.unique(of_text, return_inverse=True)[1]}, said


def over_groups(
    evaluation: Evaluation, ranks: dict[str, np.ndarray], groups: dict[str, np.ndarray], names: Sequence[str]
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """The bootstrap's 95 % intervals of these metrics over groups, and why others have none.

    ranks, groups: of the queries, by direction.
    """
    samples = bootstrap_ranks(ranks, evaluation.resamples, evaluation.seed, groups)
    found: dict[str, tuple[float, float]] = {}
    missing: dict[str, str] = {}
    for name in names:
        way = next(each for each in groups if name.startswith(each))
        ends = interval_over_groups(samples[name], int(groups[way].max()) + 1)
        if isinstance(ends, str):
            missing[name] = ends
        else:
            found[name] = ends
    return found, missing
