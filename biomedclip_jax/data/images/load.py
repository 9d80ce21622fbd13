"""Image files, PIL images and arrays -> pixels for the image tower, as open_clip makes them.

`load_image` decodes, `preprocess` resizes, crops and normalises. They are two steps because open_clip resizes in the
image's own mode (a palette image by nearest neighbour, say) and converts to RGB afterwards.
"""

import io
import math
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from biomedclip_jax.config import AugmentConfig, PreprocessConfig
from biomedclip_jax.data.images.augment import augment
from biomedclip_jax.data.images.crop import in_square, otsu_cropped
from biomedclip_jax.data.images.dicom import DICOM_SUFFIXES, is_dicom, load_dicom, one_line, quiet_readers
from biomedclip_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp", *DICOM_SUFFIXES)

# Pillow knows more, among them EPS and WMF, which run other programs on what may be a stranger's file.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO", "PCX")
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
_MAX_RESIZED_PIXELS = 2**27  # 400 MB as RGB; with 224 pixels on the short side, an image 2,675 times as long as wide
_ARRAY_KINDS = (
    "uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4], uint16 or bool [H,W], or float [H,W] or [H,W,3] with values from 0 to 1"
)


class LazyImage:
    """An image that is read and decoded when it is asked for."""

    def load(self) -> Image.Image:
        """UserError, which names the image, if it cannot be read."""
        raise NotImplementedError


def find_images(path: str | Path) -> list[Path]:
    """The image files of a folder, sorted, subfolders included; of a file, that file whatever its suffix.

    Hidden files and folders (`.name`) are left out: `._scan.jpg` of macOS is no image.
    Raises `UserError` when there is no such path, or a folder holds no file with one of `IMAGE_SUFFIXES`.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{root}: no such file or folder")
    found = images_below(root)
    if not found:
        raise UserError(f"{root}: no image in this folder or below it; looked for {' '.join(IMAGE_SUFFIXES)}")
    return found


def images_below(root: Path) -> list[Path]:
    """The image files of a folder, as `find_images` finds them; there may be none."""
    return sorted(
        candidate
        for candidate in root.rglob("*")
        if candidate.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in candidate.relative_to(root).parts)
        and candidate.is_file()
    )


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


def preprocess(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """A PIL image of any mode, as float32 [S,S,3] normalised by mean and standard deviation, S = `config.image_size`.

    Equal, bit for bit, to open_clip's `image_transform(..., is_train=False)` (open_clip/transform.py) and to
    torchvision's transforms, which it is made of. "nearest", which open_clip lacks, is torchvision's NEAREST.

    Raises `UserError` for an image so elongated that its resized or padded form would not fit into memory.
    """
    size = config.image_size
    image = _prepared(image, config)
    resized = image.resize(_resized_size(image.size, config), _RESAMPLING[config.interpolation])
    width, height = resized.size
    if config.resize_mode == "shortest":
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = resized.crop((left, top, left + size, top + size))
    elif config.resize_mode == "longest":
        resized = _padded(resized, size, config.fill_color)
    return _normalised(resized, config)


def preprocess_train(
    image: Image.Image,
    config: PreprocessConfig,
    generator: np.random.Generator,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    extras: AugmentConfig | None = None,
) -> np.ndarray:
    """A random crop of `image`, as float32 [S,S,3] normalised: what open_clip trains on.

    open_clip's `image_transform(..., is_train=True)`: torchvision's RandomResizedCrop over `crop_scale` of the area,
    bicubic whatever `config.interpolation` says, no flip. The crop depends on the state of `generator` and on the
    image's size alone; `extras` are drawn after it.
    """
    image = _prepared(image, config)
    left, top, width, height = _random_crop(*image.size, crop_scale, generator)
    with quiet_readers():  # Pillow warns of a decompression bomb when a crop is as large
        crop = image.crop((left, top, left + width, top + height))
    resized = crop.resize((config.image_size, config.image_size), Image.Resampling.BICUBIC)
    return _normalised(resized if extras is None else augment(_to_rgb(resized), extras, generator), config)


def _read(file: IO[bytes], name: str | Path) -> Image.Image:
    with quiet_readers():
        head = file.read(256)
        if not head:
            raise UserError(f"{name}: the file is empty: download or export it again")
        if _is_web_page(head):
            raise UserError(f"{name}: a web page, not an image (an error page of the download?): fetch it again")
        file.seek(0)
        return load_dicom(name, file) if is_dicom(Path(name), head) else _decode(file, name)


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


def _prepared(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """What comes before cropping and resizing: stretching, one channel, a small square, no dark border, a large square."""
    if config.stretch:
        image = _stretched(image)
    if config.gray:
        image = _converted(image, "L")
    if config.square_size is not None:
        image = in_square(image if image.mode == "L" else _converted(image, "RGB"), config.square_size)
    if config.otsu_crop:
        image = otsu_cropped(image if image.mode == "L" else _converted(image, "RGB"))
    if config.resize_mode == "pad":
        side = max(config.image_size, *image.size)
        if side * side > _MAX_RESIZED_PIXELS:
            raise UserError(f"an image of {image.width} x {image.height} pixels is too large for resize_mode 'pad': crop it")
        image = _padded(image, side, config.fill_color)
    return image


def _stretched(image: Image.Image) -> Image.Image:
    """Darkest value to 0, brightest to 255, over all channels together; in the order of hi-ml, which does not round."""
    if image.mode not in ("L", "RGB", "RGBA"):
        image = _converted(image, "L" if image.mode in ("1", "LA") else "RGB")
    values = np.asarray(image, np.float64)
    values = values - values.min()
    values /= values.max() or 1.0
    values *= 255
    return Image.fromarray(values.astype(np.uint8))


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """A copy of the caller's image, if it is not in this mode already."""
    if image.mode == mode:
        return image
    image = image.copy()
    image.info.pop("transparency", None)  # as in `_to_rgb`
    return image.convert(mode)


