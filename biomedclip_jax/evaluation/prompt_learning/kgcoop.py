"""KgCoOp, knowledge-guided context optimization (Yao et al., CVPR 2023, arXiv 2303.13283): CoOp held near zero-shot."""

from dataclasses import dataclass
from typing import Any, Self

from jax import Array

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.coop import FOUR_WORDS, predict, prepare, settings_of
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit
from biomedclip_jax.models.clip import logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout
from biomedclip_jax.prompts.learned import Graph, LearnedPrompts, encode_prompts


@dataclass(frozen=True)
class KgCoOpLoss:
    """KgCoOp's loss: cross-entropy + weight · (1 - mean cosine of each class's embedding with its zero-shot weights).

    trained: "context"; frozen: "params", "tokens", "slots" and "zero_shot", unit embeddings [C, E].
    """

    graph: Graph
    weight: float

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        layout = Layout(frozen["tokens"], frozen["slots"])
        texts = encode_prompts(self.graph, frozen["params"], layout, trained["context"])
        away = 1 - (texts * frozen["zero_shot"]).sum(axis=1).mean()
        scores = logits(images, texts, frozen["params"]["logit_scale"])
        return cross_entropy(scores, labels, weights) + self.weight * away


@dataclass(frozen=True)
class KgCoOp:
    """KgCoOp as a method of few labels: by default 100 epochs of SGD 2e-3, batch 128, from "a photo of a".

    weight: of the distance from zero-shot, 8 in the authors' scripts for all data; BiomedCoOp's authors took 1 to 10, by
    data set. Zero-shot are the prompts of the task, of several sentences a class their normalised mean; the authors have
    one sentence. UserError for a weight below 0.
    """

    weight: float = 8.0
    context: ContextConfig = ContextConfig(start=FOUR_WORDS)
    recipe: Recipe = Recipe(epochs=100, batch_size=128)

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"kgcoop: weight = {self.weight}: expected a number from 0 on")

    @property
    def name(self) -> str:
        """The task in results.json and tables: "kgcoop"."""
        return "kgcoop"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts from all images of `task.given`; those of the last epoch count.

        Raises UserError where training diverged.
        """
        clip, given = task.candidate.clip, task.given
        frozen, start = prepare(task, self.context)
        frozen["zero_shot"] = task.text
        loss = KgCoOpLoss(clip.graph, self.weight)
        arrays, _ = fit(loss, self.recipe, start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("kgcoop", given.data.classes, self.context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """Learn prompts, and predict the test images with them."""
        return predict(self.learn(task), task, self.settings(task))

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What any task is learned with."""
        return settings_of(self.context, self.recipe) | {"weight": self.weight}

    def for_base_to_novel(self) -> Self:
        """The method itself: its published recipe is that from base to novel classes."""
        return self
