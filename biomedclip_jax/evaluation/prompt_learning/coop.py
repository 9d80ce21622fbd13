"""CoOp, Context Optimization (Zhou et al., 2022, arXiv 2109.01134): words round a class's name are learned as vectors.

With thirty vectors before the name it is CLEFT's second stage, both towers frozen (`ContextPrompts`). That is what
CLEFT's paper describes (arXiv 2407.21011), which learns the vectors by the cross-entropy of classification. Its
released code calls the contrastive loss instead, and leaves the image tower free; neither is done here.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jax import Array

from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit
from biomedclip_jax.models.clip import logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout, initial_context
from biomedclip_jax.prompts.learned import Graph, LearnedPrompts, encode_prompts, layout_for

FOUR_WORDS = "a photo of a"  # from which all but CoOp start, and CoOp from base to novel classes, too


@dataclass(frozen=True)
class CoOpLoss:
    """CoOp's loss: cross-entropy of the classes. trained: "context"; frozen: "params", "tokens", "slots"."""

    graph: Graph

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        layout = Layout(frozen["tokens"], frozen["slots"])
        texts = encode_prompts(self.graph, frozen["params"], layout, trained["context"])
        return cross_entropy(logits(images, texts, frozen["params"]["logit_scale"]), labels, weights)


@dataclass(frozen=True)
class CoOp:
    """CoOp as a method of few labels.

    context: None is 16 vectors. recipe: None is the published one: SGD 2e-3, batch 32; 50 epochs with one image a class,
    100 with up to 4, 200 with more. From base to novel classes both are others, see `for_base_to_novel`.
    """

    context: ContextConfig | None = None
    recipe: Recipe | None = None

    @property
    def name(self) -> str:
        """The task in results.json and tables: "coop"."""
        return "coop"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts from all images of `task.given`; those of the last epoch count, none are chosen by validation.

        Raises UserError where training diverged.
        """
        clip, given, context = task.candidate.clip, task.given, self._context
        frozen, start = prepare(task, context)
        arrays, _ = fit(CoOpLoss(clip.graph), self._recipe(task), start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("coop", given.data.classes, context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """Learn prompts, and predict the test images with them."""
        return predict(self.learn(task), task, self.settings(task))

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What a task is learned with."""
        return settings_of(self._context, self._recipe(task))

    def for_base_to_novel(self) -> Self:
        """The method as CoCoOp's authors compare it from base to novel classes, where nothing else is chosen.

        Vectors start from the four words "a photo of a", and there are 50 epochs, whatever the number of images.
        """
        context = self.context or ContextConfig(start=FOUR_WORDS)
        return dataclasses.replace(self, context=context, recipe=self.recipe or Recipe(epochs=50))

    @property
    def _context(self) -> ContextConfig:
        return self.context or ContextConfig()

    def _recipe(self, task: FewShot) -> Recipe:
        return self.recipe or Recipe(epochs=epochs_of(task))


def epochs_of(task: FewShot) -> int:
    """The published epochs: 50 with one image a class, 100 with up to 4, 200 with more."""
    shots = len(task.given) / len(task.given.data.classes)
    return 50 if shots <= 1 else 100 if shots <= 4 else 200


def prepare(task: FewShot, context: ContextConfig) -> tuple[Arrays, dict[str, np.ndarray]]:
    """What a training of prompts starts from.

    Returns (frozen, start): the model's parameters and the prompts' layout; the first vectors, float32, drawn with the
    seed of the task where they do not start from words.
    """
    clip, classes = task.candidate.clip, task.given.data.classes
    layout = layout_for(clip, classes, context)
    rng = np.random.default_rng([task.seed, 1])  # another stream than the order of the images
    table = clip.params["text"]["word"]
    start = initial_context(context, len(classes), clip.processor.tokenizer, table, rng)
    return {"params": clip.params, **layout._asdict()}, {"context": start}


def settings_of(context: ContextConfig, recipe: Recipe) -> dict[str, Any]:
    """The settings of a result that say how its prompts were learned."""
    return {
        "context": context.start,
        "position": context.position,
        "class_specific": context.class_specific,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "selection": "last_epoch",
        "augmentation": "none",
    }


def predict(learned: LearnedPrompts, task: FewShot, settings: dict[str, Any]) -> Prediction:
    """Logits of `task.test` by learned prompts. settings: what they were learned with."""
    return Prediction(learned.scores(task.candidate.clip, task.test.unit).astype(np.float64), settings, learned)


PHRASE = "this is a chest x ray of a patient with"


@dataclass(frozen=True)
class ContextPrompts(CoOp):
    """CLEFT's second stage as a method of few labels, on any text tower.

    context: 30 vectors shared by all classes, which start from a phrase that is repeated as often as needed.
    recipe: None is CoOp's for the number of shots. CLEFT's, for whole training sets: SGD with momentum 0.9, rate 1e-4
    falling to 1e-5, weight decay 1e-3, 8,000 updates of 288 images.
    """

    context: ContextConfig | None = ContextConfig(start=PHRASE, vectors=30)

    @property
    def name(self) -> str:
        """The task in results.json and tables: "context-prompts"."""
        return "context-prompts"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts as `CoOp.learn` does, from another start."""
        return dataclasses.replace(super().learn(task), method="context-prompts")
