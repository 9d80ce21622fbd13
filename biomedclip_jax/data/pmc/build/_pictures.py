"""A figure's image file -> the picture that a build keeps: checked, upright colours, made smaller once, JPEG.

Of the pictures of a whole build, `find_duplicates` tells which are the same as an earlier one: byte for byte, or to
the eye.
"""

import contextlib
import hashlib
import io
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import image_size, load_image, quiet_readers
from biomedclip_jax.errors import UserError

QUALITY = 95  # of JPEG, at full colour resolution: red and blue lines of charts stay sharp
MAX_ASPECT = 20  # of the longer side to the shorter; reduced to 512 pixels the shorter one would have 25
_PIXELS_IN_FLIGHT = 60_000_000  # of pictures that one process decodes side by side: 240 MB
_STRIP = 4_000_000  # pixels that are converted at once
_GAP = 3.0  # a picture is reduced by averages to this many times the size that is wanted, then finely
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE ** 2 bits
DISTANCE = 10  # bits of 256 in which perceptual hashes of the same picture, compressed or sized differently, may differ
_LARGEST_GROUP = 4_000  # in a larger group of pictures that share a piece of their hash only neighbours are compared
_BLOCK = 1_000_000  # pairs compared at once: 64 MB


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


# glibc keeps what is freed in blocks of Pillow's usual 16 MB for the thread that had it, gigabytes with four threads;
# blocks of more than 32 MB go back to the system
Image.core.set_block_size(2**26)


class PictureError(UserError):
    """A picture that is not used. reason: one of a few, to be counted."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, str(self))


class _Budget:
    """Lets threads decode side by side until their pictures have `most` pixels together; a larger one is alone."""

    def __init__(self, most: int):
        self._most, self._taken, self._changed = most, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_in_flight = _Budget(_PIXELS_IN_FLIGHT)


def make_picture(data: bytes, name: str, max_side: int, min_side: int) -> Picture:
    """Decode, check and, if its longer side is above `max_side` pixels, reduce. An RGB JPEG that is small enough is
    kept as is.

    Transparent parts become white, as on paper. Raises PictureError, naming the file, for what is not an image, is
    damaged, is a decompression bomb, has a side below `min_side` pixels, or is over MAX_ASPECT times as long as wide.
    """
    with decoding(data, name) as (width, height):
        shorter, longer = sorted((width, height))
        if shorter < min_side:
            raise PictureError(
                "image too small", f"{name}: {width} x {height} pixels; expected at least {min_side} on the shorter side"
            )
        if longer > MAX_ASPECT * shorter:
            raise PictureError(
                "image too narrow", f"{name}: {width} x {height} pixels; expected at most {MAX_ASPECT} times as long as wide"
            )
        image = _decoded(data, name, max_side)
        kept = data if image.format == "JPEG" and image.mode == "RGB" and longer <= max_side else None
        image = _reduced_rgb(image, (width, height), max_side)
    return Picture(kept or encode(image), width, height, hashlib.sha256(data).digest(), look(image))


@contextlib.contextmanager
def decoding(data: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Wait until there is room for a picture's pixels, in this process, and yield its width and height.

    PictureError for what cannot be decoded inside the block, or not be told apart from its first bytes.
    """
    try:
        width, height = image_size(data, name)
        with _in_flight.take(width * height):
            yield width, height
    except PictureError:
        raise
    except UserError as error:
        no_memory = isinstance(error.__cause__, MemoryError)
        reason = "image too large for the memory" if no_memory else "image unreadable"
        raise PictureError(reason, str(error)) from error
    except MemoryError as error:
        raise PictureError(
            "image too large for the memory", f"{name}: too large for the memory; use fewer --workers"
        ) from error


def _decoded(data: bytes, name: str, max_side: int) -> Image.Image:
    """As `load_image` gives it; a JPEG that is much too large is decoded at a half, a quarter or an eighth of its size."""
    if data.startswith(b"\xff\xd8"):
        with quiet_readers(), contextlib.suppress(Exception):  # then `load_image` knows what is wrong
            image = Image.open(io.BytesIO(data), formats=("JPEG",))
            size = _fitting(image.size, int(_GAP * max_side))
            if size < image.size and image.draft(None, size) is not None:
                return load_image(image, name)
    return load_image(data, name)


