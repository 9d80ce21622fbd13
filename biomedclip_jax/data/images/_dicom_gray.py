"""Gray DICOM pixels to 8 bits: modality transform, window, then what is white (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2).

What cannot be read or shows nothing gives way to the next best: VOI table, windows in their order, the pixels' range.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedclip_jax.data.images._deep import value_range
from biomedclip_jax.support.terminal import say_some

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class _Table:
    """A lookup table: the value `first` becomes the first entry; what is below or above, the first or the last."""

    first: int
    bits: int
    entries: np.ndarray

    def looked_up(self, values: np.ndarray) -> np.ndarray:
        first = self.first
        if first >= 2**15 and values.max() < first:  # a negative number that was stored as unsigned
            first -= 2**16
        return self.entries[np.clip(values.astype(np.float64) - first, 0, len(self.entries) - 1).astype(np.int64)]

    def shades(self, values: np.ndarray) -> np.ndarray:
        """0 black to 1 white, by the bits that are declared; by the entries' own range where they use less than half
        of it or more, as tables declared 16 bits wide that hold 12 do.
        """
        low, high = int(self.entries.min()), int(self.entries.max())
        declared = 2**self.bits - 1
        white = declared if declared / 2 < high <= declared else high
        black = low if 4 * (white - low) < white else 0
        return (self.looked_up(values).astype(np.float64) - black) / ((white - black) or 1)


def gray(
    stored: np.ndarray, dataset: "Dataset", frame: int, path: str | Path, window: tuple[float, float] | None = None
) -> np.ndarray:
    """Stored values [H,W] of any integer or float dtype, as uint8 [H,W].

    Rescale slope and intercept or modality table; then the VOI table, else the first window that shows anything, else
    the range of the pixels that are not padding (`value_range`). A table or window that shows one shade of pixels that
    have more is left out, and that is said. INVERSE as PresentationLUTShape inverts and IDENTITY does not, whatever
    the photometric interpretation, as in DCMTK and dcm4che; without that element MONOCHROME1 does. Padding and pixels that
    are no numbers are black. Overlays are not drawn.
    window: centre and width in the units that slope and intercept lead to, in place of the file's own, whatever it shows.
    """
    padding = _padding(stored, dataset)
    if stored.dtype.kind == "f":
        padding |= ~np.isfinite(stored)
        stored = np.where(padding, 0, stored)
    if padding.all():
        return np.zeros(stored.shape, np.uint8)
    slope, intercept = 1.0, 0.0
    if (table := _table(dataset, "ModalityLUTSequence")) is not None:
        stored = table.looked_up(stored)
    else:
        rescale = _of_frame(dataset, "PixelValueTransformationSequence", frame)
        slope, intercept = _number(rescale, "RescaleSlope") or 1.0, _number(rescale, "RescaleIntercept") or 0.0
    values = stored * slope + intercept
    if window is not None:
        shades = _windowed(values, *window, "LINEAR_EXACT")
    else:
        shades = _through_window(values, padding, dataset, frame, path)
    if shades is None:
        if padding.any():
            visible = stored[~padding]
            stored = np.where(padding, np.partition(visible, visible.size // 2)[visible.size // 2], stored)
        black, white = sorted(end * slope + intercept for end in value_range(stored))
        shades = (values - black) / ((white - black) or 1.0)

    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape == "INVERSE" or (shape != "IDENTITY" and dataset.PhotometricInterpretation == "MONOCHROME1"):
        shades = 1.0 - shades
    shades = np.where(padding, 0.0, np.clip(shades, 0.0, 1.0))
    return np.rint(shades * 255).astype(np.uint8)


def _through_window(
    values: np.ndarray, padding: np.ndarray, dataset: "Dataset", frame: int, path: str | Path
) -> np.ndarray | None:
    """Shades, 0 black and 1 white, unclipped, by the first table or window that shows more than one; None without."""
    visible = values[~padding] if padding.any() else values
    flat = visible.min() == visible.max()
    useless = False
    for shades in _candidates(values, dataset, frame):
        seen = shades[~padding] if visible is not values else shades
        if flat or max(seen.min(), 0.0) < min(seen.max(), 1.0):
            return shades
        useless = True
    if useless:
        say_some(f"{path}: its window shows one shade: the range of its pixels is shown instead")
    return None


def _candidates(values: np.ndarray, dataset: "Dataset", frame: int) -> Iterator[np.ndarray]:
    if (table := _table(dataset, "VOILUTSequence")) is not None:
        yield table.shades(values)
    window = _of_frame(dataset, "FrameVOILUTSequence", frame)
    centers, widths = _numbers(window, "WindowCenter"), _numbers(window, "WindowWidth")
    function = str(window.get("VOILUTFunction") or "LINEAR").strip().upper()
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None and width > 0:
            yield _windowed(values, center, width, function)


def _windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Shades, 0 black and 1 white, unclipped: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 0.5 + 0.5 * np.tanh(2.0 * (values - center) / width)  # = 1 / (1 + exp(-4 (x - c) / w)), no overflow
    if function == "LINEAR_EXACT" or width <= 1:  # LINEAR is undefined below 1 and a step at 1
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _table(dataset: "Dataset", sequence: str) -> _Table | None:
    """The first lookup table of a sequence; None where there is none that can be read."""
    try:
        item = dataset[sequence][0]
        count, first, bits = (int(each) for each in item["LUTDescriptor"].value)
        data = item["LUTData"].value
        order = "<" if dataset.original_encoding[1] is not False else ">"
        content = data if isinstance(data, bytes) else (np.atleast_1d(data) & 0xFFFF).astype(f"{order}u2").tobytes()
    except Exception:  # what an odd element raises in pydicom is anybody's guess
        return None
    count = count % 2**16 or 2**16
    one_byte_each = bits <= 8 and len(content) < 2 * count
    entries = np.frombuffer(content[: len(content) // 2 * 2], np.uint8 if one_byte_each else f"{order}u2")[:count]
    return _Table(first, bits, entries) if len(entries) > 1 and 0 < bits <= 16 else None


def _padding(stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """bool [H,W]: the pixels that were never measured (PS3.3 C.7.5.1.1.2)."""
    prefix = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    first = _number(dataset, f"{prefix}PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = _number(dataset, f"{prefix}PixelPaddingRangeLimit")
    ends = np.array([first, first if last is None else last])
    if not prefix:
        # Writers store a negative value as unsigned: 63536 in a signed 16-bit image is -2000. The cast wraps it round.
        ends = ends.astype(np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _of_frame(dataset: "Dataset", sequence: str, frame: int) -> "Dataset":
    """Where the settings of a frame are: in the functional groups of an enhanced file, else at the top."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        frames = dataset.get(groups)
        if frames and len(frames) > index and frames[index].get(sequence):
            return frames[index].get(sequence)[0]
    return dataset


def _number(dataset: "Dataset", keyword: str) -> float | None:
    """The element's value, the first of several; None where it is absent, empty or no number."""
    return next(iter(_numbers(dataset, keyword)), None)


def _numbers(dataset: "Dataset", keyword: str) -> list[float | None]:
    """The element's values, each None where it is no number. A comma is read as a decimal point."""
    from pydicom.datadict import tag_for_keyword

    tag: Any = tag_for_keyword(keyword)
    if tag not in dataset:
        return []
    try:
        value = dataset[tag].value
    except Exception:  # pydicom reads "1024,5" as no number
        raw: Any = dataset.get_item(tag)
        value = raw.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = value.split("\\")
    found = value if hasattr(value, "__iter__") else [value]
    return [_as_float(each) for each in found]


def _as_float(value: object) -> float | None:
    try:
        number = float(str(value).replace(",", ".").strip(" \0"))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
