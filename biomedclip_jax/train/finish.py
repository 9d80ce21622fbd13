"""After the last step: what the model folder of a run can do on the held-out part, in numbers and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.images import load_image
from biomedclip_jax.data.pairs import Pairs
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.report import loss_curve, retrieval_gallery
from biomedclip_jax.evaluation.retrieval import recall
from biomedclip_jax.evaluation.zero_shot import accuracy
from biomedclip_jax.pretrained import from_pretrained, prompts

_GALLERY_ROWS = 6


def evaluate(config: TrainConfig, workdir: Path, pairs: Pairs | None, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Retrieval both ways and zero-shot accuracy of `workdir/model` on the held-out `pairs`, and pictures.

    Writes loss_curve.png, from the lines of `metrics.jsonl`, and retrieval_gallery.png.
    """
    loss_curve(workdir / "loss_curve.png", metrics)
    if pairs is None:
        return {}
    clip = from_pretrained(workdir / "model")
    bad: dict[int, UserError] = {}
    image = clip.encode_images(pairs.images, on_error=bad.__setitem__)
    for error in bad.values():
        print(f"left out of the evaluation: {error}")
    pairs = pairs.without(bad)
    text = clip.encode_texts(pairs.captions)
    results: dict[str, Any] = {"held_out_pairs": len(pairs)} | recall(image, text, pairs.captions)
    if pairs.labels is not None:
        labels = sorted(set(pairs.labels))
        prompt = clip.encode_texts(prompts(labels, config.data.template))
        results |= accuracy(image, prompt, labels, pairs.labels) | {"classes": len(labels)}
    _gallery(workdir / "retrieval_gallery.png", pairs, image, text, config.seed)
    return results


def _gallery(path: Path, pairs: Pairs, image: np.ndarray, text: np.ndarray, seed: int) -> None:
    captions = list(dict.fromkeys(pairs.captions))
    rows = [captions[i] for i in np.random.default_rng(seed).permutation(len(captions))[:_GALLERY_ROWS]]
    scores = np.stack([text[pairs.captions.index(caption)] @ image.T for caption in rows])
    right = [{i for i, other in enumerate(pairs.captions) if other == caption} for caption in rows]
    retrieval_gallery(path, rows, lambda i: load_image(pairs.images[i]), scores, right)
