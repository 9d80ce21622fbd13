"""Decoded images -> pixels for the image tower, as open_clip makes them for evaluation: resized, cropped, normalised."""

import numpy as np
from PIL import Image, ImageOps

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.crop import in_square, otsu_cropped
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
    resized = image.resize(_resized_size(image.size, config), _RESAMPLING[config.interpolation])
    width, height = resized.size
    if config.resize_mode == "shortest":
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = resized.crop((left, top, left + size, top + size))
    elif config.resize_mode == "longest":
        resized = _padded(resized, size, config.fill_color)
    return normalised(resized, config)


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
        side = max(config.image_size, *image.size)
        if side * side > _MAX_RESIZED_PIXELS:
            raise UserError(f"an image of {image.width} x {image.height} pixels is too large for resize_mode 'pad': crop it")
        image = _padded(image, side, config.fill_color)
    return image


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


def _resized_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
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


def normalised(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The pixels as float32 [H, W, 3], normalised, in torch's order of operations and hence with torch's rounding.

    `image` is the caller's own copy and may be changed.
    """
    pixels = np.array(to_rgb(image), np.float32)
    pixels /= 255
    rows = pixels.reshape(len(pixels), -1)  # NumPy is slow where the last axis has three elements
    rows -= np.tile(np.array(config.mean, np.float32), pixels.shape[1])
    rows /= np.tile(np.array(config.std, np.float32), pixels.shape[1])
    return pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode "RGB"; an image in that mode is returned itself."""
    image.info.pop("transparency", None)  # does not change RGB, but Pillow warns of it on conversion
    return image if image.mode == "RGB" else image.convert("RGB")
