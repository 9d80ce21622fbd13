"""A task of few labels for a small model: unit embeddings scattered round one direction a class, no images."""

from pathlib import Path

import numpy as np

from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.prompts.templates import Prompts
from helpers.prompt_reference import unit_rows
from helpers.reference import open_clip_model

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}
CLASSES = ("chest ray", "tumor cells of the lung", "brain", "b-12 photo")


def make_candidate(folder: Path, seed: int = 0) -> Candidate:
    """A model with random weights, in `folder`."""
    open_clip_model(folder, VISION, TEXT, bert={}, seed=seed)
    return Candidate(str(folder))


def make_part(rng: np.random.Generator, count: int, directions: np.ndarray, noise: float) -> Part:
    """`count` images of each class in turn."""
    labels = np.tile(np.arange(len(CLASSES)), count)
    features = directions[labels] + noise * unit_rows(rng, len(labels), directions.shape[1])
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    names = [str(i) for i in range(len(labels))]
    return Part(Labelled("made", CLASSES, names, names, labels, "made"), unit, unit)


def make_task(candidate: Candidate, shots: int = 6, seed: int = 0, noise: float = 0.6) -> FewShot:
    """`shots` images of each class, two of them for validation, ten to test; three sentences a class."""
    rng = np.random.default_rng(0)
    directions = unit_rows(rng, len(CLASSES), 32)
    given, embeddings = make_part(rng, shots, directions, noise), Embeddings(None)
    prompts = Prompts.from_templates(CLASSES, ["a photo of {}", "this is {}", "{} in the image"])
    sentences = embeddings.texts(candidate, prompts.flat, "prompts").reshape(len(CLASSES), 3, -1).mean(axis=1)
    text = sentences / np.linalg.norm(sentences, axis=1, keepdims=True)
    first = np.arange(len(given)) < 2 * len(CLASSES)
    train, validation = given.subset(np.flatnonzero(~first)), given.subset(np.flatnonzero(first))
    return FewShot(candidate, embeddings, prompts, text, given, train, validation, make_part(rng, 10, directions, noise), seed)
