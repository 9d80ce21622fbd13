"""Zero-shot classification: an image belongs to the class whose sentences are nearest to it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.data.labelled.groups import intervals_over, numbers_of
from biomedclip_jax.data.labelled.types import Labelled, labels_fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._bootstrap import bootstrap
from biomedclip_jax.evaluation._completeness import completeness, total
from biomedclip_jax.evaluation._evaluation import Evaluation, check_finite
from biomedclip_jax.evaluation._intervals import classification_intervals
from biomedclip_jax.evaluation._metrics import (
    classification_metrics,
    confusion_counts,
    majority_metrics,
    metrics_per_class,
    sklearn_metrics,
)
from biomedclip_jax.evaluation._thresholds import THRESHOLDS, Groups, of_second_class, youden
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.report.results import Result
from biomedclip_jax.evaluation.zero_shot._pictures import Answers, draw
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.prompts.learned import LearnedPrompts, load_prompts
from biomedclip_jax.prompts.templates import Aggregation, Prompts, check_told_apart, class_embeddings


def zero_shot(
    evaluation: Evaluation,
    data: Labelled,
    prompts: Prompts,
    *,
    aggregate: Aggregation = "mean",
    learned: Path | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    chooses: Labelled | None = None,
) -> list[Result]:
    """One result for each candidate, all on the same images, with pictures in `evaluation.out`.

    Metrics are those of `classification_metrics`, of logit scale x cosine in float64, and of `majority_metrics`.
    Intervals are 95 % intervals over images. Details: per_class (n, precision, recall, f1), confusion (rows are true
    classes), no_interval (why a metric has none), left_out: what was left out when the data were opened, and images that
    one of the candidates can't read, which count for none; caveats: what else has to be said of the data. Outcomes: the
    labels and logits of the images.
    Of two classes also operating_points: sensitivity and specificity for the second one at `thresholds` of its
    probability, and at the one with the largest sum of both on the images `chooses`, which are none of the data's.
    aggregate: see `cosines`. learned: a file of learned prompts, used instead of `prompts` with the data's class names.
    Raises UserError where classes and prompts don't fit each other, the learned ones belong to another model, or an
    embedding is not finite.
    """
    candidates, embeddings = evaluation.candidates, evaluation.embeddings
    # before hours of work
    sklearn_metrics()
    _check(candidates, data, prompts)
    own = [None if learned is None else load_prompts(learned, each.clip).with_classes(data.classes) for each in candidates]
    images, errors = evaluation.embed(data.images, data.fingerprint)
    kept = np.setdiff1d(np.arange(len(data)), list(errors))
    if not len(kept):
        raise UserError(f"{evaluation.dataset}: no image can be read by all of the models")
    kept_data = data.subset(kept)
    data = dataclasses.replace(data, caveats=(*data.caveats, *intervals_over(kept_data)))

    if len(data.classes) != 2 or aggregate == "gloria":  # whose answers depend on the other images
        chooses = None
    answers, settings, scored = [], [], []
    for candidate, found, words in zip(candidates, images, own, strict=True):
        image = found.rows[np.isin(found.kept, kept)]
        check_finite(candidate, image, kept_data.names)
        if words is None:
            text = embeddings.texts(candidate, prompts.flat, f"{evaluation.dataset}: prompts")
            check_finite(candidate, text, prompts.flat)
            of_classes = class_embeddings(text, prompts, first=aggregate == "single")
            check_told_apart(evaluation.dataset, data.classes, of_classes, candidate.name)
            by_words = functools.partial(_by_sentences, embeddings, candidate, text=text, prompts=prompts, aggregate=aggregate)
        else:
            by_words = functools.partial(_by_learned, embeddings, candidate, words)
        scale, logits = by_words(image=image)
        answers.append(Answers(kept_data, logits))
        scored.append(by_words)
        settings.append({"classes": list(data.classes), **_asked(prompts, aggregate, words, learned), "logit_scale": scale})

    groups = numbers_of(kept_data.groups)
    drawn_from = (kept_data.labels, [each.logits for each in answers], evaluation.resamples, evaluation.seed, groups)
    samples = bootstrap(*drawn_from)
    resampled = None if groups is None else Groups(groups, evaluation.resamples, evaluation.seed)
    majority = majority_metrics(kept_data.labels)
    fingerprint = labels_fingerprint(kept_data)
    results = []
    for candidate, each, asked, drawn, by_words in zip(candidates, answers, settings, samples, scored, strict=True):
        intervals, no_interval = classification_intervals(kept_data.labels, each.logits, drawn, groups)
        details = _details(each) | {"no_interval": no_interval} | completeness(data, len(kept), errors)
        if len(data.classes) == 2:
            least, chosen_on = (None, "") if chooses is None else _chosen(embeddings, candidate, chooses, by_words)
            at = of_second_class(kept_data.labels, each.logits, thresholds, least, resampled)
            details["operating_points"] = {"positive": data.classes[1], "at": at, "chosen_on": chosen_on}
        result = Result(
            model=candidate.name,
            task="zero-shot",
            dataset=evaluation.dataset,
            n=len(kept),
            metrics=classification_metrics(kept_data.labels, each.logits) | majority,
            intervals=intervals,
            settings=asked | {"resamples": evaluation.resamples, "seed": evaluation.seed},
            details={name: value for name, value in details.items() if value},
            measured=evaluation.measured(candidate, fingerprint, total(data)),
            outcomes={"labels": kept_data.labels, "logits": each.logits} | ({} if groups is None else {"groups": groups}),
        )
        pictures = draw(evaluation.out, evaluation.dataset, result.who, each, result.id)
        results.append(dataclasses.replace(result, pictures=pictures))
    return results


def _chosen(
    embeddings: Embeddings, candidate: Candidate, data: Labelled, scores: Callable[..., tuple[float, np.ndarray]]
) -> tuple[float | None, str]:
    """The log-odds from which on images count as the second class, chosen on these images, and what they are; None where
    they cannot choose.
    """
    found = embeddings.images(candidate, data.images, data.fingerprint)
    check_finite(candidate, found.rows, [data.names[int(i)] for i in found.kept])
    _, logits = scores(image=found.rows)
    least = youden(data.labels[found.kept] == 1, logits[:, 1] - logits[:, 0])
    return least, f"{len(found.kept):,} images of {data.name}"


def _by_learned(
    embeddings: Embeddings, candidate: Candidate, words: LearnedPrompts, image: np.ndarray
) -> tuple[float, np.ndarray]:
    """The scale of the cosines, and logits float64 [n, C] of images [n, E] by learned prompts."""
    return embeddings.logit_scale(candidate), words.scores(candidate.clip, image).astype(np.float64)


def _by_sentences(
    embeddings: Embeddings,
    candidate: Candidate,
    image: np.ndarray,
    text: np.ndarray,
    prompts: Prompts,
    aggregate: Aggregation,
) -> tuple[float, np.ndarray]:
    """The scale of the cosines, and logits float64 [n, C] of images [n, E]. text: of `prompts.flat`."""
    # z-scores are no cosines: the temperature was not learned for them
    scale = 1.0 if aggregate == "gloria" else embeddings.logit_scale(candidate)
    return scale, scale * cosines(image, text, prompts, aggregate).astype(np.float64)


def _details(answers: Answers) -> dict[str, Any]:
    labels, classes = answers.data.labels, answers.data.classes
    predicted = answers.predicted
    confusion = confusion_counts(labels, predicted, len(classes)).tolist()
    return {"per_class": metrics_per_class(labels, predicted, classes), "confusion": confusion}


def _asked(prompts: Prompts, aggregate: Aggregation, words: LearnedPrompts | None, learned: Path | None) -> dict[str, Any]:
    """The settings that say with what words the classes were described."""
    if words is None:
        return {"prompts": [list(own) for own in prompts.sentences], "aggregate": aggregate}
    content = b"" if learned is None else learned.read_bytes()
    known = {"prompts_method": words.method, "prompts_file": str(learned)}
    return {"prompts": "learned"} | known | {"prompts_fingerprint": hashlib.sha256(content).hexdigest()[:32]}


def cosines(image: np.ndarray, text: np.ndarray, prompts: Prompts, aggregate: Aggregation = "mean") -> np.ndarray:
    """How near each image is to each class, float32 [n, C].

    image: unit embeddings [n, E]. text: of `prompts.flat` [sentences, E].
    aggregate: how the sentences of a class become one number.
    "mean": the cosine to the mean of their unit embeddings, itself made unit length (CLIP, ELEVATER, BiomedCLIP).
    "max": the best of their cosines. "single": the cosine to the first.
    "gloria": the best, less its mean over the images, divided by its standard deviation over the images (GLoRIA's and
    CheXpert 5x200's rule; an answer then depends on the other images).
    """
    if aggregate in ("max", "gloria"):
        best = np.stack([(image @ text[own].T).max(axis=1) for own in prompts.by_class()], axis=1)
        if aggregate == "max" or len(best) == 1:
            return best
        spread = best.std(axis=0)
        return (best - best.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return image @ class_embeddings(text, prompts, first=aggregate == "single").T


def default_embeddings(clip: Pretrained, classes: Sequence[str]) -> np.ndarray:
    """Zero-shot weights, float32 [C, E], of the sentences that `biomedclip evaluate` takes where none are given."""
    prompts = Prompts.default(classes)
    return class_embeddings(clip.encode_texts(prompts.flat), prompts)


def accuracy(image: np.ndarray, prompt: np.ndarray, labels: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """The share of images whose nearest prompt is that of their own label, and of a constant guess, as a quick look.

    image: unit embeddings [n, E]; prompt: [labels, E], row j for labels[j]; truth: n labels.
    Keys: zero_shot_accuracy; chance (the share of the most frequent label: what the best constant answer gets).
    """
    index = {label: j for j, label in enumerate(labels)}
    right = np.array([index[label] for label in truth])
    guess = (image @ prompt.T).argmax(axis=1)
    frequent = np.bincount(right, minlength=len(labels)).max()
    return {"zero_shot_accuracy": float((guess == right).mean()), "chance": float(frequent / len(right))}


def _check(candidates: Sequence[Candidate], data: Labelled, prompts: Prompts) -> None:
    names = [candidate.name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models are called {name!r}: their rows and pictures could not be told apart; rename one")
    if len(data.classes) < 2:
        raise UserError(f"{data.name}: expected at least two classes to choose between, found {list(data.classes)}")
    if len(prompts.sentences) != len(data.classes):
        raise UserError(f"{data.name}: {len(data.classes)} classes, but prompts for {len(prompts.sentences)}")
    for name, own in zip(data.classes, prompts.sentences, strict=True):
        if not own:
            raise UserError(f"{data.name}: class {name!r} has no prompt; expected at least one sentence")
