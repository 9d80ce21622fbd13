"""Decoded images -> pixels for the image tower: resized, cropped, normalised; for training at random, else in one way.

Training's stay uint8, which is a quarter of the bytes: they are normalised on the device (`train/microbatches.py`).

As open_clip makes them (open_clip/transform.py), with torchvision's transforms on PIL images, in the same order. In
training a random crop, and mild changes besides it: flip, colour jitter, gray; random numbers come from the
caller's generator.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from biomedclip_jax.config import AugmentConfig, PreprocessConfig
from biomedclip_jax.data.images._crop import in_square, otsu_cropped
from biomedclip_jax.data.images.load import quiet_readers
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.errors import UserError

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
_MAX_RESIZED_PIXELS = 2**27  # 400 MB as RGB; with 224 pixels on the short side, an image 2,675 times as long as wide


def preprocess(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """Make of a PIL image of any mode float32 [S, S, 3], normalised by mean and standard deviation; S =
    `config.image_size`.

    Equal, bit for bit, to open_clip's `image_transform(..., is_train=False)` (open_clip/transform.py) and to
    torchvision's transforms, which it is made of. "nearest", which open_clip lacks, is torchvision's NEAREST.

    Raises `UserError` for an image so elongated that its resized or padded form would not fit into memory.
    """
    size = config.image_size
    image = prepared(image, config)
    resized = image.resize(resized_size(image.size, config), _RESAMPLING[config.interpolation])
    width, height = resized.size
    if config.resize_mode == "shortest":
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = resized.crop((left, top, left + size, top + size))
    elif config.resize_mode == "longest":
        resized = _padded(resized, size, config.fill_color)
    return normalised(np.asarray(to_rgb(resized)), config)


def prepared(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """Do what comes before cropping and resizing: stretch, make gray, fit into a square, cut dark borders, pad.

    UserError for an image whose padded form would not fit into memory.
    """
    if config.stretch:
        image = _stretched(image)
    if config.gray:
        image = _converted(image, "L")
    if config.square_size is not None:
        image = in_square(image if image.mode == "L" else _converted(image, "RGB"), config.square_size)
    if config.otsu_crop:
        image = otsu_cropped(image if image.mode == "L" else _converted(image, "RGB"))
    if config.resize_mode == "pad":
        image = _in_padded_square(image, config)
    return image


def _in_padded_square(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """The image in the middle of a square as large as its long side; of resize_mode "pad" no smaller than the target."""
    side = max(config.image_size if config.resize_mode == "pad" else 1, *image.size)
    if side * side > _MAX_RESIZED_PIXELS:
        size, mode = f"{image.width} x {image.height}", config.resize_mode
        raise UserError(f"an image of {size} pixels is too large for resize_mode {mode!r}: crop it")
    return _padded(image, side, config.fill_color)


def cut_off(size: tuple[int, int], config: PreprocessConfig) -> float:
    """The share of an image of (width, height) pixels, 0 to 1, that `preprocess` cuts off: only "shortest" does."""
    if config.resize_mode != "shortest" or config.square_size is not None:
        return 0.0
    width, height = resized_size(size, config)
    return 1 - min(width, config.image_size) * min(height, config.image_size) / (width * height)


def _stretched(image: Image.Image) -> Image.Image:
    """Darkest value to 0, brightest to 255, over all channels together; in the order of hi-ml, which does not round."""
    if image.mode not in ("L", "RGB", "RGBA"):
        image = _converted(image, "L" if image.mode in ("1", "LA") else "RGB")
    values = np.asarray(image, np.float64)
    values = values - values.min()
    values /= values.max() or 1.0
    values *= 255
    return Image.fromarray(values.astype(np.uint8))


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """A copy of the caller's image, if it is not in this mode already."""
    if image.mode == mode:
        return image
    image = image.copy()
    image.info.pop("transparency", None)  # as in `to_rgb`
    return image.convert(mode)


def _padded(image: Image.Image, side: int, color: int) -> Image.Image:
    """A square with the image in its middle."""
    width, height = image.size
    left, top = (side - width) // 2, (side - height) // 2
    channels = len(image.getbands())
    fill = color if channels == 1 else (color,) * channels
    return ImageOps.expand(image, (left, top, side - width - left, side - height - top), fill)


def resized_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
    """(width, height) after resizing. int() and round() are where torchvision and open_clip have them."""
    width, height = size
    target = config.resize_size or config.image_size
    if config.resize_mode in ("squash", "pad"):
        return target, target
    if config.resize_mode == "longest":
        ratio = max(height / target, width / target)
        return max(round(width / ratio), 1), max(round(height / ratio), 1)  # open_clip fails on 0
    resized = (target, int(target * height / width)) if width <= height else (int(target * width / height), target)
    if resized[0] * resized[1] > _MAX_RESIZED_PIXELS:
        raise UserError(f"an image of {width} x {height} pixels is too elongated for resize_mode 'shortest': crop it")
    return resized


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode "RGB"; an image in that mode is returned itself. `image` is the caller's own and may be changed."""
    image.info.pop("transparency", None)  # does not change RGB, but Pillow warns of it on conversion
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess_train(
    image: Image.Image,
    config: PreprocessConfig,
    generator: np.random.Generator,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    extras: AugmentConfig | None = None,
) -> np.ndarray:
    """Make of a random crop of a PIL image uint8 [S, S, 3]: what open_clip trains on, once it is `normalised`.

    open_clip's `image_transform(..., is_train=True)`: torchvision's RandomResizedCrop over `crop_scale` of the area,
    bicubic whatever `config.interpolation` says, no flip. The crop depends on the state of `generator` and on the
    image's size alone; `extras` are drawn after it. open_clip crops so whatever `config.resize_mode` says; here training
    sees images in the form that evaluation sees them in: "longest" and "pad" crop from the padded square, "squash" from
    the image as a square, of which no side is cut more for being long.
    """
    image = prepared(image, config)
    if config.resize_mode == "longest":
        image = _in_padded_square(image, config)
    if config.resize_mode == "squash":
        left, top, width, height = _squashed_crop(*image.size, crop_scale, generator)
    else:
        left, top, width, height = _random_crop(*image.size, crop_scale, generator)
    with quiet_readers():  # Pillow warns of a decompression bomb when a crop is as large
        crop = image.crop((left, top, left + width, top + height))
    resized = crop.resize((config.image_size, config.image_size), Image.Resampling.BICUBIC)
    resized = to_rgb(resized)
    return np.asarray(resized if extras is None else augment(resized, extras, generator))


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


def _squashed_crop(
    width: int, height: int, scale: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of what a random crop of the image made a square would show."""
    side = max(width, height)
    left, top, crop_width, crop_height = _random_crop(side, side, scale, generator)
    columns = round(left * width / side), max(round((left + crop_width) * width / side), 1)
    rows = round(top * height / side), max(round((top + crop_height) * height / side), 1)
    left, top = min(columns[0], width - 1), min(rows[0], height - 1)
    return left, top, max(columns[1] - left, 1), max(rows[1] - top, 1)


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
