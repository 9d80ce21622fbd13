"""Cross-modal retrieval: does the right caption come back for an image, and the right image for a caption?"""

from collections.abc import Sequence

import numpy as np

from biomedclip_jax.evaluation.ranks import ranks


def recall(image: np.ndarray, text: np.ndarray, caption: Sequence[str], ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall at k in both directions, as fractions.

    image, text: unit embeddings [n, E], row i of both from pair i. caption: the n captions; pairs with the same caption are
    the same text, so each different caption is ranked once, and any of its images is right.
    Keys: image_to_text_recall_at_k, text_to_image_recall_at_k.
    """
    _, first, group = np.unique(np.asarray(caption, dtype=object).astype(str), return_index=True, return_inverse=True)
    texts = text[first]
    own = np.stack([np.arange(len(image)), group.ravel()], axis=1)
    found = {}
    for direction, rank in zip(("image_to_text", "text_to_image"), ranks(image, texts, own), strict=True):
        found |= {f"{direction}_recall_at_{k}": float((rank < k).mean()) for k in ks}
    return found
