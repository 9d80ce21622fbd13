"""Exact ranks of the right keys among all, without the matrix of all scores: by tiles, the queries split over the devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from biomedclip_jax.errors import UserError
from biomedclip_jax.sharding import AXES, BATCH, make_mesh, replicated, rows

_BLOCK = 2_048  # rows and columns of a tile: 16 MiB of scores


def ranks(image: np.ndarray, text: np.ndarray, own: np.ndarray, block: int = _BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """How many texts score better than the best right one, for each image; and the same of images, for each text.

    image: unit embeddings float32 [I, E]. text: [T, E]. own: int [P, 2], the pairs (image, text) that belong together; an image
    may have several texts and a text several images. Of equal scores the wrong ones count as better: a constant model gets no
    credit. Returns int32 [I] and [T], 0 is the best; T and I where nothing belongs to a row.
    Raises UserError where an embedding is not finite: no score is better than NaN, and all would seem found.
    Both directions come from one pass, 2 I T E operations, on the devices of this process; memory is that of the embeddings.
    """
    for name, embeddings in (("image", image), ("text", text)):
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings)).any(axis=1).argmax())
            raise UserError(f"{name} embedding {bad} is not finite; is the model, or its input, broken?")
    mesh = make_mesh(jax.local_devices())
    high, wide = _block(len(image), mesh.size, block), _block(len(text), 1, block)
    scores = _own_scores(image, text, own, high, wide)
    best_image, best_text = np.full(len(image), -np.inf, np.float32), np.full(len(text), -np.inf, np.float32)
    np.maximum.at(best_image, own[:, 0], scores)
    np.maximum.at(best_text, own[:, 1], scores)

    tiles = jax.device_put(_blocks(text, wide), replicated(mesh))
    best_tiles = jax.device_put(_blocks(best_text, wide), replicated(mesh))
    count = _counter(mesh, len(text))
    over_image, over_text = [], np.zeros(len(tiles) * wide, np.int64)
    for start in range(0, len(image), high * mesh.size):
        part = slice(start, start + high * mesh.size)
        queries = _blocks(image[part], high * mesh.size)[0]
        best = _blocks(best_image[part], high * mesh.size)[0]
        used = np.arange(len(queries)) < len(image) - start
        queries, best, used = (jax.device_put(array, rows(mesh)) for array in (queries, best, used))
        of_image, of_text = count(queries, best, used, tiles, best_tiles)
        over_image.append(np.asarray(of_image))
        over_text += np.asarray(of_text).ravel()
    found = np.concatenate(over_image)[: len(image)], over_text[: len(text)]
    # the right ones were counted with the others; they have the same scores there, from the same product
    for over, best, side in zip(found, (best_image, best_text), (0, 1), strict=True):
        np.subtract.at(over, own[:, side], (scores >= best[own[:, side]]).astype(over.dtype))
    return found[0].astype(np.int32), found[1].astype(np.int32)


def _block(count: int, devices: int, most: int) -> int:
    """Rows of a tile: `most`, or less where that would be mostly padding."""
    return min(most, 1 << max(3, (-(-count // devices) - 1).bit_length()))


def _blocks(array: np.ndarray, size: int) -> np.ndarray:
    """[n, ...] to [m, size, ...], filled up with zeros."""
    count = max(1, -(-len(array) // size))
    padded = np.zeros((count * size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded.reshape(count, size, *array.shape[1:])


def _tile(queries: Array, keys: Array) -> Array:
    """float32 [R, C]."""
    return lax.dot_general(queries, keys, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


@jax.jit
def _some_of_tile(queries: Array, keys: Array, row: Array, column: Array) -> Array:
    return _tile(queries, keys)[row, column]


def _own_scores(image: np.ndarray, text: np.ndarray, own: np.ndarray, high: int, wide: int) -> np.ndarray:
    """float32 [P]. From tiles of the shape that all others have: a product of another shape may round differently."""
    tile = own[:, 0] // high * (len(text) // wide + 1) + own[:, 1] // wide
    order = np.argsort(tile, kind="stable")
    starts = np.flatnonzero(np.diff(tile[order], prepend=-1))
    most = 1 << int(np.diff(np.append(starts, len(order))).max(initial=1) - 1).bit_length()
    scores = np.empty(len(own), np.float32)
    for group in np.split(order, starts[1:]):
        if not len(group):
            continue
        top, left = own[group[0], 0] // high * high, own[group[0], 1] // wide * wide
        place = np.zeros((2, most), np.int32)
        place[:, : len(group)] = own[group].T - [[top], [left]]
        queries, keys = _blocks(image[top : top + high], high)[0], _blocks(text[left : left + wide], wide)[0]
        scores[group] = np.asarray(_some_of_tile(queries, keys, place[0], place[1]))[: len(group)]
    return scores


@functools.lru_cache(maxsize=8)
def _counter(mesh: Mesh, texts: int):
    """jit of (queries [Q, E], best [Q], used [Q], tiles [n, C, E], best of tiles [n, C]) -> counts int32 [Q], [n, C]."""

    def count(queries: Array, best: Array, used: Array, tiles: Array, best_tiles: Array) -> tuple[Array, Array]:
        wide = tiles.shape[1]

        def over(total: Array, tile: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            number, keys, best_keys = tile
            there = used[:, None] & (number * wide + jnp.arange(wide) < texts)[None]
            scores = _tile(queries, keys)
            of_queries = (scores >= best[:, None]) & there
            of_keys = (scores >= best_keys[None]) & there
            return total + of_queries.sum(axis=1, dtype=jnp.int32), of_keys.sum(axis=0, dtype=jnp.int32)

        none = lax.pcast(jnp.zeros(len(queries), jnp.int32), AXES, to="varying")
        total, of_tiles = lax.scan(over, none, (jnp.arange(len(tiles)), tiles, best_tiles))
        return total, lax.psum(of_tiles, AXES)

    specs = (BATCH, BATCH, BATCH, P(), P())
    return jax.jit(jax.shard_map(count, mesh=mesh, in_specs=specs, out_specs=(BATCH, P())))
