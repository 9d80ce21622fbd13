"""Files that Pillow cuts to 8 bits, reads wrongly or not at all: deep TIFF, PNG, JPEG 2000 and JPEG, by samples.

tifffile and imagecodecs do the reading; they are imported when the first such file comes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.images._deep import alpha_to_8_bits, to_8_bits
from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from tifffile import TiffPage

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _SAMPLE_FORMAT, _PLANES, _ORIENTATION, _NO_DATA = 258, 339, 284, 274, 42113
_TURNED = {  # the orientation tag, which Pillow applies to TIFF files (and to no others)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class _Samples:
    """What a file holds: [H,W] or [H,W,C] without its opacity, of the file's own dtype."""

    values: np.ndarray
    alpha: np.ndarray | None = None
    white_is_zero: bool = False
    no_data: float | None = None
    orientation: int = 1
    cmyk: bool = False


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is TIFF or BigTIFF."""
    return head.startswith(_TIFF)


def is_deep(image: Image.Image, head: bytes) -> bool:
    """Whether an image that Pillow has opened, not loaded, has samples that Pillow would cut or read wrongly."""
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        kinds = set(tags.get(_SAMPLE_FORMAT, (1,)))
        planes = image.mode == "LA" and tags.get(_PLANES) == 2  # which Pillow reads as if they were one
        return planes or max(tags.get(_BITS, (1,))) > 8 or not kinds <= {1, 4}  # unsigned and undefined
    if image.format == "PNG":
        return head[24:25] == b"\x10" and head[25:26] in (b"\2", b"\4", b"\6")  # 16 bits; RGB, gray + alpha, RGBA
    if image.format == "JPEG2000" and image.mode not in ("I", "I;16", "I;16B", "F"):
        size = head.find(b"\xff\x4f\xff\x51")  # the first marker of the stream and the one that tells its depth
        return size >= 0 and len(head) > size + 42 and head[size + 42] & 0x7F > 7
    return False


def load_deep(file: IO[bytes], name: object, head: bytes) -> Image.Image:
    """A file that `is_deep`, or that Pillow does not open, as an 8-bit image "L", "LA", "RGB", "RGBA" or "CMYK".

    UserError for channels that no picture has. What is damaged raises whatever the readers raise.
    """
    file.seek(0)
    if is_tiff(head):
        samples = _tiff(file, name)
    else:
        content = file.read()
        import imagecodecs

        if head.startswith(b"\x89PNG"):
            samples = _with_alpha(imagecodecs.png_decode(content), name)
        elif head.startswith(b"\xff\xd8"):
            samples = _Samples(imagecodecs.jpeg8_decode(content))
        else:
            samples = _with_alpha(imagecodecs.jpeg2k_decode(content), name)
    return _image(samples, name)


def load_page(path: Path, number: int) -> Image.Image:
    """A page of a TIFF file, counted from 0, as `load_deep` makes the first one."""
    with path.open("rb") as file:
        return _image(_tiff(file, f"{path}, page {number + 1}", number), f"{path}, page {number + 1}")


def _image(samples: _Samples, name: object) -> Image.Image:
    values, dtype = samples.values, samples.values.dtype
    if samples.cmyk:  # amounts of ink, whose full scale is the dtype's
        if dtype.kind != "u":
            raise UserError(f"{name}: CMYK samples of dtype {dtype}: expected unsigned integers: export it as RGB")
        ink = (values >> (8 * dtype.itemsize - 8)).astype(np.uint8)
        image = Image.frombytes("CMYK", (ink.shape[1], ink.shape[0]), ink.tobytes())
    else:
        if dtype == np.uint8 and samples.no_data is None:
            shades = 255 - values if samples.white_is_zero else values
        else:
            shades = to_8_bits(values, name, white_is_zero=samples.white_is_zero, no_data=samples.no_data)
        if samples.alpha is not None:
            shades = np.dstack([shades, alpha_to_8_bits(samples.alpha)])
        image = Image.fromarray(np.ascontiguousarray(shades))
    turned = _TURNED.get(samples.orientation)
    return image if turned is None else image.transpose(turned)


def _with_alpha(values: np.ndarray, name: object) -> _Samples:
    """Of 2 and 4 channels the last is the opacity."""
    channels = values.shape[2] if values.ndim == 3 else 1
    if channels > 4:
        raise UserError(f"{name}: {channels} channels: expected gray or RGB, with or without alpha: export it as RGB")
    if channels in (2, 4):
        return _Samples(_gray_or_colour(values[..., :-1]), values[..., -1])
    return _Samples(_gray_or_colour(values))


def _gray_or_colour(values: np.ndarray) -> np.ndarray:
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def _tiff(file: IO[bytes], name: object, number: int = 0) -> _Samples:
    """A page of a TIFF file."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # odd tags are common; what matters is an error
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages.first if number == 0 else tiff.pages[number]
        _require_all_there(page, file)
        values = page.asarray(maxworkers=1)
        tags = page.tags
        no_data = _number(tags.valueof(_NO_DATA, default=None))
        orientation = tags.valueof(_ORIENTATION, default=1)
    if "Z" in page.axes:  # a volume in one page: its first slice
        values = values.take(0, axis=page.axes.index("Z"))
    if values.ndim == 3 and page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or values.size == 0:
        raise UserError(f"{name}: a TIFF of axes {page.axes}, shape {list(values.shape)}: export it as RGB")
    return _meant(values, page, no_data, orientation, name)


def _meant(values: np.ndarray, page: "TiffPage", no_data: float | None, orientation: int, name: object) -> _Samples:
    """The samples of a page by its photometric interpretation."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    colours = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3, "SEPARATED": 4}.get(kind)
    channels = values.shape[2] if values.ndim == 3 else 1
    if colours == 1 and channels >= 3 and not page.extrasamples:
        colours = 3  # writers that know no colours call every array black and white
    if colours is None or channels < colours or channels > colours + 4:
        raise UserError(f"{name}: a TIFF of {channels} {values.dtype} channels, {kind}: expected gray or RGB: export it as RGB")
    alpha = None
    if channels > colours and page.extrasamples and int(page.extrasamples[0]) in (1, 2):
        alpha = values[..., colours]
    if channels > 1:
        values = _gray_or_colour(values[..., :colours])
    return _Samples(values, alpha if kind != "SEPARATED" else None, kind == "MINISWHITE", no_data, orientation, colours == 4)


def _require_all_there(page: "TiffPage", file: IO[bytes]) -> None:
    """Raise ValueError for a page whose data are cut off, and Pillow's error for one of too many pixels."""
    if Image.MAX_IMAGE_PIXELS is not None and page.imagewidth * page.imagelength > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{page.imagewidth * page.imagelength} pixels are too many.")
    end, counts = file.seek(0, 2), page.databytecounts
    cut_off = any(offset + count > end for offset, count in zip(page.dataoffsets, counts, strict=True))
    if cut_off or not any(counts) or (0 in counts and _NO_DATA not in page.tags):  # GDAL leaves out tiles of no data
        raise ValueError("some of its pixels are missing")


def _number(text: object) -> float | None:
    """GDAL's no-data tag is text; None where it is no number."""
    try:
        return float(str(text).strip(" \0").replace(",", "."))
    except ValueError:
        return None
