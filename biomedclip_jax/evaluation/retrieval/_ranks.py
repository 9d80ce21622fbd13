"""Exact ranks of the right keys among all, by tiles of scores and not their whole matrix, queries split over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from biomedclip_jax.errors import UserError
from biomedclip_jax.sharding import AXES, BATCH, make_mesh, replicated, rows

_TEXTS = 2**17  # on the devices at a time: 256 MiB at width 512


def ranks(
    image: Float[np.ndarray, "images E"],
    text: Float[np.ndarray, "texts E"],
    own: Int[np.ndarray, "pairs 2"],
    block: int | None = None,
) -> tuple[Int[np.ndarray, " images"], Int[np.ndarray, " texts"]]:
    """How many texts score better than the best right one, for each image; and how many images do, for each text.

    image, text: unit embeddings, float32. own: the pairs (image, text) that belong together; an image may have several
    texts and a text several images. Of equal scores the wrong ones count as better: a constant model gets no credit.
    Returns int32; 0 is the best, and the number of texts or images where nothing belongs to a row.
    block: rows and columns of a tile; None: what suits the device.
    Raises UserError where an embedding is not finite: no score is better than NaN, and all would seem found.
    Both directions come from one pass, 2 · images · texts · E operations, on the devices of this process. The embeddings
    may be memory-mapped; beside them this takes little. It is quick where the texts are in the order of their images: the
    scores of `own` come first, from their tiles.
    """
    _check_finite(image, text)
    mesh = make_mesh(jax.local_devices())
    block = block or _block_of(mesh)
    high, wide = _size(len(image), mesh.size, block), _size(len(text), 1, block)
    scores = _own_scores(image, text, own, high, wide)
    best_image, best_text = np.full(len(image), -np.inf, np.float32), np.full(len(text), -np.inf, np.float32)
    np.maximum.at(best_image, own[:, 0], scores)
    np.maximum.at(best_text, own[:, 1], scores)

    over_image, over_text = np.zeros(len(image), np.int64), np.zeros(len(text), np.int64)
    tiles = -(-len(text) // wide)
    chunks = -(-tiles * wide // max(_TEXTS, wide))
    at_once = wide * -(-tiles // chunks)  # the same for each: one shape, one program
    for start in range(0, len(text), at_once):
        here = slice(start, start + at_once)
        of_image, of_text = _counts(mesh, (image, best_image), (text[here], best_text[here]), high, wide, at_once)
        over_image += of_image
        over_text[here] += of_text
    # the right ones were counted with the others; they have the same scores there, from the same product
    found = over_image, over_text
    for over, best, side in zip(found, (best_image, best_text), (0, 1), strict=True):
        np.subtract.at(over, own[:, side], (scores >= best[own[:, side]]).astype(over.dtype))
    return found[0].astype(np.int32), found[1].astype(np.int32)


def _check_finite(image: np.ndarray, text: np.ndarray) -> None:
    for name, embeddings in (("image", image), ("text", text)):
        for start in range(0, len(embeddings), _TEXTS):
            bad = ~np.isfinite(embeddings[start : start + _TEXTS]).all(axis=1)
            if bad.any():
                raise UserError(f"{name} embedding {start + bad.argmax()} is not finite; is the model, or its input, broken?")


def _block_of(mesh: Mesh) -> int:
    """Rows of a tile: a processor's cache should hold its scores, 4 MiB; other devices want larger products."""
    return 1_024 if mesh.devices.flat[0].platform == "cpu" else 4_096


