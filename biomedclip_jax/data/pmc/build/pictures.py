"""A figure's image file -> the picture that a build keeps: checked, upright colours, made smaller once, JPEG."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

QUALITY = 95  # of JPEG, at full colour resolution: red and blue lines of charts stay sharp
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE ** 2 bits


@dataclass(frozen=True)
class Picture:
    """A picture as a build keeps it.

    jpeg: the RGB picture. width, height: pixels of the original. digest: SHA-256 of the original file.
    look: perceptual hash, uint8 [HASH_SIDE ** 2 / 8]; files that look the same have hashes that differ in few bits or
    none.
    """

    jpeg: bytes
    width: int
    height: int
    digest: bytes
    look: np.ndarray


def make_picture(data: bytes, name: str, max_side: int, min_side: int) -> Picture:
    """Decode, check and, if its longer side is above `max_side` pixels, reduce. An RGB JPEG that is small enough is
    kept as is.

    Transparent parts become white, as on paper. Raises UserError, naming the file, for what is not an image, is
    damaged, is a decompression bomb, or has a side below `min_side` pixels.
    """
    image = load_image(data, name)
    width, height = image.size
    if min(width, height) < min_side:
        raise UserError(f"{name}: {width} x {height} pixels; expected at least {min_side} on the shorter side")
    kept = data if image.format == "JPEG" and image.mode == "RGB" and max(width, height) <= max_side else None
    image = on_white(image)
    reduce(image, max_side)
    return Picture(kept or encode(image), width, height, hashlib.sha256(data).digest(), look(image))


def on_white(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, transparent parts over white."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def reduce(image: Image.Image, max_side: int) -> None:
    """Make an image smaller, in place, if its longer side is above `max_side` pixels."""
    image.thumbnail((max_side, max_side), reducing_gap=3.0)


def encode(image: Image.Image) -> bytes:
    """An RGB image as the bytes of a JPEG file."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0, optimize=False)
    return out.getvalue()


def look(image: Image.Image) -> np.ndarray:
    """The perceptual hash (pHash): signs, about their median, of the HASH_SIDE x HASH_SIDE lowest frequencies of a
    gray copy.
    """
    import imagehash

    return np.packbits(imagehash.phash(image, HASH_SIDE).hash.ravel())
