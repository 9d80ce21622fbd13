"""CLIP-Adapter (Gao et al., IJCV 2024, arXiv 2110.04544): a small network that changes the image embeddings."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.coop import epochs_of
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit
from biomedclip_jax.models import unit_length

REDUCTION = 4  # the network is narrower in the middle, by so much


def initial_adapter(width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """First weights of Linear(E, E/4), ReLU, Linear(E/4, E), ReLU without biases: "down" [E, E/4] and "up" [E/4, E].

    They are drawn as in PyTorch: uniform within 1 / sqrt(inputs).
    """
    hidden = max(1, width // REDUCTION)
    shapes = {"down": (width, hidden), "up": (hidden, width)}
    return {name: rng.uniform(-(s[0] ** -0.5), s[0] ** -0.5, s).astype(np.float32) for name, s in shapes.items()}


def adapted_logits(trained: Arrays, frozen: Arrays, features: Array, ratio: float) -> Array:
    """Logits [B, C] of image embeddings [B, E], not of unit length, that the network has changed.

    ratio: how much of the network's output there is in the new embedding, the rest is the old one; then it is made unit
    length. trained: see `initial_adapter`; frozen: "text" [C, E] and "scale" ().
    """
    new = features
    for name in ("down", "up"):
        new = jax.nn.relu(jnp.matmul(new, trained[name], precision=lax.Precision.HIGHEST))
    images = unit_length(ratio * new + (1 - ratio) * features)
    return frozen["scale"] * jnp.matmul(images, frozen["text"].T, precision=lax.Precision.HIGHEST)


_adapted_logits = jax.jit(adapted_logits)


@dataclass(frozen=True)
class AdapterLoss:
    """The loss of CLIP-Adapter: cross-entropy of the classes. trained, frozen, ratio: see `adapted_logits`."""

    ratio: float

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`, but that `images` are not unit length."""
        return cross_entropy(adapted_logits(trained, frozen, images, self.ratio), labels, weights)


@dataclass(frozen=True)
class ClipAdapter:
    """CLIP-Adapter as a method of few labels, on the image side alone, as its authors publish it.

    ratio: 0.2 in the authors' code, for ImageNet; in their paper chosen by data set; BiomedCoOp's authors compare with
    0.5, and there the embedding stays as long as the blend makes it.
    recipe: None is CoOp's, with whose commands the authors run it: SGD 2e-3, batch 32, 50, 100 or 200 epochs by the shots;
    BiomedCoOp's authors have 0.01 and 20 epochs. UserError for a ratio that is not above 0, at most 1.
    """

    ratio: float = 0.2
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UserError(f"clip-adapter: ratio = {self.ratio}: expected a number above 0, at most 1")

    @property
    def name(self) -> str:
        """The task in results.json and tables: "clip-adapter"."""
        return "clip-adapter"

    def __call__(self, task: FewShot) -> Prediction:
        """Train the network on all images of `task.given`, the last epoch's counts, and predict the test images.

        Raises UserError where training diverged.
        """
        recipe, given = self.recipe or Recipe(epochs=epochs_of(task)), task.given
        frozen = {"text": task.text, "scale": np.float32(task.embeddings.logit_scale(task.candidate))}
        # another stream than the order of the images
        start = initial_adapter(given.features.shape[1], np.random.default_rng([task.seed, 1]))
        trained, _ = fit(AdapterLoss(self.ratio), recipe, start, frozen, given.features, given.labels, task.seed)
        scores = np.asarray(_adapted_logits(trained, frozen, task.test.features, self.ratio))
        settings = {
            "ratio": self.ratio,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate,
            "selection": "last_epoch",
            "augmentation": "none",
        }
        return Prediction(scores.astype(np.float64), settings)