def _padded(image: Image.Image, side: int, color: int) -> Image.Image:
    """A square with the image in its middle."""
    width, height = image.size
    left, top = (side - width) // 2, (side - height) // 2
    channels = len(image.getbands())
    fill = color if channels == 1 else (color,) * channels
    return ImageOps.expand(image, (left, top, side - width - left, side - height - top), fill)


def _resized_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
    """(width, height) after resizing. int() and round() are where torchvision and open_clip have them."""
    width, height = size
    target = config.resize_size or config.image_size
    if config.resize_mode in ("squash", "pad"):
        return target, target
    if config.resize_mode == "longest":
        ratio = max(height / target, width / target)
        return max(round(width / ratio), 1), max(round(height / ratio), 1)  # open_clip fails on 0
    resized = (target, int(target * height / width)) if width <= height else (int(target * width / height), target)
    if resized[0] * resized[1] > _MAX_RESIZED_PIXELS:
        raise UserError(f"an image of {width} x {height} pixels is too elongated for resize_mode 'shortest': crop it")
    return resized


def _random_crop(
    width: int, height: int, scale: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop: torchvision's `RandomResizedCrop.get_params`, ratio 3/4 to 4/3."""
    narrowest, widest = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(math.log(narrowest), math.log(widest)))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(generator.integers(0, height - crop_height + 1))
            left = int(generator.integers(0, width - crop_width + 1))
            return left, top, crop_width, crop_height
    # The image is too elongated for such a crop: the largest one in its middle, of the nearest allowed ratio.
    crop_width, crop_height = width, height
    if width / height < narrowest:
        crop_height = round(width / narrowest)
    elif width / height > widest:
        crop_width = round(height * widest)
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def _normalised(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """float32 [H,W,3]. `image` is the caller's own copy; in place and in torch's order, hence torch's rounding."""
    pixels = np.array(_to_rgb(image), np.float32)
    pixels /= 255
    rows = pixels.reshape(len(pixels), -1)  # NumPy is slow where the last axis has three elements
    rows -= np.tile(np.array(config.mean, np.float32), pixels.shape[1])
    rows /= np.tile(np.array(config.std, np.float32), pixels.shape[1])
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # does not change RGB, but Pillow warns of it on conversion
    return image if image.mode == "RGB" else image.convert("RGB")
