"""DICOM files as ordinary 8-bit images, shown as a viewer would show them at first.

The order of the steps and their formulas are DICOM PS3.3: modality transform (C.11.1), then windowing (C.11.2), then
MONOCHROME1 inverted (C.7.6.3.1.2). Needs pydicom, which is imported when the first DICOM file is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import DICOM_SUFFIXES, one_line, quiet_readers
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset


def load_dicom(path: str | Path, content: IO[bytes] | None = None) -> Image.Image:
    """The first frame of a DICOM file as an image of mode "L" or "RGB". content: read instead of the file at `path`.

    Gray: rescale slope and intercept or modality table; then the VOI table, else the first window, else the range of
    the pixels that are not padding; MONOCHROME1 inverted; padding black. Colour: RGB, YBR and palettes become RGB.
    A file without preamble and file-meta header is accepted under the suffixes .dcm and .dicom.

    Raises `UserError` for a missing or damaged file, one without pixels, and one whose compression nothing installed
    can decode.
    """
    path = Path(path)
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise UserError(f"{path}: reading DICOM needs pydicom: pip install 'biomedclip_jax[dicom]'") from None
    with quiet_readers():
        try:
            dataset = pydicom.dcmread(content or path, force=path.suffix.lower() in DICOM_SUFFIXES)
            _require_pixels(dataset, path)
            pixels = _first_frame(dataset)
        except UserError:
            raise
        except InvalidDicomError:
            raise UserError(f"{path}: not DICOM (no DICM mark); rename it to .dcm if it is DICOM without that mark") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # what a damaged or odd element raises in pydicom is anybody's guess
            reason = one_line(error)
            raise UserError(f"{path}: cannot be decoded as DICOM, export it again or as PNG: {reason}") from error
    return Image.fromarray(pixels)


def _require_pixels(dataset: "Dataset", path: Path) -> None:
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        if not dataset.preamble:
            raise UserError(f"{path}: not a DICOM file, or one without an image: leave it out")
        content = dataset.get("SOPClassUID")
        kind = one_line(content.name) if content else "unknown content"
        raise UserError(f"{path}: no image in this DICOM file ({kind}): leave it out")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    syntax = dataset.file_meta.TransferSyntaxUID
    name = one_line(syntax.name)
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        raise UserError(f"{path}: {name} is not supported: convert it to an uncompressed DICOM or PNG") from None
    if not decodable:
        raise UserError(f"{path}: no decoder is installed for {name}: pip install 'biomedclip_jax[dicom]'")


def _first_frame(dataset: "Dataset") -> np.ndarray:
    """uint8 [H,W] or [H,W,3]."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    stored = pixel_array(dataset, index=0)  # YBR_FULL and YBR_FULL_422 come out as RGB
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        # 16-bit tables that hold 8-bit values are against the standard and common.
        return (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
    if stored.ndim == 3:
        if kind not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"):
            raise NotImplementedError(f"colour kind {kind} is not supported")
        return (stored >> max(dataset.BitsStored - 8, 0)).astype(np.uint8)
    return _gray(stored, dataset)


def _gray(stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Stored values [H,W] of any integer or float dtype, as uint8 [H,W]."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    padding = _padding(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, dataset)
    else:
        rescale = _of_first_frame(dataset, "PixelValueTransformationSequence")
        values = stored * (_number(rescale, "RescaleSlope") or 1.0) + (_number(rescale, "RescaleIntercept") or 0.0)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are NaN or infinite")

    window = _of_first_frame(dataset, "FrameVOILUTSequence")
    center, width = _number(window, "WindowCenter"), _number(window, "WindowWidth")
    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        shade = apply_voi(values, dataset) / (2**bits - 1)
    elif center is not None and width is not None and width > 0:
        shade = _windowed(values, center, width, window.get("VOILUTFunction") or "LINEAR")
    else:
        visible = values[~padding]
        low, high = (visible.min(), visible.max()) if visible.size else (0.0, 0.0)
        shade = (values - low) / ((high - low) or 1.0)

    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shade = 1.0 - shade
    shade = np.where(padding, 0.0, np.clip(shade, 0.0, 1.0))
    return np.rint(shade * 255).astype(np.uint8)


def _windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Shades, 0 black and 1 white, unclipped: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 0.5 + 0.5 * np.tanh(2.0 * (values - center) / width)  # = 1 / (1 + exp(-4 (x - c) / w)), no overflow
    if function == "LINEAR_EXACT" or width <= 1:  # LINEAR is undefined below 1 and a step at 1
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _padding(stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """bool [H,W]: the pixels that were never measured (PS3.3 C.7.5.1.1.2)."""
    first = _number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = _number(dataset, "PixelPaddingRangeLimit")
    # Writers store a negative value as unsigned: 63536 in a signed 16-bit image is -2000. The cast wraps it round.
    ends = np.array([first, first if last is None else last]).astype(np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _of_first_frame(dataset: "Dataset", sequence: str) -> "Dataset":
    """Where the settings of the first frame are: in the functional groups of an enhanced file, else at the top."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        frames = dataset.get(groups)
        if frames and frames[0].get(sequence):
            return frames[0].get(sequence)[0]
    return dataset


def _number(dataset: "Dataset", keyword: str) -> float | None:
    """The element's value, the first of several; None where it is absent or empty."""
    value: Any = dataset.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)
