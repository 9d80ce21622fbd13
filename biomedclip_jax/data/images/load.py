"""Image files, DICOM files, PIL images and arrays -> decoded PIL images, each in its own mode.

Decoding and `preprocess` are two steps because open_clip resizes in the image's own mode (a palette image by nearest
neighbour, say) and converts to RGB afterwards.
"""

import io
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from biomedclip_jax.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp", *DICOM_SUFFIXES)
RARE_SUFFIXES = (".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".pcx")  # of the other formats below

# Pillow knows more, among them EPS and WMF, which run other programs on what may be a stranger's file.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO", "PCX")
_ARRAY_KINDS = (
    "uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4], uint16 or bool [H,W], or float [H,W] or [H,W,3] with values from 0 to 1"
)

_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filters = warnings.catch_warnings()


class LazyImage:
    """An image that is read and decoded when it is asked for."""

    def load(self) -> Image.Image:
        """Read and decode the image. UserError, which names it, if that fails."""
        raise NotImplementedError


ImageSource = str | Path | bytes | Image.Image | np.ndarray | LazyImage


def load_image(source: ImageSource, name: str = "image") -> Image.Image:
    """A decoded image in its own mode. Messages call it by its path, or by `name`.

    A path, or the bytes of a file: any common image file (the first frame of several), or DICOM, recognised by content.
    Pixels deeper than 8 bits become mode "L": integers are shifted right until the brightest pixel fits 8 bits
    (0..4095 is divided by 16; 0..255 stays), after the darkest is moved to 0 if it is negative; floats from 0 to 1
    are multiplied by 255, other floats stretched from their minimum and maximum. The orientation tag of a photograph
    is not applied, nor does open_clip apply it.
    A PIL image: the same object, so that `preprocess` does with it what open_clip does.
    An array: uint8 [H,W], [H,W,1], [H,W,3], [H,W,4]; uint16 [H,W] by the rule above; bool [H,W] as 0 and 255;
    float [H,W] or [H,W,3] from 0 to 1.

    Raises `UserError`, which names the file and what is wrong with it, for anything that is not one of these.
    """
    if isinstance(source, LazyImage):
        return source.load()
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        with quiet_readers():
            return _load_pixels(source, name)
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), name)
    if not isinstance(source, str | Path):
        raise UserError(f"an image is a path, bytes, a PIL image or a NumPy array, not {type(source).__name__}")
    path = Path(source)
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder where an image file was expected") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def quiet_readers() -> Iterator[None]:
    """No Python warning of Pillow or pydicom inside the block: odd files are common, and what matters is an error.

    The warning filters are one list for all threads, so threads that decode side by side share one change of it: the
    first one in makes it, the last one out takes it back.
    """
    global _quiet_users, _quiet_filters
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\b")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_filters.__exit__(None, None, None)


def _read(file: IO[bytes], name: str | Path) -> Image.Image:
    with quiet_readers():
        head = file.read(256)
        if not head:
            raise UserError(f"{name}: the file is empty: download or export it again")
        if _is_web_page(head):
            raise UserError(f"{name}: a web page, not an image (an error page of the download?): fetch it again")
        file.seek(0)
        if not is_dicom(Path(name), head):
            return _decode(file, name)
        from biomedclip_jax.data.images._dicom import load_dicom

        return load_dicom(name, file)


def is_dicom(path: Path, head: bytes) -> bool:
    """Whether a file that begins with `head` (132 bytes or more) is DICOM: by its magic, else by its suffix."""
    return head[128:132] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES


def _decode(file: IO[bytes], path: str | Path) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        known = " ".join(IMAGE_SUFFIXES)
        raise UserError(f"{path}: not an image, or damaged at its beginning; expected one of {known}") from None
    except Exception as error:
        raise _damaged(path, error) from error
    image = _load_pixels(image, path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image), path))
    return image


def _load_pixels(image: Image.Image, name: str | Path) -> Image.Image:
    try:
        image.load()
    except Exception as error:
        raise _damaged(name, error) from error
    return image


def one_line(text: object) -> str:
    """What a library has to say, fit for a `UserError`: some quote half the file."""
    return textwrap.shorten(str(text), 200, placeholder=" ...")


def _damaged(name: str | Path, error: Exception) -> UserError:
    """Pillow's readers raise nearly everything on damaged files: OSError, SyntaxError, struct.error, KeyError ..."""
    reason = one_line(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return UserError(f"{name}: {reason} Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it")
    return UserError(f"{name}: a damaged or incomplete image ({reason}): download or export it again")


def _is_web_page(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--"))


def _from_array(array: np.ndarray) -> Image.Image:
    got = f"shape {list(array.shape)}, dtype {array.dtype}"
    kind, channels = array.dtype.kind, array.shape[2:]
    fits = array.ndim in (2, 3) and array.size > 0
    if fits and array.dtype == np.uint8 and channels in ((), (1,), (3,), (4,)):
        return Image.fromarray(array[..., 0] if channels == (1,) else array)
    if fits and kind == "b" and channels == ():
        return Image.fromarray(array.astype(np.uint8) * 255)
    if fits and kind == "u" and array.dtype.itemsize == 2 and channels == ():
        return Image.fromarray(_to_8_bits(array, got))
    if fits and kind == "f" and channels in ((), (3,)):
        if not (array.min() >= 0 and array.max() <= 1):  # also true of NaN
            raise UserError(f"image array of {got}: values from {array.min()} to {array.max()}, expected 0 to 1")
        return Image.fromarray(_to_8_bits(array, got))
    raise UserError(f"image array of {got}: expected {_ARRAY_KINDS}")


def _to_8_bits(values: np.ndarray, name: str | Path) -> np.ndarray:
    """The rule of `load_image` for deep pixels: any integer or float dtype to uint8, same shape."""
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"{name}: some pixels are NaN or infinite: replace them by numbers")
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        return np.rint((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    darkest = int(values.min())
    if darkest < 0:
        values = values.astype(np.int64) - darkest
    return (values >> max(int(values.max()).bit_length() - 8, 0)).astype(np.uint8)
