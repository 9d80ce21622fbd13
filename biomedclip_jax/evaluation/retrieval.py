"""Cross-modal retrieval: does the right caption come back for an image, and the right image for a caption?"""

from collections.abc import Sequence

import numpy as np

_ROWS = 4096  # queries ranked at once: bounds memory at this many rows of scores


def _hits(
    queries: np.ndarray, keys: np.ndarray, query_group: np.ndarray, key_group: np.ndarray, ks: Sequence[int]
) -> np.ndarray:
    """For each k the share of queries with a key of their own group among the k best."""
    found = np.zeros(len(ks))
    for start in range(0, len(queries), _ROWS):
        scores = queries[start : start + _ROWS] @ keys.T
        own = query_group[start : start + _ROWS, None] == key_group[None]
        best_own = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
        # of keys with equal scores the others count as better: no luck, and a constant model gets no credit
        rank = ((scores >= best_own) & ~own).sum(axis=1)
        found += [(rank < k).sum() for k in ks]
    return found / len(queries)


def recall(image: np.ndarray, text: np.ndarray, caption: Sequence[str], ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall at k in both directions, as fractions.

    image, text: unit embeddings [n, E], row i of both from pair i. caption: the n captions; pairs with the same caption are
    the same text, so each different caption is ranked once, and any of its images is right.
    Keys: image_to_text_recall_at_k, text_to_image_recall_at_k.
    """
    _, first, group = np.unique(np.asarray(caption, dtype=object).astype(str), return_index=True, return_inverse=True)
    texts = text[first]
    groups = np.arange(len(first))
    forward = _hits(image, texts, group, groups, ks)
    backward = _hits(texts, image, groups, group, ks)
    named = {f"image_to_text_recall_at_{k}": float(v) for k, v in zip(ks, forward, strict=True)}
    return named | {f"text_to_image_recall_at_{k}": float(v) for k, v in zip(ks, backward, strict=True)}
