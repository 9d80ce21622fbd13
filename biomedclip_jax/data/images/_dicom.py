"""DICOM files as ordinary 8-bit images, shown as a viewer would show them at first.

Needs pydicom, which is imported when the first DICOM file is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image

from biomedclip_jax.data.images import _dicom_jpeg
from biomedclip_jax.data.images._deep import FEW_SHADES, count_shades, say_few_shades, to_8_bits
from biomedclip_jax.data.images._dicom_gray import gray
from biomedclip_jax.data.images.load import one_line, quiet_readers
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import say_some

if TYPE_CHECKING:
    from pydicom import Dataset

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def load_dicom(path: str | Path, content: IO[bytes] | None = None) -> Image.Image:
    """A DICOM file as an image of mode "L" or "RGB". content: read instead of the file at `path`.

    Of several frames the first; where that has one shade, one of the middle, which is said on stderr. Gray: see
    `gray`. Colour: RGB, YBR and palettes become RGB. Files without preamble and file-meta header are read, too.

    Raises `UserError` for a missing or damaged file, one without pixels, and one whose compression nothing installed
    can decode.
    """
    file = DicomFile(path, content)
    pixels = file.frame(0)
    if file.frames > 1 and count_shades(pixels) == 1:
        for index in dict.fromkeys((file.frames // 2, 3 * file.frames // 4, file.frames // 4, file.frames - 1)):
            other = file.frame(index)
            if count_shades(other) > 1:
                say_some(f"{path}: the first of its {file.frames} frames has one shade: frame {index + 1} is used")
                pixels = other
                break
    shades = count_shades(pixels)
    if shades == 1 or (shades < FEW_SHADES and file.deep):
        say_few_shades(path, shades)
    return Image.fromarray(pixels)


class DicomFile:
    """A DICOM file with pixels, of which one frame at a time is decoded. Not for several threads at once."""

    def __init__(self, path: str | Path, content: IO[bytes] | None = None, window: tuple[float, float] | None = None):
        """content: read instead of the file at `path`. window: centre and width, in place of the file's own.

        Raises `UserError` as `load_dicom` does, and for a window where the file has colours.
        """
        try:
            import pydicom
        except ImportError:
            raise UserError(f"{path}: reading DICOM needs pydicom: pip install 'biomedclip_jax[dicom]'") from None
        self._path, self._window = path, window
        with quiet_readers(), self._damage_said():
            self._dataset = pydicom.dcmread(content or path, force=True)
            _require_pixels(self._dataset, path)
            _dicom_jpeg.correct_colour_space(self._dataset)
            self._unused_bits = _count_all_bits(self._dataset)
            self.frames = int(self._dataset.get("NumberOfFrames") or 1)
            self.deep = self._dataset.get("BitsAllocated", 32) > 8
            self.modality = str(self._dataset.get("Modality") or "")

    def frame(self, index: int) -> np.ndarray:
        """uint8 [H,W] or [H,W,3] of a frame, counted from 0. UserError where it is damaged."""
        with quiet_readers(), self._damage_said():
            return _frame(self._dataset, index, self._path, self._unused_bits, self._window)

    @contextmanager
    def _damage_said(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # what a damaged or odd element raises in pydicom is anybody's guess
            reason = one_line(error)
            raise UserError(f"{self._path}: cannot be decoded as DICOM, export it again or as PNG: {reason}") from error


def _require_pixels(dataset: "Dataset", path: str | Path) -> None:
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        if not dataset.preamble and "SOPClassUID" not in dataset:
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
    _dicom_jpeg.register()
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        raise UserError(f"{path}: {name} is not supported: convert it to an uncompressed DICOM or PNG") from None
    if not decodable:
        raise UserError(f"{path}: no decoder is installed for {name}: pip install 'biomedclip_jax[dicom]'")


def _count_all_bits(dataset: "Dataset") -> int:
    """How many unused bits are below the stored ones, as in files of old devices; they count as stored from here on.

    pydicom takes what is stored for the lowest bits, and sets all above them to 0 (an overlay may hide there).
    """
    high, bits = dataset.get("HighBit"), dataset.get("BitsStored")
    if high is None or bits is None or dataset.get("PixelRepresentation") or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return 0
    if not bits <= high < dataset.BitsAllocated:
        return 0
    dataset.BitsStored = high + 1
    return high + 1 - bits


def _frame(
    dataset: "Dataset", index: int, path: str | Path, unused_bits: int, window: tuple[float, float] | None
) -> np.ndarray:
    """uint8 [H,W] or [H,W,3]."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    # YBR_FULL and YBR_FULL_422 come out as RGB
    stored = pixel_array(dataset, index=index, decoding_plugin=_dicom_jpeg.plugin_for(dataset))
    if unused_bits and int(stored.max()) >> (dataset.BitsStored - unused_bits):  # else HighBit is wrong
        stored = stored >> unused_bits
    kind = dataset.PhotometricInterpretation
    if window is not None and (kind == "PALETTE COLOR" or stored.ndim == 3):
        raise UserError(f"{path}: --window is for gray values, and this image has colours; leave it out, or this file")
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        # 16-bit tables that hold 8-bit values are against the standard and common.
        return (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8)
    if stored.ndim == 3:
        if kind not in _COLOURS:
            raise NotImplementedError(f"colour kind {kind} is not supported")
        shift = max(dataset.BitsStored - 8, 0)
        if shift and stored.max() >> shift < 64:  # fewer bits than declared
            return to_8_bits(stored, path)
        return (stored >> shift).astype(np.uint8)
    return gray(stored, dataset, index, path, window)
