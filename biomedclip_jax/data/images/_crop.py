"""What CLEFT does to films before they are resized: a small square, of which the dark border is cut away.

Source: XYPB/CLEFT, datasets/utils.py and transforms.py, which call OpenCV (INTER_AREA, THRESH_OTSU).
"""

import numpy as np
from PIL import Image

from biomedclip_jax.errors import UserError


def otsu_threshold(values: np.ndarray) -> int:
    """The threshold t of uint8 values of any shape with the largest variance between [0, t] and [t + 1, 255]; the
    lowest of several.

    Otsu, "A threshold selection method from gray-level histograms", 1979. Of an image of one value, that value.
    """
    histogram = np.bincount(values.reshape(-1), minlength=256)
    count, total = histogram.cumsum(), (histogram * np.arange(256)).cumsum()
    below, above = count.astype(np.float64), (count[-1] - count).astype(np.float64)
    two_sided = (below > 0) & (above > 0)
    if not two_sided.any():
        return int(values.flat[0])
    mean_below = total / np.maximum(below, 1)
    mean_above = (total[-1] - total) / np.maximum(above, 1)
    return int(np.where(two_sided, below * above * (mean_below - mean_above) ** 2, -1.0).argmax())


def foreground_box(values: np.ndarray) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of what is brighter than Otsu's threshold in uint8 [H, W]; of one value, all
    of it.
    """
    foreground = values > otsu_threshold(values)
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    if len(rows) == 0:
        return 0, 0, values.shape[1], values.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def otsu_cropped(image: Image.Image) -> Image.Image:
    """The part of an image within `foreground_box` of its gray values."""
    return image.crop(foreground_box(np.asarray(image.convert("L"))))


def in_square(image: Image.Image, side: int) -> Image.Image:
    """Make the long side of a gray or RGB image `side` pixels by averaging areas, and put it into the middle of a
    black square.

    The short side is rounded down, as in CLEFT. UserError for an image that is too elongated.
    """
    width, height = image.size
    scale = side / max(width, height)
    resized = (side, int(height * scale)) if width > height else (int(width * scale), side)
    if min(resized) == 0:
        raise UserError(f"an image of {width} x {height} pixels is too elongated to be made {side} pixels long: crop it")
    rows = _area_means(np.asarray(image), resized[1])
    pixels = _area_means(rows.swapaxes(0, 1), resized[0]).swapaxes(0, 1)
    square = np.zeros((side, side, *pixels.shape[2:]), np.uint8)
    left, top = (side - resized[0]) // 2, (side - resized[1]) // 2
    square[top : top + resized[1], left : left + resized[0]] = np.rint(pixels)
    return Image.fromarray(square)


def _area_means(values: np.ndarray, size: int) -> np.ndarray:
    """[n, ...] to float64 [size, ...]: each the mean over n / size neighbours, which need not be a whole number of
    them.

    Pillow's BOX takes whole pixels only, and is wrong by up to 88 of 255 where 384 are made 256.
    """
    count = len(values)
    kind = np.uint32 if values.dtype == np.uint8 else np.float64  # exact: 255 times the longest side fits
    sums = np.concatenate([np.zeros_like(values[:1], kind), values.cumsum(axis=0, dtype=kind)])
    edges = np.arange(size + 1) * (count / size)
    whole = np.minimum(edges.astype(int), count - 1)
    part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    upto = sums[whole] + part * values[whole]
    return np.diff(upto, axis=0) * (size / count)
