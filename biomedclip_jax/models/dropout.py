"""Dropout keyed by *example*: `keys` is an array of B keys, from which each site derives its own.

So the mask of a caption depends neither on its row in a batch nor on how far it is padded: the random bits are made from
counters by hand, because those of `jax.random.bernoulli` for attention weights change with the length. In a step compiled for
an A100 this is one transpose more (50 MB at two blocks a tower and 64 pairs); copies and memory are the same.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p
from jaxtyping import Bool, Float, UInt32

from biomedclip_jax.models.shapes import Hidden, Keys

# Far above any block index, so that the dropout of a text tower's embeddings never shares a mask with a block's.
EMBEDDING_SITE = 1 << 20


def _keeps(keys: Keys, site: int, rate: float, counters: UInt32[Array, "*n"]) -> Bool[Array, "B 4 *n"]:
    """Which draws are kept, four for each counter, each kept with probability 1 - rate.

    One threefry block of 64 bits gives four draws of 16 bits; a draw is a function of key, site, counter and lane alone.
    """

    def one(key: Array) -> Array:
        k1, k2 = jax.random.key_data(jax.random.fold_in(key, site))
        k1, k2, high = (jnp.broadcast_to(x, counters.shape) for x in (k1, k2, jnp.uint32(0)))
        a, b = threefry2x32_p.bind(k1, k2, high, counters)
        return jnp.stack([a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16]) >= jnp.uint32(round(rate * (1 << 16)))

    return jax.vmap(one)(keys)


def _dropped(x: Float[Array, "*n"], keep: Bool[Array, "*n"], rate: float) -> Float[Array, "*n"]:
    kept = max(1, (1 << 16) - round(rate * (1 << 16))) / (1 << 16)
    return jnp.where(keep, x * jnp.asarray(1 / kept, x.dtype), 0)


def dropout(x: Hidden, rate: float, keys: Keys | None, site: int) -> Hidden:
    """Inverted dropout with one key an example; `site` is a number that tells the uses inside a block apart.

    The mask of a token does not depend on N: the same caption has the same mask however long it is padded.
    """
    if keys is None or rate == 0:
        return x
    b, n, d = x.shape
    quarter = -(-d // 4)
    counters = jnp.arange(n * quarter, dtype=jnp.uint32).reshape(n, quarter)
    keep = _keeps(keys, site, rate, counters).transpose(0, 2, 1, 3).reshape(b, n, 4 * quarter)[..., :d]
    return _dropped(x, keep, rate)


def attention_dropout(
    weights: Float[Array, "B H N m"], rate: float, keys: Keys | None, longest: int
) -> Float[Array, "B H N m"]:
    """Inverted dropout of attention weights of N queries and m keys, m at most `longest`; the mask depends on neither."""
    if keys is None or rate == 0:
        return weights
    b, heads, n, m = weights.shape
    quarter = -(-heads // 4)
    group, row, column = jnp.ogrid[:quarter, :n, :m]
    counters = ((group * longest + row) * longest + column).astype(jnp.uint32)
    keep = _keeps(keys, 0, rate, counters).reshape(b, 4 * quarter, n, m)[:, :heads]
    return _dropped(weights, keep, rate)
