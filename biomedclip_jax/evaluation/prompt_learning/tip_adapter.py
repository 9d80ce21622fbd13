"""Tip-Adapter (Zhang et al., 2022, arXiv 2207.09519): zero-shot logits plus votes of the labelled images near an image."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.evaluation.probe.methods import FewShot, Part, Prediction
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit


@dataclass(frozen=True)
class Search:
    """Which alpha (weight of the votes) and beta (their sharpness) are tried: a number of values from 0.1 up to `most_...`.

    The defaults are the authors' for ImageNet; BiomedCoOp's authors compare with 50 as the most of both.
    """

    most_alpha: float = 3.0
    alphas: int = 20
    most_beta: float = 7.0
    betas: int = 200

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """All values of alpha, and all of beta, float64."""
        alphas = 0.1 + np.arange(self.alphas) * (self.most_alpha - 0.1) / self.alphas
        return alphas, 0.1 + np.arange(self.betas) * (self.most_beta - 0.1) / self.betas


def cosines(images: Array, keys: Array) -> Array:
    """The cosines [B, K] of unit embeddings [B, E] and keys [K, E], in full float32."""
    return jnp.matmul(images, keys.T, precision=lax.Precision.HIGHEST)


def votes(near: Array, key_labels: Array, classes: int, beta: float | Array) -> Array:
    """The votes of the keys for each class, [B, C]: the sum of exp(-beta (1 - cosine)) over its keys.

    near: cosines [B, K]. key_labels: the class index of each key, int [K].
    """
    values = jax.nn.one_hot(key_labels, classes)
    return jnp.matmul(jnp.exp(-beta * (1 - near)), values, precision=lax.Precision.HIGHEST)


_votes = jax.jit(votes, static_argnames="classes")


@dataclass(frozen=True)
class KeysLoss:
    """The loss of Tip-Adapter-F: cross-entropy of the classes, zero-shot logits and votes together.

    trained: "keys" [K, E]; frozen: "text" [C, E], "scale" (), "key_labels" [K].
    """

    alpha: float
    beta: float

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        text = frozen["text"]
        cached = votes(cosines(images, trained["keys"]), frozen["key_labels"], len(text), self.beta)
        return cross_entropy(frozen["scale"] * cosines(images, text) + self.alpha * cached, labels, weights)


@dataclass(frozen=True)
class TipAdapter:
    """Tip-Adapter as a method of few labels: nothing is trained, alpha and beta are chosen on the validation images.

    alpha, beta: used where a task has no validation images. search: the pairs that are tried where it has.
    Zero-shot logits are those of the model's own temperature (the authors fix 100, which is that of OpenAI's CLIP).
    Differs from the authors' code: keys are embeddings of the images as they are, not means over ten random crops.
    """

    alpha: float = 1.17
    beta: float = 1.0
    search: Search = Search()

    @property
    def name(self) -> str:
        """The task in results.json and tables: "tip-adapter"."""
        return "tip-adapter"

    def keys(self, task: FewShot, part: Part) -> np.ndarray:
        """The keys that vote for the labels of `part`, float32 [n, E]."""
        return part.unit

    def __call__(self, task: FewShot) -> Prediction:
        """Choose alpha and beta, and predict the test images."""
        alpha, beta = self._choose(task)
        near = task.test.unit @ self.keys(task, task.given).T
        scores = _zero_shot(task, task.test) + alpha * np.asarray(_votes(near, _labels(task.given), len(task.text), beta))
        searched = "validation" if len(task.validation) else "none, too few images"
        return Prediction(scores.astype(np.float64), {"alpha": alpha, "beta": beta, "search": searched, "augmentation": "none"})

    def _choose(self, task: FewShot) -> tuple[float, float]:
        """The pair with the highest accuracy on validation; of equals the smallest beta, then the smallest alpha."""
        if not len(task.validation):
            return self.alpha, self.beta
        alphas, betas = self.search.grid()
        near, zero_shot = task.validation.unit @ self.keys(task, task.train).T, _zero_shot(task, task.validation)
        found = []
        for beta in betas:
            cached = np.asarray(_votes(near, _labels(task.train), len(task.text), beta))
            guesses = (zero_shot + alphas[:, None, None] * cached).argmax(axis=2)
            found.append((guesses == task.validation.labels).mean(axis=1))
        best_beta, best_alpha = np.unravel_index(np.argmax(found), (len(betas), len(alphas)))
        return float(alphas[best_alpha]), float(betas[best_beta])


def _zero_shot(task: FewShot, part: Part) -> np.ndarray:
    return task.embeddings.logit_scale(task.candidate) * (part.unit @ task.text.T)


def _labels(part: Part) -> np.ndarray:
    return part.labels.astype(np.int32)


@dataclass(frozen=True)
class TipAdapterF(TipAdapter):
    """Tip-Adapter with trained keys, by default AdamW 1e-3, batch 256, 20 epochs, cosine; the last epoch's count.

    The authors keep the epoch that is best on the test set; that is a choice by the test set, and not offered.
    """

    recipe: Recipe = Recipe(epochs=20, batch_size=256, learning_rate=1e-3, optimizer="adamw", weight_decay=0.01)

    @property
    def name(self) -> str:
        """The task in results.json and tables: "tip-adapter-f"."""
        return "tip-adapter-f"

    def keys(self, task: FewShot, part: Part) -> np.ndarray:
        """The keys that vote for the labels of `part`, float32 [n, E], after training on these labels."""
        frozen = {
            "text": task.text,
            "scale": np.float32(task.embeddings.logit_scale(task.candidate)),
            "key_labels": _labels(part),
        }
        loss = KeysLoss(self.alpha, self.beta)
        return fit(loss, self.recipe, {"keys": part.unit}, frozen, part.unit, part.labels, task.seed)[0]["keys"]
