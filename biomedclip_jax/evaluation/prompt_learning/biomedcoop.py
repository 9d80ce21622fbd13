"""BiomedCoOp (Koleilat et al., CVPR 2025): CoOp held near the sentences of a language model about each class."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.coop import FOUR_WORDS, predict, prepare, settings_of
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit, mean
from biomedclip_jax.models import unit_length
from biomedclip_jax.models.clip import logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout
from biomedclip_jax.prompts.learned import Graph, LearnedPrompts, encode_prompts
from biomedclip_jax.prompts.templates import read_prompts


def chosen_sentences(scores: Array, threshold: float) -> Array:
    """bool [K]: sentences whose score is within `threshold` standard deviations (of a sample) of the mean score.

    The published z = (score - median) / median absolute deviation is standardised once more before the comparison, so that
    median and deviation cancel; this is what remains, and it needs no deviation above 0. Equal scores are all chosen.
    """
    difference = scores - scores.mean()
    deviation = jnp.sqrt((difference**2).sum() / max(1, len(scores) - 1))
    return jnp.abs(difference) <= threshold * deviation


@dataclass(frozen=True)
class BiomedCoOpLoss:
    """BiomedCoOp's loss: cross-entropy + sccm · MSE + kdsp · KL.

    trained: "context"; frozen: "params", "tokens", "slots" and "sentences", unit embeddings [K, C, E].
    SCCM: squared distance, mean over all numbers, between the class embeddings and the normalised mean of each class's
    sentences.
    KDSP: KL divergence, divided by the number of logits, of the prediction from that of a zero-shot teacher, whose weights
    are the normalised means of the chosen sentences. Sentence k of all classes together is scored by the batch: the mean
    of the highest logit of each image.
    """

    graph: Graph
    sccm: float
    kdsp: float
    threshold: float

    def __call__(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> Array:
        """The loss of a batch; see `training.Loss`."""
        layout = Layout(frozen["tokens"], frozen["slots"])
        scale = frozen["params"]["logit_scale"]
        texts = encode_prompts(self.graph, frozen["params"], layout, trained["context"])
        student = logits(images, texts, scale)
        sentences = frozen["sentences"]
        nearest = unit_length(sentences.mean(axis=0))
        by_sentence = jnp.einsum("be,kce->kbc", images, sentences, precision=lax.Precision.HIGHEST)
        best = jnp.exp(scale) * by_sentence.max(axis=2)  # [K, B]
        chosen = chosen_sentences(jax.vmap(mean, in_axes=(0, None))(best, weights), self.threshold)
        teacher = logits(images, unit_length((sentences * chosen[:, None, None]).sum(axis=0)), scale)
        told, said = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
        divergence = mean((jnp.exp(told) * (told - said)).mean(axis=1), weights)
        distance = ((texts - nearest) ** 2).mean()
        return cross_entropy(student, labels, weights) + self.sccm * distance + self.kdsp * divergence


FEW_SHOT = Recipe(epochs=100, batch_size=4, learning_rate=2.5e-3)


@dataclass(frozen=True)
class BiomedCoOp:
    """BiomedCoOp as a method of few labels: by default 100 epochs of SGD, with the weights of its terms for BTMRI.

    The authors chose sccm, kdsp and threshold by data set: BTMRI 0.5, 0.25, 1.5; LC25000 0.5, 0.5, 1.5;
    DermaMNIST 5, 20, 1.5; others between (`configs/trainers/BiomedCoOp/few_shot`).
    sentences: a file as `read_prompts` takes it, equally many for each class; None: the prompts of the task. The authors
    have 50 a class from GPT-4, in their repository (`trainers/prompt_templates.py`).
    """

    sentences: Path | None = None
    sccm: float = 0.5
    kdsp: float = 0.25
    threshold: float = 1.5
    context: ContextConfig = ContextConfig(start=FOUR_WORDS)
    recipe: Recipe = FEW_SHOT

    @property
    def name(self) -> str:
        """The task in results.json and tables: "biomedcoop"."""
        return "biomedcoop"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts from all images of `task.given`; those of the last epoch count.

        Raises UserError where training diverged, or the classes have different numbers of sentences.
        """
        clip, given = task.candidate.clip, task.given
        frozen, start = prepare(task, self.context)
        frozen["sentences"] = self._embed(task)
        loss = BiomedCoOpLoss(clip.graph, self.sccm, self.kdsp, self.threshold)
        arrays, _ = fit(loss, self.recipe, start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("biomedcoop", given.data.classes, self.context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """Learn prompts, and predict the test images with them."""
        return predict(self.learn(task), task, self.settings(task))

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What any task is learned with."""
        return settings_of(self.context, self.recipe) | {
            "sccm": self.sccm,
            "kdsp": self.kdsp,
            "threshold": self.threshold,
            "sentences": str(self.sentences) if self.sentences else "the prompts of the task",
        }

    def for_base_to_novel(self) -> Self:
        """The method as its authors have it from base to novel classes: 50 epochs, where no recipe was given."""
        # the default itself: one like it that was given is meant
        return dataclasses.replace(self, recipe=dataclasses.replace(FEW_SHOT, epochs=50)) if self.recipe is FEW_SHOT else self

    def _embed(self, task: FewShot) -> np.ndarray:
        classes = task.given.data.classes
        prompts = read_prompts(self.sentences, classes) if self.sentences else task.prompts
        counts = {len(own) for own in prompts.sentences}
        if len(counts) > 1:
            raise UserError(
                "biomedcoop: the classes have different numbers of prompts; give a file with equally many sentences"
            )
        rows = task.embeddings.texts(task.candidate, prompts.flat, "prompts")
        return rows.reshape(len(classes), counts.pop(), -1).swapaxes(0, 1)
