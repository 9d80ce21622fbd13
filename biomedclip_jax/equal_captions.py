"""Equal captions of a batch as positives of each other: which captions are equal, and the loss of a block of scores.

In CLIP's loss an image's only positive is its own caption. Where many captions are the same sentence, as they are when
they are made of labels, that pushes an image away from the very words that describe it. Here every pair with the same
caption is a positive, and each row's target is uniform over its positives (UniCL, arXiv 2204.03610):

    1/2B · Σ_i [ log Σ_j exp(s·u_i·v_j) - mean over positives k of s·u_i·v_k ], and the same of texts against images

which is the cross-entropy with these targets. Its least value is not 0 but the mean of ln(positives of a row). In
SigLIP's loss, where each score is decided alone, they are simply pairs, too (`losses.sigmoid_block`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int, UInt32

Ids = UInt32[Array, "n 2"]  # of captions, as `caption_ids` makes them

NOTHING = -1e30  # exp gives exactly 0; an infinity would give 0/0 in the gradient of a pair that has no others


class EqualIds(NamedTuple):
    """The ids of some rows, and of all columns that they are compared with."""

    rows: Ids
    columns: UInt32[Array, "m 2"]


def caption_ids(tokens: Int[Array, "n N"]) -> Ids:
    """64 bits for each caption: the same where all tokens are the same, which is all that the model sees of a text.

    A sum of random bits, one draw for each (position, token). Two captions that differ anywhere have the same id with
    probability 2^-64: among 65,536 different captions of a batch, once in 10^10 batches.
    """
    root = jax.random.key(0, impl="threefry2x32")
    positions = jax.vmap(lambda position: jax.random.fold_in(root, position))(jnp.arange(tokens.shape[1]))
    draw = jax.vmap(jax.vmap(jax.random.fold_in), in_axes=(None, 0))
    return jax.random.key_data(draw(positions, tokens.astype(jnp.uint32))).sum(axis=1, dtype=jnp.uint32)


def equal_ids(rows: Ids, columns: UInt32[Array, "m 2"]) -> Bool[Array, "n m"]:
    """Which columns have the caption of a row."""
    return (rows[:, None, 0] == columns[:, 0]) & (rows[:, None, 1] == columns[:, 1])


def positives_block(
    scores: Float[Array, "n m"], positives: Bool[Array, "n m"], numbers: dict[str, Float[Array, ""]]
) -> Float[Array, ""]:
    """Σ_i [ log Σ_j exp(s·score_ij) - mean of s·score_ik over the positives k of i ] over the rows of a block.

    Taken apart into log Σ over the positives, less their mean, and log(1 + Σ of the others / Σ of the positives). Of one
    positive the first is nothing and the second is `losses.softmax_block`: the digits of a small loss are kept.
    """
    scale = jnp.exp(numbers["logit_scale"])
    count = positives.sum(axis=1)
    mean = (jnp.sum(scores, axis=1, where=positives) / count)[:, None]
    spread = jax.nn.logsumexp(jnp.where(positives, scale * (scores - mean), NOTHING), axis=1)
    gaps = scale * (scores - lax.stop_gradient(mean))  # it falls out of the difference below
    ours = jax.nn.logsumexp(jnp.where(positives, gaps, NOTHING), axis=1)
    others = jax.nn.logsumexp(jnp.where(positives, NOTHING, gaps), axis=1)
    return (jnp.where(count > 1, spread, 0) + jax.nn.softplus(others - ours)).sum()
