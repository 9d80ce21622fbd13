"""Zero-shot for images with several findings: sentences that say a finding is there against those that say it is not.

Two rows for each model: by both kinds of sentences (CheXzero's way: of each finding the softmax over both, by the
model's scale), which gives probabilities and so sensitivity and specificity, too; and by the cosine to the positive
ones alone.
"""

from collections.abc import Sequence

import numpy as np

from biomedclip_jax.data.labelled.multi_label import MultiLabelled
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._evaluation import Evaluation, check_finite
from biomedclip_jax.evaluation._metrics import sklearn_metrics
from biomedclip_jax.evaluation._thresholds import THRESHOLDS
from biomedclip_jax.evaluation.multi_label._numbers import Scored, findings_results
from biomedclip_jax.evaluation.report.results import COSINE, MULTI_LABEL, Result
from biomedclip_jax.evaluation.zero_shot.task import cosines
from biomedclip_jax.prompts.findings import FindingPrompts, log_odds_of_both
from biomedclip_jax.prompts.templates import Aggregation

BOTH = "positive against negative"


def zero_shot_findings(
    evaluation: Evaluation,
    data: MultiLabelled,
    prompts: FindingPrompts,
    *,
    aggregate: Aggregation = "mean",
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Result]:
    """Two results for each candidate, `BOTH` and `COSINE` by their setting "score", all on the same images.

    Numbers are those of `findings_results`. thresholds: of the probability, for sensitivity and specificity of `BOTH`.
    Raises UserError where prompts do not fit the findings, two of them are one text to a model, for GLoRIA's rule (its
    scores have no zero), and where an embedding is not finite.
    """
    sklearn_metrics()  # before hours of work
    if aggregate == "gloria":
        raise UserError("--aggregate gloria: chooses among classes; for several findings expected mean, max or single")
    if len(prompts.positive.sentences) != len(data.findings):
        raise UserError(f"{data.name}: {len(data.findings)} findings, but prompts for {len(prompts.positive.sentences)}")
    images, errors = evaluation.embed(data.images, data.fingerprint)
    kept = np.setdiff1d(np.arange(len(data)), list(errors))
    if not len(kept):
        raise UserError(f"{evaluation.dataset}: no image can be read by all of the models")
    names = [data.names[int(i)] for i in kept]
    sentences = {"prompts": prompts.positive.sentences, "negative_prompts": prompts.negative.sentences}
    asked = {name: [list(own) for own in each] for name, each in sentences.items()} | {"aggregate": aggregate}
    scored = []
    for candidate, found in zip(evaluation.candidates, images, strict=True):
        image = found.rows[np.isin(found.kept, kept)]
        check_finite(candidate, image, names)
        text = evaluation.embeddings.texts(candidate, prompts.flat, f"{evaluation.dataset}: prompts")
        check_finite(candidate, text, prompts.flat)
        prompts.check_told_apart(evaluation.dataset, data.findings, text, candidate.name)
        yes, no = prompts.divided(text)
        present = cosines(image, yes, prompts.positive, aggregate)
        absent = cosines(image, no, prompts.negative, aggregate)
        scale = evaluation.embeddings.logit_scale(candidate)
        both = asked | {"score": BOTH, "thresholds": list(thresholds), "logit_scale": scale}
        scored.append(Scored(candidate, log_odds_of_both(present, absent, scale), both, thresholds))
        scored.append(Scored(candidate, present.astype(np.float64), asked | {"score": COSINE}))
    return findings_results(evaluation, MULTI_LABEL, data, kept, errors, scored)