def _size(count: int, devices: int, most: int) -> int:
    """Rows of a tile: `most`, or less where that would be mostly padding."""
    return min(most, 1 << max(3, (-(-count // devices) - 1).bit_length()))


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """The array [n, ...] as [size, ...], filled up with zeros."""
    if len(array) == size:
        return array
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _counts(
    mesh: Mesh,
    images: tuple[np.ndarray, np.ndarray],
    texts: tuple[np.ndarray, np.ndarray],
    high: int,
    wide: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """How many of these texts reach the best score of each image, int64 [I]; how many images reach that of each text.

    images, texts: embeddings and best scores. high, wide: rows and columns of a tile. size: texts, once filled up.
    """
    (image, best_image), (text, best_text) = images, texts
    count = _counter(mesh)
    tiles = jax.device_put(_filled(text, size).reshape(-1, wide, text.shape[1]), replicated(mesh))
    best_tiles = jax.device_put(_filled(best_text, size).reshape(-1, wide), replicated(mesh))
    over_image, over_text = np.zeros(len(image), np.int64), np.zeros(size, np.int64)
    part = high * mesh.size

    def collect(start: int, of_image: Array, of_text: Array) -> None:
        over_image[start : start + part] = np.asarray(of_image)[: len(image) - start]
        np.add(over_text, np.asarray(of_text).ravel(), out=over_text)

    running = None  # one part is being counted while the next is made ready
    for start in range(0, len(image), part):
        here = slice(start, start + part)
        queries, best = (jax.device_put(_filled(array[here], part), rows(mesh)) for array in (image, best_image))
        counting = start, *count(queries, best, tiles, best_tiles)
        if running is not None:
            collect(*running)
        running = counting
    if running is not None:
        collect(*running)
    # what was filled up with zeros scores exactly 0
    over_image -= (size - len(text)) * (best_image <= 0)
    over_text -= -len(image) % part * (_filled(best_text, size) <= 0)
    return over_image, over_text[: len(text)]


def _tile(queries: Float[Array, "Q E"], keys: Float[Array, "n E"]) -> Float[Array, "Q n"]:
    """The scores of a tile, float32."""
    scores = lax.dot_general(queries, keys, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
    return lax.optimization_barrier(scores)  # fused with what follows it the product might round differently


@jax.jit
def _some_of_tile(queries: Array, keys: Array, row: Array, column: Array) -> Array:
    return _tile(queries, keys)[row, column]


def _own_scores(image: np.ndarray, text: np.ndarray, own: np.ndarray, high: int, wide: int) -> np.ndarray:
    """The scores of `own`, float32 [P], from tiles of the usual shape: a product of another shape may round differently."""
    tile = own[:, 0] // high * (len(text) // wide + 1) + own[:, 1] // wide
    order = np.argsort(tile, kind="stable")
    starts = np.flatnonzero(np.diff(tile[order], prepend=-1))
    most = 1 << int(np.diff(np.append(starts, len(order))).max(initial=1) - 1).bit_length()
    scores = np.empty(len(own), np.float32)
    for group in np.split(order, starts[1:]):
        if not len(group):
            continue
        top, left = own[group[0], 0] // high * high, own[group[0], 1] // wide * wide
        cells = np.zeros((2, most), np.int32)
        cells[:, : len(group)] = own[group].T - [[top], [left]]
        queries, keys = _filled(image[top : top + high], high), _filled(text[left : left + wide], wide)
        scores[group] = np.asarray(_some_of_tile(queries, keys, cells[0], cells[1]))[: len(group)]
    return scores


@functools.lru_cache(maxsize=8)
def _counter(mesh: Mesh):
    """The compiled count: (queries [Q, E], best [Q], tiles [n, C, E], best of tiles [n, C]) -> int32 [Q], [n, C]."""

    def count(queries: Array, best: Array, tiles: Array, best_tiles: Array) -> tuple[Array, Array]:
        def over(total: Array, tile: tuple[Array, Array]) -> tuple[Array, Array]:
            keys, best_keys = tile
            scores = _tile(queries, keys)
            of_keys = (scores >= best_keys[None]).sum(axis=0, dtype=jnp.int32)
            return total + (scores >= best[:, None]).sum(axis=1, dtype=jnp.int32), of_keys

        none = lax.pcast(jnp.zeros(len(queries), jnp.int32), AXES, to="varying")
        total, of_tiles = lax.scan(over, none, (tiles, best_tiles))
        return total, lax.psum(of_tiles, AXES)

    specs = (BATCH, BATCH, P(), P())
    return jax.jit(jax.shard_map(count, mesh=mesh, in_specs=specs, out_specs=(BATCH, P())))
