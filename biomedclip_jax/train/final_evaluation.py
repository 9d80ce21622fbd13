"""After the last step: what the model folder of a run can do on the held-out part, in numbers and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.pairs import ImageOf, Pairs, Texts
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import loss_curve
from biomedclip_jax.evaluation.retrieval.gallery import Found, choose, images_of_captions
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.evaluation.zero_shot.task import accuracy
from biomedclip_jax.pretrained import from_pretrained, prompts
from biomedclip_jax.prompts.learned import LearnedPrompts

PROMPTS = "prompts.safetensors"
_GALLERY_ROWS = 6
_GALLERY_CANDIDATES = 1_000  # different captions that the rows are chosen from


def evaluate(
    config: TrainConfig,
    workdir: Path,
    pairs: Pairs | None,
    metrics: list[dict[str, Any]],
    learned: LearnedPrompts | None = None,
) -> dict[str, Any]:
    """Retrieval both ways and zero-shot accuracy of `workdir/model` on the held-out `pairs`, and pictures.

    Writes loss_curve.png, from the lines of `metrics.jsonl`, and retrieval_gallery.png. learned: prompts, which are written
    to prompts.safetensors and judged beside the sentence that they started from.
    """
    loss_curve(workdir / "loss_curve.png", metrics)
    if pairs is None and learned is None:
        return {}
    clip = from_pretrained(workdir / "model")
    if learned is not None:
        learned.save(workdir / PROMPTS, clip)
    if pairs is None:
        return {}
    bad: dict[int, UserError] = {}
    images = [ImageOf(pairs, index) for index in range(len(pairs))]
    image = clip.encode_images(images, on_error=bad.__setitem__)
    for error in bad.values():
        print(f"left out of the evaluation: {error}")
    images = [image for index, image in enumerate(images) if index not in bad]
    texts = [pairs.texts(image.index) for image in images]
    captions = [each.captions[0] for each in texts]
    text = clip.encode_texts(captions)
    results: dict[str, Any] = {"held_out_pairs": len(images)} | recall(image, text, captions)
    true_labels = [each.label for each in texts if each.label is not None]
    if true_labels and config.data.label_separator is None:
        labels = sorted(set(true_labels))
        prompt = clip.encode_texts(prompts(labels, config.data.template))
        results |= accuracy(image, prompt, labels, true_labels) | {"classes": len(labels)}
        if learned is not None:
            prompt = learned.with_classes(labels).text_embeddings(clip)
            results["learned_prompt_accuracy"] = accuracy(image, prompt, labels, true_labels)["zero_shot_accuracy"]
    _gallery(workdir / "retrieval_gallery.png", images, texts, image, text, results, config.seed)
    return results


def _gallery(
    path: Path,
    images: list[ImageOf],
    texts: list[Texts],
    image: np.ndarray,
    text: np.ndarray,
    results: dict[str, Any],
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
    succeeded = [not mine.isdisjoint(shown) for mine, shown in zip(right, found.places.tolist(), strict=True)]
    rows = choose(succeeded, [texts[i].label or "" for i in own], _GALLERY_ROWS, seed)
    good = sum(succeeded[row] for row in rows)
    title = (
        f"Held-out captions and the four images found first; right ones are framed. Chosen by chance (seed {seed}) from "
        f"different kinds: {good} captions whose image is among the four, then {len(rows) - good} whose image is not. "
        f"Of all {len(images)} pairs, an image of the caption comes first for {results['text_to_image_recall_at_1']:.0%}, "
        f"among the first five for {results['text_to_image_recall_at_5']:.0%}."
    )
    shown = Found("", found.places[rows], found.scores[rows])
    images_of_captions(
        path, [captions[row] for row in rows], [shown], lambda i: images[i].load(), [right[row] for row in rows], title
    )
