"""A batch that is encoded in equal parts, one after another; its images are uint8 until their part is encoded."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from biomedclip_jax.config import ComputeConfig, PreprocessConfig
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.sharding import put_batch

# images uint8 [B, S, S, 3]; tokens int32 [B, N]; index uint32 [B], the position in the run; perhaps labels bool [B, C]
Batch = dict[str, Array]
Normalise = Callable[[Array], Array]


def encode_in_microbatches(encode: Callable[[Batch], Array], batch: Batch, microbatches: int) -> Array:
    """encode(batch), computed on `microbatches` equal parts of the rows, one at a time. Each array is [B, ...].

    Images that wait on the host are sliced where they are needed, and again in the backward pass: `encode` fetches them.
    """
    if microbatches == 1:
        return encode(batch)
    waiting = {name: x for name, x in batch.items() if _on_host(x)}
    rows = len(batch["index"]) // microbatches if waiting else 0
    parts = {name: x.reshape(microbatches, -1, *x.shape[1:]) for name, x in batch.items() if name not in waiting}

    def part_of(number: Array, part: Batch) -> Array:
        sliced = {name: lax.dynamic_slice_in_dim(x, number * rows, rows) for name, x in waiting.items()}
        return encode(part | sliced)

    turns = (jnp.arange(microbatches), parts)
    _, outputs = lax.scan(lambda _, turn: (None, jax.checkpoint(part_of)(*turn)), None, turns)
    return outputs.reshape(-1, *outputs.shape[2:])


def put_training_batch(batch: dict[str, np.ndarray], mesh: Mesh, compute: ComputeConfig) -> Batch:
    """Global arrays from this host's rows of a batch, its images where `compute.images_in` says."""
    if compute.images_in == "device":
        return put_batch(batch, mesh)
    return put_batch(batch | {"images": as_words(batch["images"])}, mesh, on_host=("images",))


def as_words(images: np.ndarray) -> np.ndarray:
    """Images uint8 [b, S, S, 3], S even, as uint32 [b, S·S·3/4], the same bytes: the form in which they wait on the host.

    A TPU keeps uint8 in tiles of another shape in either memory, and would fetch the whole batch to cut a part out of it.
    """
    return np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint32)


def _on_host(x: Array) -> bool:
    return x.dtype == jnp.uint32 and x.ndim == 2


def _fetched(words: Array) -> Array:
    """Images uint8 [b, S, S, 3] on the device, of words on the host."""
    pixels = lax.bitcast_convert_type(jax.device_put(words, jax.memory.Space.Device), jnp.uint8)
    side = math.isqrt(pixels[0].size // 3)
    return pixels.reshape(-1, side, side, 3)


def normaliser(config: PreprocessConfig) -> Normalise:
    """What makes images uint8 [..., 3] into normalised ones, float32; float images are taken to be normalised already.
    Images that wait on the host (`as_words`) are fetched first.

    On CPU and GPU the result is that of `data.images.normalise.normalised` to the last bit: it is looked up in a table.
    Compiled arithmetic has other bits, as XLA divides by a constant by multiplying, and fuses products with sums. But a
    TPU reads a table number by number, so there it is arithmetic: at most 5e-7 off, and the same after rounding to
    bfloat16, all but one value of a channel whose mean and deviation are 0.5.
    """
    table = normalised(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1), config)
    mean, std = (np.array(values, np.float32).astype(np.float64) for values in (config.mean, config.std))
    slope, start = np.float32(1 / (255 * std)), np.float32(-mean / std)

    def looked_up(images: Array) -> Array:
        return jnp.asarray(table).at[images, jnp.arange(3)].get(mode="promise_in_bounds")

    def computed(images: Array) -> Array:
        return images.astype(jnp.float32) * slope + start

    def normalise(images: Array) -> Array:
        images = _fetched(images) if _on_host(images) else images
        return images if images.dtype != jnp.uint8 else lax.platform_dependent(images, tpu=computed, default=looked_up)

    return normalise
