"""A batch that is encoded in equal parts, one after another; its images are uint8 until their part is encoded."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.preprocess import normalised

# images uint8 [B, S, S, 3]; tokens int32 [B, N]; index uint32 [B], the position in the run; perhaps labels bool [B, C]
Batch = dict[str, Array]
Normalise = Callable[[Array], Array]


def encode_in_microbatches(encode: Callable[[Batch], Array], batch: Batch, microbatches: int) -> Array:
    """encode(batch), computed on `microbatches` equal parts of the rows, one at a time. Each array is [B, ...]."""
    if microbatches == 1:
        return encode(batch)
    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
    _, outputs = lax.scan(lambda _, part: (None, jax.checkpoint(encode)(part)), None, parts)
    return outputs.reshape(-1, *outputs.shape[2:])


def normaliser(config: PreprocessConfig) -> Normalise:
    """What makes images uint8 [..., 3] into normalised ones, float32; float images are taken to be normalised already.

    On CPU and GPU the result is that of `data.images.preprocess.normalised` to the last bit: it is looked up in a table.
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
        return images if images.dtype != jnp.uint8 else lax.platform_dependent(images, tpu=computed, default=looked_up)

    return normalise
