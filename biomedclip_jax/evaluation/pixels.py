"""Decoded images, ready for many epochs: 8-bit pixels in a temporary file, which the system keeps in memory where it fits."""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images import ImageSource, load_image, preprocess
from biomedclip_jax.errors import UserError
from biomedclip_jax.progress import progress_bar


def decoded(images: Sequence[ImageSource], names: Sequence[str], config: PreprocessConfig) -> np.ndarray:
    """uint8 [n, S, S, 3]: resized and cropped as `preprocess` does it, before it normalises. The file goes with the array.

    Raises UserError where an image cannot be read, or the temporary folder (TMPDIR) has too little space.
    """
    size = config.image_size
    # with this mean and deviation, normalised pixels are the 8-bit values by 255
    plain = dataclasses.replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    shape = (len(images), size, size, 3)
    pixels = _file(shape)

    def fill(position: int) -> None:
        image = load_image(images[position], names[position])
        pixels[position] = np.rint(preprocess(image, plain) * 255).astype(np.uint8)

    with ThreadPoolExecutor() as pool, progress_bar(len(images), "image (decoded)") as bar:
        for _ in pool.map(fill, range(len(images))):  # an error cancels those that have not begun
            bar.update(1)
    return pixels


def _file(shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # has no name from the beginning: nothing to clean up
        try:
            # reserved now: a full disk would kill the process when it writes into the mapping
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
        except OSError as error:
            need = f"{np.prod(shape) / 1e9:.1f} GB of decoded images"
            raise UserError(
                f"{tempfile.gettempdir()}: no room for {need} ({error.strerror}); set TMPDIR to another folder"
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
