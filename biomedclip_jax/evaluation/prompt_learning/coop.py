"""CoOp, Context Optimization (Zhou et al., 2022, arXiv 2109.01134): the words round a class's name are learned as vectors.

CLEFT's second stage: thirty learned vectors before the names of the classes, both towers frozen.

Source: the paper (arXiv 2407.21011), which learns them by the cross-entropy of classification. Its released code calls the
contrastive loss instead, and leaves the image tower free; neither is done here.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jax import Array

from biomedclip_jax.config import CLIPConfig
from biomedclip_jax.evaluation.metrics import softmax
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit
from biomedclip_jax.models.clip import logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout, initial_context
from biomedclip_jax.prompts.learned import LearnedPrompts, encode_prompts, layout_for


@dataclass(frozen=True)
class CoOpLoss:
    """Cross-entropy of the classes. trained: "context"; frozen: "params", "tokens", "slots"."""

    model: CLIPConfig

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        layout = Layout(frozen["tokens"], frozen["slots"])
        texts = encode_prompts(self.model, frozen["params"], layout, trained["context"])
        return cross_entropy(logits(images, texts, frozen["params"]["logit_scale"]), labels, weights)


@dataclass(frozen=True)
class CoOp:
    """16 learned vectors, SGD 2e-3, batch 32; 50 epochs with one image a class, 100 with up to 4, 200 with more.

    recipe: None is the published one just said.
    """

    context: ContextConfig = ContextConfig()
    recipe: Recipe | None = None

    @property
    def name(self) -> str:
        """See `Method`."""
        return "coop"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """From all images of `task.given`, with the settings of the last epoch; nothing is chosen by validation."""
        clip, given = task.candidate.clip, task.given
        recipe = self._recipe(task)
        frozen, start = prepare(task, self.context)
        arrays, _ = fit(CoOpLoss(clip.config), recipe, start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("coop", given.data.classes, self.context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """See `Method`."""
        return predict(self.learn(task), task, self._recipe(task))

    def _recipe(self, task: FewShot) -> Recipe:
        if self.recipe is not None:
            return self.recipe
        shots = len(task.given) / len(task.given.data.classes)
        return Recipe(epochs=50 if shots <= 1 else 100 if shots <= 4 else 200)


def prepare(task: FewShot, context: ContextConfig) -> tuple[Arrays, dict[str, np.ndarray]]:
    """(frozen, start) of a training: the model's parameters and the prompts' layout; the first learned vectors."""
    clip, classes = task.candidate.clip, task.given.data.classes
    layout = layout_for(clip, classes, context)
    rng = np.random.default_rng([task.seed, 1])  # another stream than the order of the images
    table = clip.params["text"]["word"]
    start = initial_context(context, len(classes), clip.processor.tokenizer, table, rng)
    return {"params": clip.params, **layout._asdict()}, {"context": start}


def predict(learned: LearnedPrompts, task: FewShot, recipe: Recipe) -> Prediction:
    """Probabilities of `task.test` by learned prompts, with what they were learned by."""
    settings = {
        "context": learned.context.start,
        "position": learned.context.position,
        "class_specific": learned.context.class_specific,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "selection": "last_epoch",
        "augmentation": "none",
    }
    return Prediction(softmax(learned.scores(task.candidate.clip, task.test.unit)), settings, learned)


PHRASE = "this is a chest x ray of a patient with"


@dataclass(frozen=True)
class ContextPrompts(CoOp):
    """The method, on any text tower. context: 30 vectors shared by all classes, that start from a phrase, said again and again.

    recipe: None is CoOp's for the number of shots. CLEFT's, for whole training sets: SGD with momentum 0.9, rate 1e-4 falling
    to 1e-5, weight decay 1e-3, 8,000 updates of 288 images.
    """

    context: ContextConfig = ContextConfig(start=PHRASE, vectors=30)

    @property
    def name(self) -> str:
        """See `Method`."""
        return "context-prompts"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """As CoOp does, from another start."""
        return dataclasses.replace(super().learn(task), method="context-prompts")
