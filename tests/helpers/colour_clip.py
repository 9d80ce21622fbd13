"""A stand-in for a model, whose embeddings of images are known, and an image that cannot be read."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.errors import UserError


class Damaged(LazyImage):
    """A file that holds no picture."""

    def load(self) -> Image.Image:
        raise UserError("a damaged image")


class ColourClip:
    """Images are their colours: red, green, blue. What words are, a test says itself."""

    logit_scale = 10.0
    processor = SimpleNamespace(config=PreprocessConfig())

    def __init__(self, red: float = 1.0):
        self._red = red

    def encode_images(
        self, images: Sequence[Any], batch_size: int, progress: Any, on_error: Any, normalize: bool
    ) -> np.ndarray:
        rows = []
        for position, image in enumerate(images):
            try:
                picture = image.load()
            except UserError as error:
                on_error(position, error)
            else:
                rows.append(np.asarray(picture.convert("RGB"), np.float32).mean(axis=(0, 1)) * [self._red, 1, 1])
        return np.array(rows, np.float32)
