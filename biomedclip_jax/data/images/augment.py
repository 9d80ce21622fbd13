"""Mild changes of a training image besides its crop: flip, colour jitter, gray.

What they do is torchvision's `RandomHorizontalFlip`, `ColorJitter` and `Grayscale` on PIL images, in the order in which
open_clip puts them (open_clip/transform.py); what is drawn comes from the caller's generator.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from biomedclip_jax.config import AugmentConfig


def augment(image: Image.Image, config: AugmentConfig, generator: np.random.Generator) -> Image.Image:
    """RGB to RGB of the same size. What is off draws nothing."""
    if config.flip_prob and generator.random() < config.flip_prob:
        image = ImageOps.mirror(image)
    if config.color_jitter_prob and generator.random() < config.color_jitter_prob:
        image = _jitter(image, config.color_jitter, generator)
    if config.gray_scale_prob and generator.random() < config.gray_scale_prob:
        image = image.convert("L").convert("RGB")
    return image


def _jitter(image: Image.Image, most: tuple[float, float, float, float], generator: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, each by a random factor or shift, in random order."""
    factors = [generator.uniform(max(0.0, 1 - limit), 1 + limit) for limit in most[:3]]
    shift = generator.uniform(-most[3], most[3])
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number in generator.permutation(4):
        if most[number] == 0:
            continue
        image = shift_hue(image, shift) if number == 3 else kinds[number](image).enhance(factors[number])
    return image


def shift_hue(image: Image.Image, shift: float) -> Image.Image:
    """RGB; shift: turns round the colour circle, from -0.5 to 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(shift * 255) % 256)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
