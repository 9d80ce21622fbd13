"""Fine-tuning of a whole image tower for several findings: a linear layer with a sigmoid for each behind it.

Trained by binary cross-entropy on four fifths of the images; on the first fifth the learning rate, the weight decay,
the epoch that counts and the thresholds are chosen. No test image takes part in any choice. A label that does not
count adds nothing to the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._metrics import ranks_of, scored_findings, sklearn_metrics
from biomedclip_jax.evaluation._thresholds import youden
from biomedclip_jax.evaluation._trainer import State
from biomedclip_jax.evaluation.multi_label.learning import FindingTask, LearnedFindings, why_not_learned
from biomedclip_jax.evaluation.probe._head import EPOCHS, SEARCH_EPOCHS, binary_cross_entropy
from biomedclip_jax.evaluation.probe._image_tower import Tower, decoded
from biomedclip_jax.evaluation.probe._search import Score, full_search, small_search
from biomedclip_jax.evaluation.probe.finetune import FineTune, Images, kept, predicted, trained
from biomedclip_jax.evaluation.report.results import MULTI_LABEL_FINETUNE
from biomedclip_jax.prompts.findings import FindingPrompts
from biomedclip_jax.prompts.templates import class_embeddings

PATIENCE = 10  # epochs without a better one, after which a training ends


@dataclass(frozen=True, eq=False)
class _Best:
    """The first of the best epochs of a training, counted from 1: its mean AUROC on the images that validate, their logits,
    and the state; 0 epochs where the loss was never finite.
    """

    epochs: int = 0
    mean_auroc: float = 0.0
    logits: np.ndarray | None = None
    state: State | None = None


@dataclass(frozen=True)
class FineTuneFindings:
    """Fine-tuning of the image tower for findings.

    options: search, learning rate, weight decay and microbatch. prompts: the linear layer begins as the sentences of each
    finding less those of its absence.
    """

    options: FineTune
    prompts: FindingPrompts
    _pixels: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    _towers: dict[str, Tower] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What tables call it: "finetune"."""
        return "finetune"

    @property
    def task(self) -> str:
        """The task in results.json: "multi-label-finetune"."""
        return MULTI_LABEL_FINETUNE

    def __call__(self, task: FindingTask) -> LearnedFindings:
        """Choose settings and epoch on the images that validate, and predict the test images by that epoch.

        Raises UserError where these images cannot choose, every training diverges, or an image cannot be read.
        """
        data, candidate = task.given.data, task.candidate
        missing = {f: why for f, own in enumerate(data.answers.T) if (why := why_not_learned(own))}
        if len(missing) == len(data.findings):
            return LearnedFindings(np.zeros((len(task.test), len(data.findings))), missing)
        validates = task.validates()
        validation_answers = data.answers[validates].copy()
        validation_answers[:, list(missing)] = -1
        if not (scored := scored_findings(validation_answers)) or validates.all():
            raise UserError(
                f"{data.name}: of {len(data):,} training images {validates.sum():,} validate, and of no finding they have "
                "images with it and without it; nothing can be chosen on them: give more images"
            )
        tower = kept(
            self._towers,
            candidate.fingerprint,
            lambda: Tower(candidate.clip, self.options.microbatch, loss=binary_cross_entropy),
        )
        config = candidate.clip.processor.config
        pixels = decoded(data.images, data.names, config)
        train, validation = (Images(pixels, np.flatnonzero(own), data.answers[own]) for own in (~validates, validates))
        text = self._begun_from(task)

        def run(pair: tuple[float, float], epochs: int, keep: bool = False) -> _Best:
            best = _Best()
            for epoch, (state, losses) in enumerate(trained(tower, train, text, pair, epochs, task.seed), 1):
                logits = predicted(tower, state, validation)
                if not np.isfinite(losses[-1:]).all() or not np.isfinite(logits).all():
                    break
                reached = _mean_auroc(validation_answers, logits, scored)
                if reached > best.mean_auroc:
                    best = _Best(epoch, reached, logits, _copy(state) if keep else None)
                elif epoch - best.epochs >= PATIENCE:
                    break
            return best

        settings, pair = self._chosen(lambda pairs: np.array([run(each, SEARCH_EPOCHS).mean_auroc for each in pairs]))
        best = run(pair, EPOCHS, keep=True)
        if best.state is None or best.logits is None:
            raise UserError(
                f"fine-tuning {candidate.name} diverged with learning rate {pair[0]:g} and weight decay {pair[1]:g}: "
                "its loss is no longer a number; try --search full, or a smaller learning rate"
            )
        tested = task.test.data
        pixels = kept(self._pixels, f"{tested.fingerprint} {config}", lambda: decoded(tested.images, tested.names, config))
        own = Images(pixels, np.arange(len(tested)), tested.answers)
        thresholds = {f: _threshold(validation_answers[:, f], best.logits[:, f]) for f in scored}
        return LearnedFindings(
            predicted(tower, best.state, own),
            missing,
            {f: value for f, value in thresholds.items() if value is not None},
            f"the {int(validates.sum()):,} training images that were not trained on",
            settings | {"epochs": best.epochs, "validation_mean_auroc": best.mean_auroc, "validation": int(validates.sum())},
        )

    def _chosen(self, score: Score) -> tuple[dict[str, Any], tuple[float, float]]:
        """The settings of the row, and the learning rate and weight decay that are the best by `score`."""
        options, tried = self.options, 0
        pair = options.learning_rate, options.weight_decay
        if options.search != "none":
            found = full_search(score) if options.search == "full" else small_search(score)
            pair, tried = (found.learning_rate, found.weight_decay), found.tried
        words = {
            "prompts": [list(own) for own in self.prompts.positive.sentences],
            "negative_prompts": [list(own) for own in self.prompts.negative.sentences],
        }
        settings = {"search": options.search, "learning_rate": pair[0], "weight_decay": pair[1], "begun_from": words}
        return settings | ({"tried": tried} if tried else {}), pair

    def _begun_from(self, task: FindingTask) -> np.ndarray:
        """Weights [F, E] to begin with: of each finding the embedding of its sentences less that of its absence."""
        text = task.embeddings.texts(task.candidate, self.prompts.flat, "prompts")
        yes, no = self.prompts.divided(text)
        return class_embeddings(yes, self.prompts.positive) - class_embeddings(no, self.prompts.negative)


def _mean_auroc(answers: np.ndarray, logits: np.ndarray, scored: Sequence[int]) -> float:
    """Over the findings `scored` of images [n], their answers and logits [n, F]."""
    areas = []
    for f in scored:
        known = answers[:, f] >= 0
        areas.append(sklearn_metrics().roc_auc_score(answers[known, f] == 1, ranks_of(logits[known, f])))
    return float(np.mean(areas))


def _threshold(answers: np.ndarray, logits: np.ndarray) -> float | None:
    known = answers >= 0
    return youden(answers[known] == 1, logits[known])


def _copy(state: State) -> State:
    """Of what predictions need; the state itself is donated to the next step."""
    params, statistics = jax.tree.map(jnp.copy, (state.params, state.statistics))
    return State(params, (), statistics)
