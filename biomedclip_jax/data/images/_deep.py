"""Pixels deeper than 8 bits -> 8 bits a sample: where black and white lie, for any dtype and number of channels.

The rule keeps what is in the file where it can: integers are only shifted, floats from 0 to 1 only multiplied. What
was never measured (no-data, NaN, one hot or dead pixel) has no say in it, or one pixel would blacken a film.
"""

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

FEW_SHADES = 16
_NO_MEASUREMENT = 1e30  # floats from here on are no-data: ±3.4e38, the ends of float32, mostly
_GAP = 4  # so many times farther out than all others lies what is left out of the range
_FEW_PIXELS = 0.01  # share of the pixels that may be left out
_FEW_VALUES = 4  # or so many values, whatever their share
_CROWDED = 8  # that part of the range, or less, is all that the other pixels have


def to_8_bits(values: np.ndarray, name: object, *, white_is_zero: bool = False, no_data: float | None = None) -> np.ndarray:
    """Samples [H,W] or [H,W,C] of any integer or float dtype as uint8 of the same shape; all channels by one range.

    Integers are shifted right until the brightest fits 8 bits (0..4095 is divided by 16; 0..255 stays), after the
    darkest is moved to 0 if it is negative, or if the values of one channel would share a quarter of the 256 levels
    otherwise. Floats from 0 to 1 are multiplied by 255, others stretched from their minimum and maximum, as are floats
    from 0 to 1 that would share fewer than 16 levels. See `value_range` for what is left out of the range; it becomes
    black or white. NaN, infinity, floats beyond ±1e30 and `no_data` become black. white_is_zero: inverted.

    A picture of fewer than 16 shades is named on stderr. Raises `UserError` if no pixel is a number.
    """
    if values.dtype.kind not in "iuf":
        raise UserError(f"{name}: pixels of dtype {values.dtype}: expected integers or floats: convert it to PNG")
    measured = _measured(values, no_data)
    if measured is not None:
        if not measured.any():
            raise UserError(f"{name}: no pixel of it is a number, all are NaN, infinite or no-data: leave it out")
        known = values[measured]
        values = np.where(measured, values, np.partition(known, known.size // 2)[known.size // 2])  # any in their midst
    shades = _floats(values) if values.dtype.kind == "f" else _integers(values)
    if white_is_zero:
        shades = 255 - shades
    if measured is not None:
        shades[~measured] = 0
    if (count := count_shades(shades)) < FEW_SHADES:
        say_few_shades(name, count)
    return shades


def alpha_to_8_bits(alpha: np.ndarray) -> np.ndarray:
    """Opacities [H,W] of any dtype as uint8: floats from 0 to 1, integers by the bits that the most opaque one needs."""
    if alpha.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(alpha), 0, 1) * 255).astype(np.uint8)
    alpha = np.maximum(alpha, 0)
    return (alpha >> max(int(alpha.max()).bit_length() - 8, 0)).astype(np.uint8)


def value_range(values: np.ndarray, few_values: int = _FEW_VALUES) -> tuple[int | float, int | float]:
    """The darkest and the brightest of finite values [H,W] or [H,W,C], without those far outside.

    Left out at either end: a hundredth of the pixels, if they lie four times farther out than all others; `few_values`
    values whatever their share, if they do (of floats, sixteen times farther, but for whole numbers below -999, which
    stand for no-data); a hundredth of the pixels, if no neighbour is like them and all others would share an eighth of
    the range. At least 16 values stay: a mask keeps its white.
    """
    levels, counts = _levels(values)
    start, stop = 0, len(levels)
    for _ in range(3):  # again, because -3.4e38 hides that 9999 is far out, too
        height = levels[start:stop].astype(np.float64)
        gap = _gap(levels, float(levels[stop - 1]))
        stop = start + _without_top(height - height[0], counts[start:stop], gap, few_values)
        height = levels[start:stop].astype(np.float64)
        depth = (height[-1] - height)[::-1]
        start = stop - _without_top(depth, counts[start:stop][::-1], _gap(levels, float(levels[start])), few_values)
    low, high = levels[start].item(), levels[stop - 1].item()
    if stop - start <= FEW_SHADES:
        return low, high
    share = counts[start:stop].cumsum() / counts[start:stop].sum()
    most_low, most_high = (levels[start + share.searchsorted(each)].item() for each in (_FEW_PIXELS, 1 - _FEW_PIXELS))
    least = (high - low) / _CROWDED
    if most_high - low > least and high - most_low > least:
        return low, high
    low_end, high_end = _ends_of_medians(np.clip(values, low, high))
    low_end, high_end = min(low_end, most_low), max(high_end, most_high)
    enough = 0 if levels.dtype.kind == "f" else 255  # a few counts of integers are noise, not worth stretching
    if enough <= high_end - low <= least:
        return low, high_end
    if enough <= high - low_end <= least:
        return low_end, high
    return low, high


