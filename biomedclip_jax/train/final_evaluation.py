"""After the last step: what the model folder of a run can do on the held-out part, in numbers and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.pairs import ImageOf, Pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report.drawing import loss_curve
from biomedclip_jax.evaluation.retrieval.gallery import Found, images_of_captions
from biomedclip_jax.evaluation.retrieval.task import recall
from biomedclip_jax.evaluation.zero_shot.task import accuracy
from biomedclip_jax.pretrained import from_pretrained, prompts
from biomedclip_jax.prompts.learned import LearnedPrompts

PROMPTS = "prompts.safetensors"
_GALLERY_ROWS = 6


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
    _gallery(workdir / "retrieval_gallery.png", images, captions, image, text, config.seed)
    return results


def _gallery(path: Path, images: list[ImageOf], captions: list[str], image: np.ndarray, text: np.ndarray, seed: int) -> None:
    different = list(dict.fromkeys(captions))
    rows = [different[i] for i in np.random.default_rng(seed).permutation(len(different))[:_GALLERY_ROWS]]
    found = Found.by("", text[[captions.index(caption) for caption in rows]], image)
    right = [{i for i, other in enumerate(captions) if other == caption} for caption in rows]
    title = "Held-out captions and the four images found first for each; the right one, if it is there, framed in yellow"
    images_of_captions(path, rows, [found], lambda i: images[i].load(), right, title)
