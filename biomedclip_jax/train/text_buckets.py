"""Captions at their real length: those of a batch, sorted over all devices into a few groups of fixed shape.

Padded to 256 tokens the text tower costs more than the image tower, while real captions have 150 tokens in the
mean. The groups' shapes are fixed when a stage starts, from the lengths of the data set's captions, and leave room
for chance (3 standard deviations): the shortest n₁ captions of a batch are computed at length L₁, the next n₂ at L₂
and so on. A batch that does not fit all the same (`fits`) is computed at full length, so no caption is ever
shortened.

Sorting happens on the devices: token ids are small, each device gathers those of the whole batch and takes every
d-th of the sorted captions. So all devices have the same work, and the hosts need not know each other's captions.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from biomedclip_jax.config import Stage
from biomedclip_jax.sharding import all_rows, device_count, first_row

_DEVIATIONS = 3.0  # one step in several hundred does not fit; more room would cost every step more than these cost


@dataclass(frozen=True)
class Bucket:
    """`rows` captions a device, computed at `length` tokens, in `microbatches` parts."""

    rows: int
    length: int
    microbatches: int


Buckets = tuple[Bucket, ...]


def caption_lengths(tokens: ArrayLike, pad_id: int) -> Array:
    """Tokens of each caption up to the last one that is not padding: int32 [B] of tokens [B, N]."""
    tokens = jnp.asarray(tokens)
    return jnp.max(jnp.where(tokens != pad_id, jnp.arange(1, tokens.shape[1] + 1), 1), axis=1)


def plan_buckets(
    lengths: np.ndarray, longest: int, stage: Stage, devices: int, count: int, *, complete: bool = False
) -> Buckets:
    """The groups of a stage for captions of such `lengths`, int [n]; () where padding is no worse, and where
    captions must stay in their order or are not used.

    longest: tokens that captions are padded to. count: the most groups; 1 means to pad. complete: these are the lengths of
    all captions and not of a sample, in which longer ones may be missing.
    """
    if stage.prompted or stage.loss.negatives is not None:
        return ()
    here = stage.batch_size // devices
    parts = stage.microbatches
    unit = parts if parts > 1 else 8 if here % 8 == 0 and here >= 64 else 1
    found: list[Bucket] = []
    done = 0
    for number in range(1, count):
        length = min(longest, -(-longest * number // (8 * count)) * 8)
        share, unsure = float(np.mean(lengths <= length)), 0.0
        if not complete:  # two longer ones more than were seen (Agresti and Coull): that a sample has none proves little
            share, unsure = share * len(lengths) / (len(lengths) + 2), 1 / len(lengths)
        deviation = (share * (1 - share) * (1 / stage.batch_size + unsure)) ** 0.5
        rows = int(here * (share - _DEVIATIONS * deviation) - done) // unit * unit
        if rows > 0 and length < longest:
            found.append(_bucket(rows, length, longest, here, parts))
            done += rows
    if not found:
        return ()
    return (*found, _bucket(here - done, longest, longest, here, parts)) if done < here else tuple(found)


def _bucket(rows: int, length: int, longest: int, here: int, parts: int) -> Bucket:
    """As few parts as keep each at no more tokens than a part of the padded batch has.

    In a stage with microbatches they are two at least: parts are encoded in a loop, and again in the backward pass. What is
    kept of several buckets of one part, or computed again for all of them at once, would be many parts in memory together.
    """
    most = here // parts * longest
    divisors = (n for n in range(min(parts, 2), parts + 1) if parts % n == 0 and rows % n == 0)
    return Bucket(rows, length, next((n for n in divisors if rows // n * length <= most), parts))


def token_share(buckets: Buckets, longest: int) -> float:
    """Tokens computed, as a share of those of the padded batch."""
    if not buckets:
        return 1.0
    return sum(b.rows * b.length for b in buckets) / (sum(b.rows for b in buckets) * longest)


def sort_captions(batch: dict[str, Array], pad_id: int, buckets: Buckets) -> tuple[dict[str, Array], Array]:
    """Inside `jax.shard_map`: (this device's captions of the whole batch sorted by length, whether they fit the buckets).

    The captions come as tokens [b, N], index [b] and rows int32 [b]: the pairs of the batch that they belong to.
    """
    tokens, index = all_rows(batch["tokens"]), all_rows(batch["index"])
    lengths = caption_lengths(tokens, pad_id)
    order = jnp.argsort(lengths)
    devices = device_count()
    ends = np.cumsum([bucket.rows for bucket in buckets]) * devices
    fits = jnp.all(lengths[order][ends - 1] <= np.asarray([bucket.length for bucket in buckets]))
    mine = order.reshape(-1, devices)[:, first_row(1)]
    return {"tokens": tokens[mine], "index": index[mine], "rows": mine}, fits