def _ends_of_medians(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest median of a pixel [H,W] or [H,W,C] and its eight neighbours."""
    padded = np.pad(values, [(1, 1), (1, 1), *[(0, 0)] * (values.ndim - 2)], mode="edge")
    low, high, width = np.inf, -np.inf, values.shape[1]
    for top in range(0, values.shape[0], 128):  # by strips, as there are nine copies of each
        strip = padded[top : top + 130]
        nine = [strip[y : len(strip) - 2 + y, x : x + width] for y in range(3) for x in range(3)]
        medians = np.median(nine, axis=0)
        low, high = min(low, float(medians.min())), max(high, float(medians.max()))
    return low, high


def _gap(levels: np.ndarray, outermost: float) -> int:
    """How many times farther out few values must lie to be no measurements."""
    no_data = outermost <= -999 and outermost == round(outermost)
    return _GAP if levels.dtype.kind != "f" or no_data else FEW_SHADES


def _without_top(height: np.ndarray, counts: np.ndarray, gap: int, few_values: int) -> int:
    """How many of the different values, by their height above the lowest, stay when those far above are left out."""
    if len(height) <= FEW_SHADES:
        return len(height)
    last, total = len(height) - 1, counts.sum()
    above = total - counts.cumsum()[:-1]
    far = (above <= _FEW_PIXELS * total) & (height[1:] >= _GAP * height[:-1])
    few = (last - np.arange(last) <= few_values) & (height[1:] >= gap * height[:-1])
    ends = np.flatnonzero((far | few)[FEW_SHADES - 1 :])
    return int(ends[0]) + FEW_SHADES if len(ends) else len(height)


def _levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values, sorted, and how many pixels have each."""
    if values.dtype.kind == "f" or values.dtype.itemsize > 2:
        return np.unique(values, return_counts=True)
    low = 0 if values.dtype.kind == "u" else int(values.min())
    counts = np.bincount((values.astype(np.int32) - low if low else values).reshape(-1))
    levels = np.flatnonzero(counts)
    return levels + low, counts[levels]


def _measured(values: np.ndarray, no_data: float | None) -> np.ndarray | None:
    """bool, which samples are measurements; None where all are."""
    if values.dtype.kind != "f" and no_data is None:
        return None
    measured = np.ones(values.shape, bool)
    if values.dtype.kind == "f":
        measured = np.abs(values) < _NO_MEASUREMENT if values.dtype.itemsize > 2 else np.isfinite(values)  # also of NaN
    if no_data is not None and np.isfinite(no_data):
        with np.errstate(over="ignore"):
            measured &= values != (values.dtype.type(no_data) if values.dtype.kind == "f" else no_data)
    return None if measured.all() else measured


def _floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        crowded, some = 1 / (FEW_SHADES - 1), _FEW_PIXELS * values.size
        as_they_are = np.count_nonzero(values > low + crowded) > some and np.count_nonzero(values < high - crowded) > some
        if not as_they_are:
            low, high = value_range(values, few_values=0)
            as_they_are = high - low >= crowded or len(_levels(values)[0]) < FEW_SHADES
    else:
        low, high = value_range(values)
        as_they_are = low >= 0 and high <= 1
    low, high = (0.0, 1.0) if as_they_are else (low, high)
    inside = np.clip(values.astype(np.float64), low, high)
    return np.rint((inside - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)


def _integers(values: np.ndarray) -> np.ndarray:
    if values.dtype.itemsize == 8 and max(float(values.max()), -float(values.min())) >= 2**62:
        values = values >> 8  # so that no difference overflows
    if values.dtype != np.uint16:
        values = values.astype(np.int32 if values.dtype.itemsize <= 2 else np.int64)
    darkest, brightest = int(values.min()), int(values.max())
    if (brightest - min(darkest, 0)).bit_length() <= 8:
        return (values - min(darkest, 0)).astype(np.uint8)
    low, high = (int(end) for end in value_range(values))
    black = min(low, 0)
    bits = (high - black).bit_length()
    if bits > 8 and values.ndim == 2 and 4 * (high - low) < 1 << bits and len(_levels(values)[0]) >= FEW_SHADES:
        black, bits = low, (high - low).bit_length()
    outside = values > high if high < brightest else None
    if outside is not None or black or darkest < 0:
        values = np.clip(values, black, high) - black
    shades = (values >> max(bits - 8, 0)).astype(np.uint8)
    if outside is not None:
        shades[outside] = 255
    return shades


def count_shades(shades: np.ndarray) -> int:
    """How many different values uint8 samples have, or that they are at least 16."""
    samples = shades.reshape(-1)
    some = samples[:: max(1, samples.size // 4096)]  # enough for nearly every picture
    count = len(np.unique(some))
    return count if count >= FEW_SHADES else int(np.count_nonzero(np.bincount(samples, minlength=256)))


def say_few_shades(name: object, count: int) -> None:
    """Say on stderr that a picture came out in one shade, or in few."""
    say_some(f"{name}: comes out in {'one shade' if count == 1 else f'{count} shades of 256'}")
