"""Pixels of 0 to 255 -> what an image tower takes. Without Pillow, which a training step has no need of."""

import numpy as np

from biomedclip_jax.config import PreprocessConfig


def normalised(pixels: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """Pixels, uint8 [..., 3], as float32, normalised in torch's order of operations and hence with torch's rounding."""
    values = np.array(pixels, np.float32)
    values /= 255
    rows = values.reshape(len(values), -1)  # NumPy is slow where the last axis has three elements
    rows -= np.tile(np.array(config.mean, np.float32), rows.shape[1] // 3)
    rows /= np.tile(np.array(config.std, np.float32), rows.shape[1] // 3)
    return values
