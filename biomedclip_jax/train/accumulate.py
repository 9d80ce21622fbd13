"""Exact large batches: the towers run on one microbatch after another, the loss sees all embeddings at once.

The backward pass encodes each microbatch again (`jax.checkpoint`), so that memory holds one microbatch of activations and
the embeddings of the whole batch. The gradient is that of the whole batch, also with dropout and patch drop: their draws
are keyed by example. (The idea is GradCache's, arXiv 2101.06983; in JAX it is a scan over a checkpointed function.)
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax


def encode_in_microbatches(encode: Callable[[dict[str, Array]], Any], batch: dict[str, Array], microbatches: int) -> Any:
    """encode(batch), computed on `microbatches` equal parts of the rows, one at a time. Each array is [B, ...]."""
    if microbatches == 1:
        return encode(batch)
    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
    _, outputs = lax.scan(lambda _, part: (None, jax.checkpoint(encode)(part)), None, parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
