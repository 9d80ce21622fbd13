"""Zero-shot classification: the label whose prompt lies nearest to the image."""

from collections.abc import Sequence

import numpy as np


def accuracy(image: np.ndarray, prompt: np.ndarray, labels: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Share of images whose nearest prompt is that of their own label, and what guessing gives.

    image: unit embeddings [n, E]; prompt: [labels, E], row j for labels[j]; truth: n labels.
    Keys: zero_shot_accuracy; chance (the share of the most frequent label: what the best constant answer gets).
    """
    index = {label: j for j, label in enumerate(labels)}
    right = np.array([index[label] for label in truth])
    guess = (image @ prompt.T).argmax(axis=1)
    frequent = np.bincount(right, minlength=len(labels)).max()
    return {"zero_shot_accuracy": float((guess == right).mean()), "chance": float(frequent / len(right))}
