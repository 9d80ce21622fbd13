"""What weights are worth on some data: one score, and the least loss that their embeddings can have.

The score is the mean of what the data can tell: the mean of recall at 1, 5 and 10 both ways where there are captions,
balanced zero-shot accuracy where there are labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.data.own_rows import Row
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.evaluation.zero_shot.task import default_embeddings
from biomedclip_jax.finetune._parts import caption_of
from biomedclip_jax.interop.model import Model
from biomedclip_jax.pretrained import Pretrained

_SCALES = np.geomspace(0.5, 200, 24)  # of cosines


@dataclass(frozen=True)
class JudgedData:
    """Rows to judge by: `captions` where what belongs together is asked, `classes` where labels are told apart.

    texts: the captions that the loss compares the images with; made of the labels where there are no captions.
    """

    rows: Sequence[Row]
    texts: Sequence[str]
    captions: bool
    classes: tuple[str, ...]


def judged_data(rows: Sequence[Row], captions: bool) -> JudgedData:
    """What rows can tell: labels count where there are at least two."""
    classes = tuple(sorted({row.label for row in rows if row.label is not None}))
    return JudgedData(rows, list(map(caption_of, rows)), captions, classes if len(classes) > 1 else ())


class Judge:
    """Judges different weights of one model; its programs are compiled once."""

    def __init__(self, model: Model):
        self._clip = Pretrained(model, ComputeConfig())

    def score(self, params: dict[str, Any], data: JudgedData) -> tuple[float, float]:
        """(score from 0 to 1, loss at the best temperature) of the weights. Images that cannot be read are left out."""
        clip = self._clip
        clip.params = params
        bad: dict[int, UserError] = {}
        image = clip.encode_images([Path(row.image) for row in data.rows], on_error=bad.__setitem__)
        kept = [i for i in range(len(data.rows)) if i not in bad]
        texts = [data.texts[i] for i in kept]
        different = list(dict.fromkeys(texts))
        text = clip.encode_texts(different)[[different.index(each) for each in texts]]
        found: list[float] = []
        if data.captions:
            rates = recall(image, text, texts)
            found.append(float(np.mean(list(rates.values()))))
        if data.classes:
            labels = [data.rows[i].label for i in kept]
            known = [i for i, label in enumerate(labels) if label is not None]
            prompts = default_embeddings(clip, data.classes)
            guess = (image[known] @ prompts.T).argmax(axis=1)
            truth = np.array([data.classes.index(labels[i] or "") for i in known])
            found.append(float(np.mean([(guess == c)[truth == c].mean() for c in np.unique(truth)])))
        return float(np.mean(found)) if found else 0.0, least_loss(image, text, texts)


def least_loss(image: np.ndarray, text: np.ndarray, captions: Sequence[str]) -> float:
    """`pair_loss` at the best of many temperatures: what the embeddings tell, however sure of it the model is.

    The same for all models, whatever loss they learn by. A model that is wrong and sure has a high loss, and one that
    knows nothing and says so a lower one; between mixtures that would hide what they can tell apart.
    """
    cosines, wanted = _compared(image, text, captions)
    return min(_loss(cosines, wanted, float(scale)) for scale in _SCALES)


def pair_loss(image: np.ndarray, text: np.ndarray, captions: Sequence[str], scale: float) -> float:
    """The softmax loss of pairs, in float64, where pairs of one caption are positives of each other, equally weighted.

    image, text: unit embeddings [n, E], row i of both from pair i. scale: what cosines are multiplied with.
    """
    return _loss(*_compared(image, text, captions), scale)


def _compared(image: np.ndarray, text: np.ndarray, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(cosines, share of each text in what is right for an image), float64 [n, n]."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    group = np.array([numbers[caption] for caption in captions])
    wanted = (group[:, None] == group[None, :]).astype(np.float64)
    return image.astype(np.float64) @ text.astype(np.float64).T, wanted / wanted.sum(axis=1, keepdims=True)


def _loss(cosines: np.ndarray, wanted: np.ndarray, scale: float) -> float:
    return (_cross_entropy(scale * cosines, wanted) + _cross_entropy(scale * cosines.T, wanted)) / 2


def _cross_entropy(logits: np.ndarray, wanted: np.ndarray) -> float:
    logits = logits - logits.max(axis=1, keepdims=True)
    of_all = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(((of_all - logits) * wanted).sum(axis=1).mean())
