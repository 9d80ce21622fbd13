"""JPEG inside DICOM: the colours of its own stream, and 12 bits, for which pydicom has GPL decoders only."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import DecodeRunner

_PLUGIN = "imagecodecs"
_registering = threading.Lock()
_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"

# What pydicom asks of a module that has a decoder: these two names.
DECODER_DEPENDENCIES = {_EXTENDED: (_PLUGIN,)}


def is_available(uid: str) -> bool:
    """Whether this module decodes the transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def register() -> None:
    """Make `decode_frame` known to pydicom."""
    from pydicom.pixels.decoders.base import JPEGExtended12BitDecoder

    with _registering:
        if _PLUGIN not in JPEGExtended12BitDecoder.available_plugins:
            JPEGExtended12BitDecoder.add_plugin(_PLUGIN, (__name__, "decode_frame"))


def plugin_for(dataset: "Dataset") -> str:
    """The decoder that pydicom has to use for a file; empty where it may choose."""
    return _PLUGIN if dataset.file_meta.TransferSyntaxUID == _EXTENDED else ""


def decode_frame(content: bytes, runner: "DecodeRunner") -> bytes:
    """A frame of JPEG Extended, 8 or 12 bits, as pydicom wants it: samples beside one another, little-endian."""
    import imagecodecs

    pixels = imagecodecs.jpeg8_decode(content)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    if pixels.ndim == 3:
        runner.set_option("planar_configuration", 0)
        runner.set_option("photometric_interpretation", "RGB")  # imagecodecs has converted it
    return pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def correct_colour_space(dataset: "Dataset") -> None:
    """Change "RGB" in the header to "YBR_FULL" where the JPEG itself says so, as many ultrasound devices have it."""
    from pydicom.encaps import get_frame

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in (_BASELINE, _EXTENDED) or dataset.PhotometricInterpretation != "RGB" or "PixelData" not in dataset:
        return
    frame = get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    if is_ybr(frame):
        dataset.PhotometricInterpretation = "YBR_FULL"


def is_ybr(stream: bytes) -> bool:
    """Whether a JPEG of three components is YCbCr, by libjpeg's rule: a JFIF mark says yes, Adobe's says which; without
    marks, components of the numbers 1, 2, 3 are. Subsampled ones are, too: nobody subsamples green and blue.
    """
    position, jfif = 2, False
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker, size = stream[position + 1], int.from_bytes(stream[position + 2 : position + 4], "big")
        segment = stream[position + 4 : position + 2 + size]
        if marker == 0xFF:  # fill
            position += 1
            continue
        if marker == 0xE0 and segment[:4] == b"JFIF":
            jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            return segment[11] == 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            numbers, sampling = segment[6::3], segment[7::3]
            return len(numbers) == 3 and (jfif or numbers == b"\1\2\3" or len(set(sampling)) > 1)
        position += 2 + size
    return False
