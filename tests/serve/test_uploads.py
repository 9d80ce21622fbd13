"""Small files that would fill memory are refused by their heads; others are read as `load_image` reads them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from helpers import dicom_files
from helpers.served import image_file
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError
from biomedclip_jax.serve._uploads import Upload, shown_name

MOST = 5_000


def png_head(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and ends."""
    head = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\0IDAT"


def jpeg_head(width: int, height: int, marker: int = 0xC0) -> bytes:
    """A JPEG of 12 bits that says how large it is, and ends."""
    comment = b"\xff\xfe\x00\x04ab"
    return b"\xff\xd8" + comment + struct.pack(">BBHBHHB", 0xFF, marker, 11, 12, height, width, 1) + b"\1\x11\0" + b"\xff\xd9"


def tiff(**options: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16, 3), np.uint16), photometric="rgb", **options)
    return file.getvalue()


def refused(content: bytes, name: str = "a.png") -> str:
    with pytest.raises(UserError) as error:
        Upload(content, name, MOST).load()
    return str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_an_image_of_allowed_size_is_decoded_as_ever(kind: str) -> None:
    content = image_file(0, kind)
    assert np.array_equal(np.asarray(Upload(content, "a", MOST).load()), np.asarray(load_image(content)))
    large = image_file(0, kind, (80, 90))
    assert "a: 90 x 80 pixels; expected 5,000 at most" in refused(large, "a")


def test_a_head_that_announces_much_is_believed_before_anything_is_unpacked() -> None:
    assert "9,000 x 9,000 pixels" in refused(png_head(9_000, 9_000))
    assert refused(png_head(60_000, 60_000)) == "a.png: more than 5,000 pixels: make it smaller, or crop it"
    assert "60,000 x 60,000 pixels" in refused(jpeg_head(60_000, 60_000, 0xC3))
    assert "damaged" in refused(jpeg_head(10, 10)), "a small one goes on to the decoder"


def test_a_jpeg_that_is_painted_thousands_of_times_is_refused() -> None:
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    few = content[:-2] + last * 100 + content[-2:]
    assert Upload(few, "a.jpg", MOST).load().size == (64, 64)
    scans = content.count(b"\xff\xda") + 1000
    assert f"a JPEG of {scans:,} scans; expected 200 at most" in refused(content[:-2] + last * 1000 + content[-2:], "a.jpg")


def test_tiff_tiles_and_samples_count() -> None:
    content = tiff(tile=(16, 16))
    assert Upload(content, "a", MOST).load().size == (16, 16)
    tag = struct.pack("<HHII", 322, 4, 1, 16)  # TileWidth
    assert content.count(tag) == 1
    assert "65,520 x 16 pixels" in refused(content.replace(tag, struct.pack("<HHII", 322, 4, 1, 65_520)))
    assert "100 x 100" in refused(image_file(0, "TIFF", (100, 100)))


def dicom(tmp_path: Path, pixels: np.ndarray, **elements: object) -> bytes:
    return dicom_files.write(tmp_path / "a.dcm", pixels, **elements).read_bytes()


def test_dicom_is_read_and_its_rows_and_columns_count(tmp_path: Path) -> None:
    content = dicom(tmp_path, np.arange(600, dtype=np.uint16).reshape(20, 30))
    assert Upload(content, "scan", MOST).load().size == (30, 20)
    assert "40,000 x 50,000" in refused(dicom(tmp_path, np.zeros((20, 30), np.uint16), Rows=50_000, Columns=40_000), "scan")


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (pydicom.uid.JPEGExtended12Bit, jpeg_head(50_000, 40_000)),
        (pydicom.uid.JPEG2000Lossless, b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">4I", 50_000, 40_000, 0, 0)),
    ],
)
def test_the_picture_inside_a_dicom_file_counts_whatever_the_file_says(tmp_path: Path, syntax: str, stream: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(tmp_path, np.zeros((20, 30), np.uint8))))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    assert "50,000 x 40,000" in refused(file.getvalue(), "scan.dcm")


def test_a_dicom_file_that_is_packed_as_a_whole_is_unpacked_only_so_far(tmp_path: Path) -> None:
    small = pydicom.dcmread(io.BytesIO(dicom(tmp_path, np.arange(600, dtype=np.uint16).reshape(20, 30))))
    large = pydicom.dcmread(io.BytesIO(dicom(tmp_path, np.zeros((200, 150), np.uint16))))
    contents = []
    for dataset in (small, large):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        contents.append(file.getvalue())
    assert Upload(contents[0], "scan", MOST).load().size == (30, 20)
    assert "a packed DICOM file of more than 40,000 bytes" in refused(contents[1], "scan")


def test_what_a_client_calls_a_file_is_shown_without_folders_and_on_one_line() -> None:
    assert shown_name("C:\\patients\\miller.png") == "miller.png" == shown_name("/home/x/miller.png")
    assert shown_name("a\nb\x1b[31m.png") == "ab[31m.png"
    assert shown_name(None) == "image" == shown_name("") and len(shown_name("x" * 500)) == 100


def test_an_image_that_is_no_image_is_named() -> None:
    assert refused(b"rubbish" * 100, "a.png").startswith("a.png: not an image")
    assert "empty" in refused(b"")
    assert Image.MAX_IMAGE_PIXELS is not None
