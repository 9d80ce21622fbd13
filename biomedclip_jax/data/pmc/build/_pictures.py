"""A figure's image file -> the picture that a build keeps: checked, upright colours, made smaller once, JPEG.

Of the pictures of a whole build, `find_duplicates` tells which are the same as an earlier one: byte for byte, or to
the eye.
"""

import hashlib
import io
import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

QUALITY = 95  # of JPEG, at full colour resolution: red and blue lines of charts stay sharp
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
