"""Dropout keyed by *example*: `keys` is an array of B keys, from which each site derives its own.

So the mask of a caption depends neither on its row in a batch nor on how far it is padded.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p

# Far above any block index, so that the dropout of a text tower's embeddings never shares a mask with a block's.
EMBEDDING_SITE = 1 << 20


def _keeps(keys: Array, site: int, rate: float, counters: Array) -> Array:
    """Which draws are kept: bool [B, 4, ...] for B keys and counters uint32 [...], each kept with probability 1 - rate.

    One threefry block of 64 bits gives four draws of 16 bits; a draw is a function of key, site, counter and lane alone.
    """

    def one(key: Array) -> Array:
        k1, k2 = jax.random.key_data(jax.random.fold_in(key, site))
        k1, k2, high = (jnp.broadcast_to(x, counters.shape) for x in (k1, k2, jnp.uint32(0)))
        a, b = threefry2x32_p.bind(k1, k2, high, counters)
        return jnp.stack([a & 0xFFFF, a >> 16, b & 0xFFFF, b >> 16]) >= jnp.uint32(round(rate * (1 << 16)))

    return jax.vmap(one)(keys)


def _dropped(x: Array, keep: Array, rate: float) -> Array:
    kept = max(1, (1 << 16) - round(rate * (1 << 16))) / (1 << 16)
    return jnp.where(keep, x * jnp.asarray(1 / kept, x.dtype), 0)


def dropout(x: Array, rate: float, keys: Array | None, site: int) -> Array:
    """Inverted dropout of x [B, N, D] with one key an example; `site` is a number that tells the uses inside a block apart.

    The mask of a token does not depend on N: the same caption has the same mask however long it is padded.
    """
    if keys is None or rate == 0:
        return x
    b, n, d = x.shape
    quarter = -(-d // 4)
    counters = jnp.arange(n * quarter, dtype=jnp.uint32).reshape(n, quarter)
    keep = _keeps(keys, site, rate, counters).transpose(0, 2, 1, 3).reshape(b, n, 4 * quarter)[..., :d]
    return _dropped(x, keep, rate)


def attention_dropout(weights: Array, rate: float, keys: Array | None, longest: int) -> Array:
    """Inverted dropout of attention weights [B, H, N, M], M at most `longest`; the mask does not depend on N and M either."""
    if keys is None or rate == 0:
        return weights
    b, heads, n, m = weights.shape
    quarter = -(-heads // 4)
    group, row, column = jnp.ogrid[:quarter, :n, :m]
    counters = ((group * longest + row) * longest + column).astype(jnp.uint32)
    keep = _keeps(keys, 0, rate, counters).reshape(b, 4 * quarter, n, m)[:, :heads]
    return _dropped(weights, keep, rate)
