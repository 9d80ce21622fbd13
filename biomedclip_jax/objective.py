"""The contrastive loss (InfoNCE over both directions), as a plain reference and as one device's share of it.

    loss = 1/2B · Σ_i [ log Σ_j exp(s·(u_i·v_j - u_i·v_i)) + log Σ_j exp(s·(v_i·u_j - v_i·u_i)) ]

with unit embeddings u (image), v (text) and s = exp(logit_scale). Source: open_clip `loss.py: ClipLoss`. The positive is
subtracted before the log-sum-exp, which keeps the digits of a small loss and of its gradient with respect to s.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from biomedclip_jax.sharding import DATA


def _rows_loss(queries: Array, keys: Array, positives: Array, scale: Array) -> Array:
    """Σ_i log Σ_j exp(scale·(q_i·k_j - q_i·k_positive)) over the rows of `queries`."""
    scores = jnp.matmul(queries, keys.T, precision=lax.Precision.HIGHEST)
    gaps = scores - jnp.take_along_axis(scores, positives[:, None], axis=1)
    return jax.nn.logsumexp(scale * gaps, axis=1).sum()


def contrastive_loss(image: Array, text: Array, logit_scale: Array) -> Array:
    """The loss of B pairs on one device. image, text: float32 [B, E], unit length; logit_scale: the logarithm."""
    diagonal = jnp.arange(len(image))
    scale = jnp.exp(logit_scale)
    both = _rows_loss(image, text, diagonal, scale) + _rows_loss(text, image, diagonal, scale)
    return both / (2 * len(image))


def local_contrastive_loss(image: Array, text: Array, logit_scale: Array) -> Array:
    """This device's share of the loss over all devices, inside `jax.shard_map`: the shares add up to the whole.

    Each device holds its own rows against the gathered columns of all; the gradient through the gather reaches the
    devices that own them. image, text: float32 [B / devices, E].
    """
    here = len(image)
    positives = lax.axis_index(DATA) * here + jnp.arange(here)
    images, texts = (lax.all_gather(x, DATA, tiled=True) for x in (image, text))
    scale = jnp.exp(logit_scale)
    both = _rows_loss(image, texts, positives, scale) + _rows_loss(text, images, positives, scale)
    return both / (2 * len(images))