def _fitting(size: tuple[int, int], most: int) -> tuple[int, int]:
    """The size at which the longer side has `most` pixels, or the size as it is."""
    share = min(1.0, most / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _reduced_rgb(image: Image.Image, original: tuple[int, int], max_side: int) -> Image.Image:
    """As RGB with the longer side at most `max_side`: what `on_white` and Pillow's `thumbnail` give, without a copy of
    all pixels.
    """
    wanted = _fitting(original, max_side)
    if image.size == wanted:
        return on_white(image)
    # as Pillow: averages of whole pixels first, by a factor that leaves _GAP times what is wanted; here strip by strip
    across, down = (max(1, int(side / goal / _GAP)) for side, goal in zip(image.size, wanted, strict=True))
    smaller = _shrunk(image, across, down)
    box = (0.0, 0.0, image.width / across, image.height / down)
    return smaller.resize(wanted, Image.Resampling.BICUBIC, box)


def _shrunk(image: Image.Image, across: int, down: int) -> Image.Image:
    """As RGB on white, each pixel the mean of `across` x `down`; never more than a strip of it is converted at once."""
    width, height = image.size
    smaller = Image.new("RGB", (-(-width // across), -(-height // down)))
    rows = max(1, _STRIP // width // down) * down
    for top in range(0, height, rows):
        strip = on_white(image.crop((0, top, width, min(top + rows, height))))
        smaller.paste(strip.reduce((across, down)), (0, top // down))
    return smaller


def whole_rgb(image: Image.Image) -> Image.Image:
    """As `on_white`, with one copy of the pixels."""
    return _shrunk(image, 1, 1)


def on_white(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, transparent parts over white."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def reduce(image: Image.Image, max_side: int) -> None:
    """Make an image smaller, in place, if its longer side is above `max_side` pixels."""
    image.thumbnail((max_side, max_side), reducing_gap=_GAP)


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


@dataclass(frozen=True)
class Duplicates:
    """Which pictures are copies. of: int64 [n], the picture that picture i is a copy of, or -1. exact: bool [n], equal
    files.
    """

    of: np.ndarray
    exact: np.ndarray


def find_duplicates(digests: np.ndarray, looks: np.ndarray, order: np.ndarray, *, similar: bool = True) -> Duplicates:
    """Find pictures that are the same; of each group the one that is first in `order` stays.

    digests: uint8 [n, 32], SHA-256 of the files. looks: uint8 [n, 32], perceptual hashes. order: a permutation, int
    [n]. Two hashes that differ in at most DISTANCE bits are equal in one of DISTANCE + 1 pieces at least: only
    pictures that share a piece are compared, so that the work grows with n and not with its square.
    """
    count = len(digests)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    of, exact = np.full(count, -1, np.int64), np.zeros(count, bool)
    if count == 0:
        return Duplicates(of, exact)
    for group in _groups(digests):
        group = group[np.argsort(rank[group])]
        of[group[1:]], exact[group[1:]] = group[0], True
    if similar:
        kept = np.flatnonzero(of == -1)
        first, second = _similar(looks[kept])
        first, second = kept[first], kept[second]
        swapped = rank[first] > rank[second]
        first, second = np.where(swapped, second, first), np.where(swapped, first, second)
        for i in np.lexsort((rank[first], rank[second])):  # a copy is dropped only for one that stays itself
            if of[first[i]] == -1 and of[second[i]] == -1:
                of[second[i]] = first[i]
        for i in np.flatnonzero(exact):  # the copies of a copy
            if of[of[i]] != -1:
                of[i] = of[of[i]]
    return Duplicates(of, exact)


def _keys(rows: np.ndarray) -> np.ndarray:
    """uint8 [n, k] as n sortable values."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()


def _groups(rows: np.ndarray) -> list[np.ndarray]:
    """Positions of equal rows of uint8 [n, k], groups of two or more."""
    keys = _keys(rows)
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    sizes = np.diff(np.append(starts, len(keys)))
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True) if size > 1]


def _similar(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions whose hashes differ in at most DISTANCE bits, each pair once."""
    edges = np.linspace(0, 8 * looks.shape[1], DISTANCE + 2).astype(int)
    found = [np.empty((0, 2), np.int64)]
    for start, stop in itertools.pairwise(edges):
        first_byte = start // 8
        bits = np.unpackbits(looks[:, first_byte : -(-stop // 8)], axis=1)[:, start - 8 * first_byte : stop - 8 * first_byte]
        keys = _keys(np.packbits(bits, axis=1))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.arange(len(keys))
        for step in range(1, _LARGEST_GROUP):  # each with the one that stands `step` further on in its group
            first = first[first + step < len(keys)]
            first = first[keys[first] == keys[first + step]]
            if not len(first):
                break
            for block in np.array_split(first, 1 + len(first) // _BLOCK):
                pairs = np.stack([order[block], order[block + step]], axis=1)
                distance = np.bitwise_count(looks[pairs[:, 0]] ^ looks[pairs[:, 1]]).sum(axis=1)
                found.append(np.sort(pairs[distance <= DISTANCE], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]
