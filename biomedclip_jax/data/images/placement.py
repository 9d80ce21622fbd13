"""Where in an image the pixels lie that a model sees: `preprocess` undone, so that a map can be laid over the image."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images._crop import foreground_box
from biomedclip_jax.data.images.preprocess import prepared, resized_size


@dataclass(frozen=True)
class SeenBox:
    """The part of an image that the model's square of pixels shows, in pixels of the image from its upper left corner.

    Edges may lie between pixels, and outside of the image, where the square shows padding.
    """

    left: float
    top: float
    right: float
    bottom: float

    def upper_left(self, share: float) -> "SeenBox":
        """The box of that share of both sides, for patches that do not fill the square."""
        right, bottom = self.left + share * (self.right - self.left), self.top + share * (self.bottom - self.top)
        return SeenBox(self.left, self.top, right, bottom)

    def scaled(self, x: float, y: float) -> "SeenBox":
        """The box in an image that is x times as wide and y times as high."""
        return SeenBox(self.left * x, self.top * y, self.right * x, self.bottom * y)


@dataclass(frozen=True)
class _Axis:
    """place in the model's square = scale · place in the image + offset, along one side."""

    scale: float = 1.0
    offset: float = 0.0

    def then(self, scale: float = 1.0, offset: float = 0.0) -> "_Axis":
        return _Axis(scale * self.scale, scale * self.offset + offset)

    def back(self, place: float) -> float:
        return (place - self.offset) / self.scale


def seen_box(image: Image.Image, config: PreprocessConfig) -> SeenBox:
    """What `preprocess` shows of a decoded image, step for step as it is done there, with its rounding.

    UserError for an image that `preprocess` refuses.
    """
    size = image.size
    axes = [_Axis(), _Axis()]
    if config.square_size is not None:
        side = config.square_size
        scale = side / max(size)
        inside = (side, int(size[1] * scale)) if size[0] > size[1] else (int(size[0] * scale), side)
        axes = [a.then(new / old, (side - new) // 2) for a, new, old in zip(axes, inside, size, strict=True)]
        size = (side, side)
    if config.otsu_crop:
        before = prepared(image, dataclasses.replace(config, otsu_crop=False, resize_mode="squash", resize_size=None))
        left, top, right, bottom = foreground_box(np.asarray(before.convert("L")))
        axes = [a.then(offset=-first) for a, first in zip(axes, (left, top), strict=True)]
        size = (right - left, bottom - top)
    target = config.image_size
    if config.resize_mode == "pad":
        side = max(target, *size)
        axes = [a.then(offset=(side - old) // 2) for a, old in zip(axes, size, strict=True)]
        size = (side, side)
    resized = resized_size(size, config)
    axes = [a.then(new / old) for a, new, old in zip(axes, resized, size, strict=True)]
    if config.resize_mode == "shortest":
        axes = [a.then(offset=-round((new - target) / 2)) for a, new in zip(axes, resized, strict=True)]
    elif config.resize_mode == "longest":
        axes = [a.then(offset=(target - new) // 2) for a, new in zip(axes, resized, strict=True)]
    x, y = axes
    return SeenBox(x.back(0), y.back(0), x.back(target), y.back(target))


def laid_over(grid: np.ndarray, box: SeenBox, size: tuple[int, int]) -> np.ndarray:
    """A map [g, h] of what the box shows, as float32 [height, width] over an image of `size` = (width, height).

    Linear between the middles of the map's cells; NaN where the model does not see the image.
    """
    width, height = size
    down, unseen_rows = _weights(grid.shape[0], box.top, box.bottom, height)
    along, unseen_columns = _weights(grid.shape[1], box.left, box.right, width)
    over = (down @ grid.astype(np.float32) @ along.T).astype(np.float32)
    over[unseen_rows] = np.nan
    over[:, unseen_columns] = np.nan
    return over


def _weights(cells: int, first: float, last: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """How much each pixel takes of each cell, float32 [pixels, cells], and which pixels lie outside of all, bool [pixels]."""
    share = (np.arange(pixels) + 0.5 - first) / (last - first)
    place = np.clip(share * cells - 0.5, 0, cells - 1)
    lower = np.minimum(place.astype(int), max(cells - 2, 0))
    weights = np.zeros((pixels, cells), np.float32)
    rows = np.arange(pixels)
    weights[rows, lower] = 1 - (place - lower)
    if cells > 1:
        weights[rows, lower + 1] = place - lower
    return weights, (share < 0) | (share > 1)
