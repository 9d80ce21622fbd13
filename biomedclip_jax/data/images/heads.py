"""How large an image says that it is, of the files whose heads Pillow does not read: DICOM, deep TIFF, rare JPEG.

What is inside a DICOM file counts, too: its own rows and columns may say less than the compressed picture in it.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from biomedclip_jax.data.images._deep_files import is_tiff
from biomedclip_jax.data.images.load import is_bare_dicom, quiet_readers
from biomedclip_jax.errors import UserError

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_JPEG, _J2K = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_SIZED = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of JPEG and JPEG-LS that are followed by height and width
_SCAN = b"\xff\xda"  # a marker of JPEG; where it is data, a zero stands between the two
_MOST_SCANS = 200  # a progressive JPEG has about ten; each, however short, goes over the whole picture
_BYTES_A_PIXEL = 8  # of a DICOM file that is packed as a whole


def announced(content: bytes, name: str, most: int) -> Iterator[tuple[int, int]]:
    """Width and height of each picture that the head of a file announces, where Pillow may not have read it.

    most: pixels that are allowed, for what has to be unpacked to be known. UserError where that is more, and for a JPEG
    that would be decoded for hours.
    """
    if content[128:132] == b"DICM" or is_bare_dicom(content[:4096]) or name.lower().endswith((".dcm", ".dicom")):
        yield from _of_dicom(content, name, most)
    elif is_tiff(content[:16]):
        yield from _of_tiff(content)
    elif content.startswith(_JPEG):
        if (scans := content.count(_SCAN)) > _MOST_SCANS:
            raise UserError(f"{name}: a JPEG of {scans:,} scans; expected {_MOST_SCANS} at most: save it again")
        yield from _of_jpegs(content[: 1 << 20])


def _of_dicom(content: bytes, name: str, most: int) -> Iterator[tuple[int, int]]:
    if _DEFLATED in content[:4096]:
        _check_deflated(content, name, most * _BYTES_A_PIXEL)
    try:
        import pydicom
    except ImportError:  # who decodes it says so
        return
    with quiet_readers():
        try:
            head = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=True)
            size = int(head.get("Columns") or 0), int(head.get("Rows") or 0)
            samples = max(1, int(head.get("SamplesPerPixel") or 1))
            syntax = head.file_meta.get("TransferSyntaxUID") if hasattr(head, "file_meta") else None
        except Exception:  # a damaged file is for the decoder to name
            return
    yield size[0] * max(1, samples // 3), size[1]
    if syntax is not None and not syntax.is_private and syntax.is_compressed:
        yield from _of_jpegs(content)


def _check_deflated(content: bytes, name: str, most: int) -> None:
    """UserError where a file that is packed as a whole unpacks to more than `most` bytes."""
    length = struct.unpack_from("<I", content, 140)[0] if content[132:136] == b"\2\0\0\0" and len(content) >= 144 else None
    with suppress(zlib.error):
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        if length is None or len(unpack.decompress(content[144 + length :], most + 1)) > most:
            raise UserError(f"{name}: a packed DICOM file of more than {most:,} bytes: export it uncompressed, or smaller")


def _of_tiff(content: bytes) -> Iterator[tuple[int, int]]:
    """The first page and its tiles, whose samples beyond four count as more pixels."""
    import tifffile

    with suppress(Exception), tifffile.TiffFile(io.BytesIO(content)) as file:  # a damaged file is for the decoder to name
        page = file.pages[0].aspage()
        width = page.imagewidth * max(1, page.samplesperpixel // 4) * max(1, page.imagedepth)
        yield width, page.imagelength
        if page.is_tiled:
            yield page.tilewidth * max(1, page.samplesperpixel // 4), page.tilelength


def _of_jpegs(content: bytes) -> Iterator[tuple[int, int]]:
    """Each JPEG, JPEG-LS and JPEG 2000 stream in the bytes."""
    start = content.find(_JPEG)
    while start >= 0:
        if size := _jpeg_size(content, start + 2):
            yield size
        start = content.find(_JPEG, start + 3)
    start = content.find(_J2K)
    while start >= 0:
        if len(content) >= start + 24:  # marker, length, capabilities, then width, height and where they begin
            right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
            yield max(right - left, 0), max(bottom - top, 0)
        start = content.find(_J2K, start + 4)


def _jpeg_size(content: bytes, position: int) -> tuple[int, int] | None:
    """The size in the first frame header after `position`, where the segments after the start of an image begin."""
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in _SIZED:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return width, height
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:  # without a length
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    return None
