"""After the last step: what the model folder of a run can do on the held-out part, in numbers and pictures."""

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import DEFAULT_TEMPLATE, TrainConfig
from biomedclip_jax.data.pairs import ImageOf, Pairs, Texts
from biomedclip_jax.data.questions.pairs import QuestionPairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import loss_curve
from biomedclip_jax.evaluation.retrieval.gallery import Found, choose, images_of_captions
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.evaluation.zero_shot.task import accuracy, default_embeddings
from biomedclip_jax.pretrained import Pretrained, from_pretrained
from biomedclip_jax.prompts.learned import LearnedPrompts
from biomedclip_jax.prompts.templates import DEFAULT_TEMPLATES, check_labels, check_told_apart, label_sentences
from biomedclip_jax.train._final_answers import answer_results
from biomedclip_jax.train._metrics import Line

PROMPTS = "prompts.safetensors"
_GALLERY_ROWS = 6
_LOOKED_AT = 1_000  # held-out pairs whose labels are proposed to choose between
_SHOWN_CLASSES = 8
_GALLERY_CANDIDATES = 1_000  # different captions that the rows are chosen from


@dataclass(frozen=True)
class Results:
    """`results.json` of a finished run; None, and not in the file, is what was not measured.

    Recall and accuracy are shares of the held-out pairs, by the model folder. zero_shot_accuracy: what `biomedclip
    evaluate zero-shot` says of this model and these images, with its default sentences, which zero_shot_prompts has; of
    the zero_shot_images that have a label. chance: the accuracy of the best constant answer. template_accuracy: that of
    the sentence in the config, where it is another than by default or prompts started from it;
    learned_prompt_accuracy: that of the prompts which the run has learned. accuracy, accuracy_open, accuracy_closed: of
    answers to the held-out questions; accuracy_other_image: when each is asked about another image. exported_step:
    updates done in the weights of the model folder, 0 for the start. held_out_data: a hash of what the held-out pairs are,
    wherever they lie. seconds: of the run, all parts together.
    """

    held_out_pairs: int | None = None
    image_to_text_recall_at_1: float | None = None
    image_to_text_recall_at_5: float | None = None
    image_to_text_recall_at_10: float | None = None
    text_to_image_recall_at_1: float | None = None
    text_to_image_recall_at_5: float | None = None
    text_to_image_recall_at_10: float | None = None
    zero_shot_accuracy: float | None = None
    chance: float | None = None
    classes: int | None = None
    zero_shot_images: int | None = None
    zero_shot_prompts: list[str] | None = None
    template_accuracy: float | None = None
    learned_prompt_accuracy: float | None = None
    accuracy: float | None = None
    accuracy_open: float | None = None
    accuracy_closed: float | None = None
    accuracy_other_image: float | None = None
    exported_step: int | None = None
    held_out_data: str | None = dataclasses.field(default=None, compare=False)
    seconds: float | None = None

    def record(self) -> dict[str, int | float | list[str]]:
        """What was measured, by name, in the order of the fields."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def evaluate(
    config: TrainConfig, workdir: Path, pairs: Pairs | None, metrics: list[Line], learned: LearnedPrompts | None = None
) -> Results:
    """Retrieval both ways and zero-shot accuracy of `workdir/model` on the held-out `pairs`, and pictures.

    Writes loss_curve.png, from the lines of `metrics.jsonl`, and retrieval_gallery.png. learned: prompts, which are
    written to prompts.safetensors and judged beside the sentence that they started from.
    """
    loss_curve(workdir / "loss_curve.png", [line.record() for line in metrics])
    if pairs is None and learned is None:
        return Results()
    clip = from_pretrained(workdir / "model")
    if learned is not None:
        learned.save(workdir / PROMPTS, clip)
    if pairs is None:
        return Results()
    if isinstance(pairs, QuestionPairs):
        return Results(**answer_results(clip, pairs, config.seed))  # type: ignore[arg-type]
    images = [ImageOf(pairs, index) for index in range(len(pairs))]
    bad: dict[int, UserError] = {}
    image = clip.encode_images(images, on_error=bad.__setitem__)
    for error in bad.values():
        print(f"left out of the evaluation: {error}")
    images = [image for index, image in enumerate(images) if index not in bad]
    texts = [pairs.texts(image.index) for image in images]
    captions = [each.captions[0] for each in texts]
    text = clip.encode_texts(captions)
    rates = recall(image, text, captions)
    _gallery(workdir / "retrieval_gallery.png", images, texts, image, text, rates, config.seed)
    found: dict[str, Any] = {"held_out_pairs": len(images)} | rates
    if config.data.label_separator is None:  # else an image has several labels
        found |= _accuracies(clip, image, [each.label for each in texts], config, learned)
    return Results(**found)


def proposals(workdir: Path, pairs: Pairs | None, separator: str | None = None) -> list[str]:
    """Lines with a command to try next on a run's model, of its own held-out data where it has some.

    separator: between the labels of one image, which then are no classes to choose between.
    """
    lines = ["try next (for research, not for clinical use):"]
    if pairs is None:
        return [*lines, f"  biomedclip embed {workdir} --images FOLDER --out embeddings.npz"]
    if isinstance(pairs, QuestionPairs):
        image, question = os.path.normpath(pairs.name(0)), pairs.questions[0].question
        return [*lines, f"  biomedclip answer {workdir} {shlex.quote(image)} {shlex.quote(question)}"]
    labels = (pairs.texts(i).label for i in range(min(len(pairs), _LOOKED_AT)))
    classes = list(dict.fromkeys(label for label in labels if label is not None)) if separator is None else []
    image = shlex.quote(pairs.name(0)) if Path(pairs.name(0)).is_file() else "IMAGE..."
    if len(classes) < 2:
        return [*lines, f"  biomedclip embed {workdir} --images {image} --out embeddings.npz"]
    shown = " ".join(map(shlex.quote, classes[:_SHOWN_CLASSES]))
    return [*lines, f"  biomedclip classify {workdir} {image} --labels {shown}"]


def _accuracies(
    clip: Pretrained, image: np.ndarray, labels: list[str | None], config: TrainConfig, learned: LearnedPrompts | None
) -> dict[str, Any]:
    """The fields of `Results` that need labels, one or None for each row of `image`; {} where there are no labels."""
    labelled = [i for i, label in enumerate(labels) if label is not None]
    if not labelled:
        return {}
    image, truth = image[labelled], [label for label in labels if label is not None]
    classes = sorted(set(truth))
    found: dict[str, Any] = {"classes": len(classes)}
    try:
        check_labels(classes)
        embeddings = default_embeddings(clip, classes)
        check_told_apart("held-out labels", classes, embeddings)
    except UserError as error:  # at the end of a run there is nobody to mend it
        print(f"no zero-shot accuracy: {error}")
        return found
    found |= accuracy(image, embeddings, classes, truth)
    found |= {"zero_shot_images": len(truth), "zero_shot_prompts": list(DEFAULT_TEMPLATES)}
    if learned is not None or config.data.template != DEFAULT_TEMPLATE:
        embeddings = clip.encode_texts(label_sentences(classes, config.data.template))
        found["template_accuracy"] = accuracy(image, embeddings, classes, truth)["zero_shot_accuracy"]
    if learned is not None:
        embeddings = learned.with_classes(classes).text_embeddings(clip)
        found["learned_prompt_accuracy"] = accuracy(image, embeddings, classes, truth)["zero_shot_accuracy"]
    return found


def _gallery(
    path: Path,
    images: list[ImageOf],
    texts: list[Texts],
    image: np.ndarray,
    text: np.ndarray,
    rates: dict[str, float],
    seed: int,
) -> None:
    """Captions of different kinds: for half of them a right image is among the four found first, for half it is not."""
    positions: dict[str, list[int]] = {}
    for i, each in enumerate(texts):
        positions.setdefault(each.captions[0], []).append(i)
    captions = list(positions)
    order = np.random.default_rng(seed).permutation(len(captions))
    captions = [captions[i] for i in order[:_GALLERY_CANDIDATES]]
    right = [set(positions[caption]) for caption in captions]
    own = [positions[caption][0] for caption in captions]
    found = Found.by("", text[own], image)
    succeeded = [not mine.isdisjoint(shown) for mine, shown in zip(right, found.positions.tolist(), strict=True)]
    rows = choose(succeeded, [texts[i].label or "" for i in own], _GALLERY_ROWS, seed)
    good = sum(succeeded[row] for row in rows)
    title = (
        f"Held-out captions and the four images found first; right ones are framed. Chosen by chance (seed {seed}) from "
        f"different kinds: {good} captions whose image is among the four, then {len(rows) - good} whose image is not. "
        f"Of all {len(images)} pairs, an image of the caption comes first for {rates['text_to_image_recall_at_1']:.0%}, "
        f"among the first five for {rates['text_to_image_recall_at_5']:.0%}."
    )
    shown = Found("", found.positions[rows], found.scores[rows])
    images_of_captions(
        path, [captions[row] for row in rows], [shown], lambda i: images[i].load(), [right[row] for row in rows], title
    )
