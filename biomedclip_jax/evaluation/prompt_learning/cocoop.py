"""CoCoOp, conditional context optimization (Zhou et al., 2022, arXiv 2203.05557): learned vectors that follow the image."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jax import Array

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.coop import FOUR_WORDS, predict, prepare, settings_of
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit
from biomedclip_jax.prompts.layout import ContextConfig, Layout
from biomedclip_jax.prompts.learned import Graph, LearnedPrompts, conditioned_logits, encode_conditioned


@dataclass(frozen=True)
class CoCoOpLoss:
    """CoCoOp's loss: cross-entropy of the classes.

    trained: "context" and the small network (`initial_meta_net`); frozen: "params", "tokens", "slots".
    """

    graph: Graph

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        layout = Layout(frozen["tokens"], frozen["slots"])
        texts = encode_conditioned(self.graph, frozen["params"], layout, trained, images)
        return cross_entropy(conditioned_logits(images, texts, frozen["params"]["logit_scale"]), labels, weights)


@dataclass(frozen=True)
class CoCoOp:
    """CoCoOp as a method of few labels: vectors from "a photo of a", plus what a small network makes of each image.

    Each image has prompts of its own, so that a test set of n images costs n x classes passes through the text tower.
    """

    context: ContextConfig = ContextConfig(start=FOUR_WORDS)
    recipe: Recipe = Recipe(epochs=10, batch_size=1)

    @property
    def name(self) -> str:
        """The task in results.json and tables: "cocoop"."""
        return "cocoop"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts from all images of `task.given`; those of the last epoch count.

        Raises UserError for a context of class-specific vectors, and where training diverged.
        """
        if self.context.class_specific:
            raise UserError("context class_specific = True: CoCoOp's vectors are shared by all classes; leave it out")
        clip, given = task.candidate.clip, task.given
        frozen, start = prepare(task, self.context)
        rng = np.random.default_rng([task.seed, 2])
        start |= initial_meta_net(clip.config.embed_width, clip.config.text.width, rng)
        arrays, _ = fit(CoCoOpLoss(clip.graph), self.recipe, start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("cocoop", given.data.classes, self.context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """Learn prompts, and predict the test images with them."""
        return predict(self.learn(task), task, self.settings(task))

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What any task is learned with."""
        return settings_of(self.context, self.recipe)

    def for_base_to_novel(self) -> Self:
        """The method itself: its published recipe is that from base to novel classes."""
        return self


def initial_meta_net(embed_width: int, word_width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """First weights of Linear(E, E/16), ReLU, Linear(E/16, D), from image embedding to word vector.

    They are drawn as in PyTorch: uniform within 1 / sqrt(inputs), biases, too.
    """
    hidden = max(1, embed_width // 16)

    def draw(inputs: int, *shape: int) -> np.ndarray:
        return rng.uniform(-(inputs**-0.5), inputs**-0.5, shape).astype(np.float32)

    return {
        "hidden_kernel": draw(embed_width, embed_width, hidden),
        "hidden_bias": draw(embed_width, hidden),
        "out_kernel": draw(hidden, hidden, word_width),
        "out_bias": draw(hidden, word_width),
    }
