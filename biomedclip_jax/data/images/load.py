"""Image files, DICOM files, PIL images and arrays -> decoded PIL images, each in its own mode.

Decoding and `preprocess` are two steps because open_clip resizes in the image's own mode (a palette image by nearest
neighbour, say) and converts to RGB afterwards.
"""

import io
import logging
import struct
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from biomedclip_jax.data.images._deep import to_8_bits
from biomedclip_jax.data.images._deep_files import is_deep, is_tiff, load_deep
from biomedclip_jax.errors import UserError

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp", *DICOM_SUFFIXES)
RARE_SUFFIXES = (".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".pcx")  # of the other formats below

# Pillow knows more, among them EPS and WMF, which run other programs on what may be a stranger's file.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO", "PCX")
_ARRAY_KINDS = (
    "uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4], uint16 or bool [H,W], or float [H,W] or [H,W,3] with values from 0 to 1"
)

_HEAD = 4096  # bytes that say what a file is
NIFTI_MARKS = (b"n+1\0", b"n+2\0", b"ni1\0")  # the last: a header (.hdr) whose voxels are in an .img beside it

logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it logs what it raises, and the name is missing

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
    Pixels deeper than 8 bits are brought to 8: integers are shifted right until the brightest sample of all channels
    fits (0..4095 is divided by 16; 0..255 stays), after the darkest is moved to 0 if it is negative or far from it;
    floats from 0 to 1 are multiplied by 255, other floats stretched from their minimum and maximum. A hot pixel and
    no-data have no say in that; what becomes fewer than 16 shades is named on stderr. The orientation tag of a
    photograph is not applied, nor does open_clip apply it (to TIFF files Pillow does).
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


def image_size(source: str | Path | bytes, name: str = "image") -> tuple[int, int]:
    """Width and height of what `load_image` makes of a path or the bytes of a file, read from its head where that is
    enough. Raises `UserError` as `load_image` does.
    """
    return size_in_head(source) or load_image(source, name).size


def size_in_head(source: str | Path | bytes) -> tuple[int, int] | None:
    """Width and height that the head of a file tells Pillow; None where it does not, as of DICOM and of some deep files."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with quiet_readers(), suppress(Exception), Image.open(file, formats=_FORMATS) as image:
        return image.size
    return None


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
        head = file.read(_HEAD)
        if not head:
            raise UserError(f"{name}: the file is empty: download or export it again")
        if said := _markup(head):
            raise UserError(f"{name}: {said}")
        file.seek(0)
        if not is_dicom(Path(name), head):
            return _decode(file, name, head)
        from biomedclip_jax.data.images._dicom import load_dicom

        return load_dicom(name, file)


def is_dicom(path: Path, head: bytes) -> bool:
    """Whether a file that begins with `head` (256 bytes or more) is DICOM: by its mark or its first elements, else by
    its suffix.
    """
    return head[128:132] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES or is_bare_dicom(head)


def is_bare_dicom(head: bytes) -> bool:
    """Whether a file begins with DICOM's elements, without preamble and mark: two of groups 2 or 8, in their order."""
    for order in ("<", ">"):
        position, tags = 0, []
        while len(tags) < 2 and len(head) >= position + 12:
            tag = struct.unpack_from(f"{order}HH", head, position)
            kind = head[position + 4 : position + 6]
            explicit = kind.isalpha() and kind.isupper()
            size = (
                struct.unpack_from(f"{order}H", head, position + 6)
                if explicit
                else struct.unpack_from(f"{order}I", head, position + 4)
            )
            tags.append(tag)
            if tag[0] not in (2, 8) or size[0] % 2 or (explicit and kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")):
                tags = tags[:-1]
                break
            position += 8 + size[0]
        if len(tags) == 2 and tags[0] < tags[1]:
            return True
    return False


def _decode(file: IO[bytes], name: str | Path, head: bytes) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
        if not is_deep(image, head):
            return _whole(image, name)
    except UnidentifiedImageError:
        if not is_tiff(head) and not head.startswith(b"\xff\xd8"):
            if str(name).lower().endswith((".nii", ".nii.gz")) or head[344:348] in NIFTI_MARKS:
                raise UserError(f"{name}: a volume, not one image; --every 1 takes all slices, --every 5 each fifth") from None
            if str(name).lower().endswith(".img") and Path(str(name)).with_suffix(".hdr").is_file():
                raise UserError(f"{name}: the voxels of a volume; give the .hdr beside it, with --every K") from None
            known = " ".join(IMAGE_SUFFIXES)
            raise UserError(f"{name}: not an image, or damaged at its beginning; expected one of {known}") from None
    except UserError:
        raise
    except Exception as error:
        if not is_tiff(head) or isinstance(error, Image.DecompressionBombError):
            raise _damaged(name, error) from error
    try:
        return load_deep(file, name, head)
    except UserError:
        raise
    except Exception as error:
        raise _damaged(name, error) from error


def _whole(image: Image.Image, name: str | Path) -> Image.Image:
    """An opened image, loaded; gray ones of 16 or 32 bits (PNG, PGM ...) as 8 bits."""
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(to_8_bits(np.asarray(image), name))
    if image.mode == "LAB":  # of TIFF, which Pillow itself converts to no other mode
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
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
        return UserError(
            f"{name}: {reason} Make it smaller, take it apart (a slide: --every 1), or raise PIL.Image.MAX_IMAGE_PIXELS if you "
            "trust it"
        )
    return UserError(f"{name}: a damaged or incomplete image ({reason}): download or export it again")


def _markup(head: bytes) -> str | None:
    """What to say of a file that begins as a page of markup; None of any other."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text.startswith((b"<!doctype html", b"<!doctype svg", b"<html", b"<head", b"<?xml", b"<!--", b"<svg")):
        return None
    if b"<svg" in text.partition(b"<html")[0]:
        return "SVG / XML, not a picture of pixels: export it as PNG"
    if text.startswith(b"<?xml") and b"<html" not in text:
        return "SVG / XML, not a picture of pixels (a web page that says what went wrong?): fetch it again"
    return "a web page, not an image (an error page of the download?): fetch it again"


def _from_array(array: np.ndarray) -> Image.Image:
    got = f"shape {list(array.shape)}, dtype {array.dtype}"
    kind, channels = array.dtype.kind, array.shape[2:]
    fits = array.ndim in (2, 3) and array.size > 0
    if fits and array.dtype == np.uint8 and channels in ((), (1,), (3,), (4,)):
        return Image.fromarray(array[..., 0] if channels == (1,) else array)
    if fits and kind == "b" and channels == ():
        return Image.fromarray(array.astype(np.uint8) * 255)
    if fits and kind == "u" and array.dtype.itemsize == 2 and channels == ():
        return Image.fromarray(to_8_bits(array, got))
    if fits and kind == "f" and channels in ((), (3,)):
        if not (array.min() >= 0 and array.max() <= 1):  # also true of NaN
            raise UserError(f"image array of {got}: values from {array.min()} to {array.max()}, expected 0 to 1")
        return Image.fromarray(to_8_bits(array, got))
    raise UserError(f"image array of {got}: expected {_ARRAY_KINDS}")
