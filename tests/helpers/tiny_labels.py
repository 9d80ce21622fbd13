"""Few labels to learn from: features of three classes that overlap, and a tiny model with images of three colours."""

from pathlib import Path

import jax
import numpy as np

from biomedclip_jax.config import ComputeConfig, PreprocessConfig
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.evaluation.embeddings import Embeddings
from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.evaluation.probe.sampling import Budget, split
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import init_params
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.prompts.templates import Prompts
from helpers import tiny

CLASSES = ("red", "green", "blue")
PROMPTS = Prompts.from_templates(CLASSES, ["a photo of {}"])


def labelled(images: list[np.ndarray], labels: np.ndarray, name: str = "colours") -> Labelled:
    names = [f"image {i}" for i in range(len(images))]
    return Labelled(name, CLASSES, images, names, labels, fingerprint([name, *names]))


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def part_of(features: np.ndarray, labels: np.ndarray, images: list[np.ndarray] | None = None) -> Part:
    images = images or [np.zeros((2, 2, 3), np.uint8) for _ in labels]
    return Part(labelled(images, labels), unit(features), features.astype(np.float32))


def overlapping(count: int, seed: int, width: int = 16, noise: float = 1.5) -> Part:
    """Features around three centres, each channel with a scale and a mean of its own."""
    centres = np.random.default_rng(99).normal(size=(3, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = centres[labels] + noise * rng.normal(size=(count, width))
    return part_of(features * np.linspace(0.5, 2, width) + np.linspace(-1, 1, width), labels)


def coloured(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """uint8 [20, 24, 3] images whose strongest channel is the class, in noise; and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = [rng.integers(0, 256, (20, 24, 3)) for _ in labels]
    for image, label in zip(images, labels, strict=True):
        image[..., label] = np.minimum(image[..., label] + 60, 255)
    return [image.astype(np.uint8) for image in images], labels


def task(known: Part, test: Part, budget: Budget, text: np.ndarray, candidate: Candidate, seed: int = 0) -> FewShot:
    at = split(known.labels, 3, budget, seed)
    parts = (known.subset(at.given), known.subset(at.train), known.subset(at.validation), test)
    return FewShot(candidate, Embeddings(None), PROMPTS, text, *parts, seed)


class TinyCandidate(Candidate):
    """A candidate that needs no folder."""

    def __init__(self, name: str = "tiny", seed: int = 0):
        self.name = self.fingerprint = name
        self.source = name
        preprocess = PreprocessConfig(image_size=tiny.MODEL.image.image_size)
        params = init_params(tiny.MODEL, seed)
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda x: np.asarray(x + 0.05 * rng.normal(size=x.shape), np.float32), params)
        self.clip = Pretrained(Model(tiny.MODEL, preprocess, params, Path("unused")), ComputeConfig())
