"""ProGrad, prompt-aligned gradient (Zhu et al., ICCV 2023, arXiv 2205.14865): CoOp that never unlearns zero-shot."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Prediction
from biomedclip_jax.evaluation.prompt_learning.coop import FOUR_WORDS, epochs_of, predict, prepare, settings_of
from biomedclip_jax.evaluation.prompt_learning.training import Arrays, Recipe, cross_entropy, fit, mean
from biomedclip_jax.models.clip import logits
from biomedclip_jax.prompts.layout import ContextConfig, Layout
from biomedclip_jax.prompts.learned import Graph, LearnedPrompts, encode_prompts


@dataclass(frozen=True)
class ProGradDescent:
    """ProGrad's direction: the gradient of the cross-entropy, without what would lead away from the zero-shot teacher.

    trained: "context"; frozen: "params", "tokens", "slots" and "zero_shot", unit embeddings [C, E], the teacher's.
    Where the gradient of the cross-entropy points against that of the teacher's term, its part along that one is taken
    out, times `weight` (the authors' lambda); otherwise it stays. The teacher's term is the cross-entropy of student and
    teacher, both at `temperature`, times its square.
    """

    graph: Graph
    weight: float
    temperature: float

    def losses(self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
        """The cross-entropy of a batch and the teacher's term."""
        layout, scale = Layout(frozen["tokens"], frozen["slots"]), frozen["params"]["logit_scale"]
        texts = encode_prompts(self.graph, frozen["params"], layout, trained["context"])
        student, teacher = logits(images, texts, scale), logits(images, frozen["zero_shot"], scale)
        told = jax.nn.softmax(teacher / self.temperature)
        said = jax.nn.log_softmax(student / self.temperature)
        apart = self.temperature**2 * mean(-(told * said).sum(axis=1), weights)
        return cross_entropy(student, labels, weights), apart

    def value_and_grad(
        self, trained: Arrays, frozen: Arrays, images: Array, labels: Array, weights: Array
    ) -> tuple[Array, Arrays]:
        """The cross-entropy of a batch, and what its update follows; see `training.Descent`."""
        (loss, apart), pull = jax.vjp(lambda arrays: self.losses(arrays, frozen, images, labels, weights), trained)
        one, none = jnp.ones_like(loss), jnp.zeros_like(apart)
        (learned,), (kept,) = pull((one, none)), pull((none, one))
        return loss, jax.tree.map(self._aligned, learned, kept)

    def _aligned(self, learned: Array, kept: Array) -> Array:
        """The gradient `learned` without its part against the gradient `kept`."""
        together, square = jnp.vdot(learned, kept), jnp.vdot(kept, kept)
        against = (together < 0) & (square > 0)
        return learned - jnp.where(against, self.weight * together / jnp.where(square > 0, square, 1), 0) * kept


@dataclass(frozen=True)
class ProGrad:
    """ProGrad as a method of few labels, by default with CoOp's published recipe: 50, 100 or 200 epochs, by the shots.

    weight: the authors' lambda, 1, or 0.8 with 8 and 16 shots of three of their data sets. temperature: 1;
    BiomedCoOp's authors took 0.25 to 4, by data set. Teacher are the prompts of the task.
    The authors start from 16 vectors, zeros before the words of a template; here, as BiomedCoOp's authors have it, from
    the four words alone. Their numbers of ProGrad are of another method: in their code the teacher is the student.
    UserError for a weight below 0, or a temperature that is not above 0.
    """

    weight: float = 1.0
    temperature: float = 1.0
    context: ContextConfig = ContextConfig(start=FOUR_WORDS)
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"prograd: weight = {self.weight}: expected a number from 0 on")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"prograd: temperature = {self.temperature}: expected a number above 0")

    @property
    def name(self) -> str:
        """The task in results.json and tables: "prograd"."""
        return "prograd"

    def learn(self, task: FewShot) -> LearnedPrompts:
        """Learn prompts from all images of `task.given`; those of the last epoch count.

        Raises UserError where training diverged.
        """
        clip, given = task.candidate.clip, task.given
        frozen, start = prepare(task, self.context)
        frozen["zero_shot"] = task.text
        descent = ProGradDescent(clip.graph, self.weight, self.temperature)
        arrays, _ = fit(descent, self._recipe(task), start, frozen, given.unit, given.labels, task.seed)
        return LearnedPrompts("prograd", given.data.classes, self.context, arrays)

    def __call__(self, task: FewShot) -> Prediction:
        """Learn prompts, and predict the test images with them."""
        return predict(self.learn(task), task, self.settings(task))

    def settings(self, task: FewShot) -> dict[str, Any]:
        """What a task is learned with."""
        about = {"weight": self.weight, "temperature": self.temperature}
        return settings_of(self.context, self._recipe(task)) | about

    def for_base_to_novel(self) -> Self:
        """The method as its authors have it from base to novel classes: 100 epochs, where no recipe was given."""
        return dataclasses.replace(self, recipe=self.recipe or Recipe(epochs=100))

    def _recipe(self, task: FewShot) -> Recipe:
        return self.recipe or Recipe(epochs=epochs_of(task))
