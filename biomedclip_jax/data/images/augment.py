"""Training images: a random crop, and mild changes besides it: flip, colour jitter, gray.

All of it is torchvision's (`RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter`, `Grayscale`) on PIL images, in
the order in which open_clip applies it (open_clip/transform.py); random numbers come from the caller's generator.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from biomedclip_jax.config import AugmentConfig, PreprocessConfig
from biomedclip_jax.data.images.dicom import quiet_readers
from biomedclip_jax.data.images.preprocess import normalised, prepared, to_rgb


def preprocess_train(
    image: Image.Image,
    config: PreprocessConfig,
    generator: np.random.Generator,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    extras: AugmentConfig | None = None,
) -> np.ndarray:
    """Make of a random crop of a PIL image float32 [S, S, 3], normalised: what open_clip trains on.

    open_clip's `image_transform(..., is_train=True)`: torchvision's RandomResizedCrop over `crop_scale` of the area,
    bicubic whatever `config.interpolation` says, no flip. The crop depends on the state of `generator` and on the
    image's size alone; `extras` are drawn after it.
    """
    image = prepared(image, config)
    left, top, width, height = _random_crop(*image.size, crop_scale, generator)
    with quiet_readers():  # Pillow warns of a decompression bomb when a crop is as large
        crop = image.crop((left, top, left + width, top + height))
    resized = crop.resize((config.image_size, config.image_size), Image.Resampling.BICUBIC)
    return normalised(resized if extras is None else augment(to_rgb(resized), extras, generator), config)


def _random_crop(
    width: int, height: int, scale: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop: torchvision's `RandomResizedCrop.get_params`, ratio 3/4 to 4/3."""
    narrowest, widest = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(math.log(narrowest), math.log(widest)))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(generator.integers(0, height - crop_height + 1))
            left = int(generator.integers(0, width - crop_width + 1))
            return left, top, crop_width, crop_height
    # The image is too elongated for such a crop: the largest one in its middle, of the nearest allowed ratio.
    crop_width, crop_height = width, height
    if width / height < narrowest:
        crop_height = round(width / narrowest)
    elif width / height > widest:
        crop_width = round(height * widest)
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def augment(image: Image.Image, config: AugmentConfig, generator: np.random.Generator) -> Image.Image:
    """Apply the changes that `config` asks for to an RGB image; the size stays. A change that is off draws no random
    number.
    """
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
    """Shift the hue of an RGB image. shift: turns round the colour circle, from -0.5 to 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(shift * 255) % 256)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
