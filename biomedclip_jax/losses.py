"""The contrastive losses: each as a plain reference, and as one device's share of it, streamed over blocks of rows.

Softmax (InfoNCE over both directions; open_clip `loss.py: ClipLoss`), with unit embeddings u (image) and v (text), and
s = exp(logit_scale):

    loss = 1/2B · Σ_i [ log Σ_j exp(s·(u_i·v_j - u_i·v_i)) + log Σ_j exp(s·(v_i·u_j - v_i·u_i)) ]

Sigmoid (SigLIP, arXiv 2303.15343; open_clip `SigLipLoss`), with a learnt bias b and z = 1 for pairs, -1 for the others:

    loss = 1/B · Σ_i Σ_j log(1 + exp(-z_ij·(s·u_i·v_j + b)))

"softmax_sum" is twice "softmax", the two directions added up (CLEFT's released code). Of classes: see `class_loss`.

The share of a device is its own rows against the columns of all devices. Its scores exist only for one block of rows at a
time, in the forward pass and, computed again, in the backward pass: memory grows with B, not with B². No collective happens
inside the blocks: embeddings are gathered once before, and the transpose of the gather brings their gradients home.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from biomedclip_jax.config import Objective
from biomedclip_jax.sharding import all_rows, device_count, first_row

_BLOCK_SCORES = 1 << 24  # scores of one block of rows: 64 MiB in float32
_MOST_ROWS = 1024

# --- the references -------------------------------------------------------------------------------------------------


def contrastive_loss(image: Array, text: Array, logit_scale: Array) -> Array:
    """The softmax loss of B pairs on one device. image, text: float32 [B, E], unit length; logit_scale: the logarithm.

    The positive is subtracted before the log-sum-exp, and log(1 + Σ of the others) taken of the rest: so a small loss and
    the gradient of the scale keep their digits.
    """
    scores = _product(image, text.T)
    diagonal = jnp.diag(scores)
    others = ~jnp.eye(len(image), dtype=bool)
    by_image = jax.nn.logsumexp(jnp.exp(logit_scale) * (scores - diagonal[:, None]), axis=1, where=others)
    by_text = jax.nn.logsumexp(jnp.exp(logit_scale) * (scores.T - diagonal[:, None]), axis=1, where=others)
    return (jax.nn.softplus(by_image) + jax.nn.softplus(by_text)).mean() / 2


def sigmoid_loss(image: Array, text: Array, logit_scale: Array, logit_bias: Array) -> Array:
    """The sigmoid loss of B pairs on one device. image, text: float32 [B, E], unit length; logit_scale: the logarithm."""
    sign = 2 * jnp.eye(len(image)) - 1
    return jax.nn.softplus(-sign * (jnp.exp(logit_scale) * _product(image, text.T) + logit_bias)).sum() / len(image)


def blockwise_loss(objective: Objective, image: Array, text: Array, params: dict[str, Any]) -> Array:
    """The loss of B pairs on one device, in memory that grows with B. Arguments as for `local_loss`."""
    diagonal, scale, block = jnp.arange(len(image)), jnp.exp(params["logit_scale"]), _block(len(image))
    if objective == "sigmoid":
        return _sigmoid_rows(image, text, diagonal, scale, params["logit_bias"], block) / len(image)
    both = _softmax_rows(image, text, diagonal, scale, block) + _softmax_rows(text, image, diagonal, scale, block)
    return both / (_directions(objective) * len(image))


def class_loss(objective: Objective, image: Array, classes: Array, labels: Array, logit_scale: Array) -> Array:
    """Mean loss of images against all classes, by exp(logit_scale) times the cosine.

    image: float32 [B, E], classes: [C, E], unit length. labels: bool [B, C]. "classification": cross-entropy, of images with
    one label. "multilabel": the binary cross-entropy of each class, their mean (torch's `BCEWithLogitsLoss`).
    """
    scores = jnp.exp(logit_scale) * _product(image, classes.T)
    if objective == "classification":
        return optax.losses.softmax_cross_entropy(scores, labels.astype(scores.dtype)).mean()
    return optax.losses.sigmoid_binary_cross_entropy(scores, labels).mean()


# --- one device's share ---------------------------------------------------------------------------------------------


def local_loss(
    objective: Objective,
    image: Array,
    text: Array,
    params: dict[str, Any],
    text_rows: Array | None = None,
    negatives: int | None = None,
) -> Array:
    """This device's share of a loss over all devices, inside `jax.shard_map`: the shares add up to the whole.

    image, text: float32 [B / devices, E], unit length. params: logit_scale (the logarithm) and for "sigmoid" logit_bias,
    device-varying. text_rows: int32 [B / devices], the pairs (rows of the whole batch) that the rows of `text` belong to,
    where these are not the device's own in order; each pair of the batch must be on exactly one device.
    negatives: the mean of the losses of groups of so many consecutive pairs; a divisor of B / devices, where nothing is
    gathered, or a multiple.
    """
    here = len(image)
    if negatives is not None and here % negatives == 0:
        images, texts = (x.reshape(-1, negatives, x.shape[1]) for x in (image, text))
        return jax.vmap(lambda u, v: blockwise_loss(objective, u, v, params))(images, texts).mean() / device_count()
    batch = here * device_count()
    group = negatives or batch
    first = first_row(here) // group * group  # of the group that this device has rows of

    def columns(x: Array) -> Array:
        return all_rows(x) if group == batch else lax.dynamic_slice_in_dim(all_rows(x), first, group)

    pairs = first_row(here) - first + jnp.arange(here)
    scale = jnp.exp(params["logit_scale"])
    texts = columns(text)
    if text_rows is None:
        text_rows = captions = pairs
    else:  # where among the gathered captions stands that of pair i
        order = all_rows(text_rows)
        captions = jnp.zeros_like(order).at[order].set(jnp.arange(batch))[pairs]
    block = _block(group)
    if objective == "sigmoid":
        return _sigmoid_rows(image, texts, captions, scale, params["logit_bias"], block) / batch
    both = _softmax_rows(image, texts, captions, scale, block) + _softmax_rows(text, columns(image), text_rows, scale, block)
    return both / (_directions(objective) * batch)


def _directions(objective: Objective) -> int:
    """How many directions the sum of the losses of both is divided by."""
    return 1 if objective == "softmax_sum" else 2


def _block(columns: int) -> int:
    """Rows of one block."""
    return min(_MOST_ROWS, max(8, _BLOCK_SCORES // columns))


def _product(a: Array, b: Array) -> Array:
    """In full float32, also on TPU and on GPUs whose default is TF32."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _by_blocks(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, rows: Any, block: int) -> tuple[Any, Any]:
    """`lax.scan` of `body` over blocks of the rows of each array in `rows`; the last block may be shorter."""
    total = len(jax.tree.leaves(rows)[0])
    whole = total // block
    outputs = []
    if whole:
        blocks = jax.tree.map(lambda x: x[: whole * block].reshape(whole, block, *x.shape[1:]), rows)
        carry, y = lax.scan(body, carry, blocks)
        outputs.append(jax.tree.map(lambda x: x.reshape(whole * block, *x.shape[2:]), y))
    if total % block:
        carry, y = body(carry, jax.tree.map(lambda x: x[whole * block :], rows))
        outputs.append(y)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)


def _gaps(queries: Array, keys: Array, positives: Array) -> tuple[Array, Array]:
    """(scores less that of the positive [b, B], which of them is the positive [b, B])."""
    scores = _product(queries, keys.T)
    gaps = scores - jnp.take_along_axis(scores, positives[:, None], axis=1)
    return gaps, jnp.arange(len(keys)) == positives[:, None]


def _softmax_value(queries: Array, keys: Array, positives: Array, scale: Array, block: int) -> Array:
    """Σ_i log Σ_j exp(scale·(q_i·k_j - q_i·k_positive)) over the rows of `queries`."""
    return _softmax_forward(queries, keys, positives, scale, block)[0]


def _softmax_forward(queries: Array, keys: Array, positives: Array, scale: Array, block: int) -> tuple[Array, tuple]:
    def rows(_: None, part: tuple[Array, Array]) -> tuple[None, Array]:
        gaps, positive = _gaps(part[0], keys, part[1])
        return None, jax.nn.logsumexp(jnp.where(positive, -jnp.inf, scale * gaps), axis=1)

    _, others = _by_blocks(rows, None, (queries, positives), block)
    return jax.nn.softplus(others).sum(), (queries, keys, positives, scale, others)


def _softmax_backward(block: int, kept: tuple, cotangent: Array) -> tuple[Array, Array, None, Array]:
    queries, keys, positives, scale, others = kept

    def rows(sums: tuple[Array, Array], part: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        d_keys, d_scale = sums
        q, positives, others = part
        gaps, positive = _gaps(q, keys, positives)
        p = jnp.exp(scale * gaps - jax.nn.softplus(others)[:, None])
        d_scale += jnp.sum(p * gaps)
        # the probability of the positive less one, without the difference
        p = jnp.where(positive, -jax.nn.sigmoid(others)[:, None], p)
        return (d_keys + _product(p.T, q), d_scale), _product(p, keys)

    start = jax.tree.map(jnp.zeros_like, (keys, scale))  # zeros_like is device-varying as its argument
    (d_keys, d_scale), d_queries = _by_blocks(rows, start, (queries, positives, others), block)
    return cotangent * scale * d_queries, cotangent * scale * d_keys, None, cotangent * d_scale


_softmax_rows: Any = jax.custom_vjp(_softmax_value, nondiff_argnums=(4,))
_softmax_rows.defvjp(_softmax_forward, _softmax_backward)


def _sigmoid_value(queries: Array, keys: Array, positives: Array, scale: Array, bias: Array, block: int) -> Array:
    """Σ_i Σ_j log(1 + exp(-z_ij·(scale·q_i·k_j + bias))) over the rows of `queries`; z is 1 at the positive, else -1."""
    return _sigmoid_forward(queries, keys, positives, scale, bias, block)[0]


def _signed(q: Array, keys: Array, positives: Array, scale: Array, bias: Array) -> tuple[Array, Array, Array]:
    """(scores, -z, -z·logit), each [b, B]."""
    scores = _product(q, keys.T)
    against = jnp.where(jnp.arange(len(keys)) == positives[:, None], -1.0, 1.0)
    return scores, against, against * (scale * scores + bias)


def _sigmoid_forward(
    queries: Array, keys: Array, positives: Array, scale: Array, bias: Array, block: int
) -> tuple[Array, tuple]:
    def rows(_: None, part: tuple[Array, Array]) -> tuple[None, Array]:
        return None, jax.nn.softplus(_signed(part[0], keys, part[1], scale, bias)[2]).sum(axis=1)

    _, losses = _by_blocks(rows, None, (queries, positives), block)
    return losses.sum(), (queries, keys, positives, scale, bias)


def _sigmoid_backward(block: int, kept: tuple, cotangent: Array) -> tuple[Array, Array, None, Array, Array]:
    queries, keys, positives, scale, bias = kept

    def rows(sums: tuple[Array, Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], Array]:
        d_keys, d_scale, d_bias = sums
        q, positives = part
        scores, against, logits = _signed(q, keys, positives, scale, bias)
        d_logits = against * jax.nn.sigmoid(logits)
        sums = d_keys + _product(d_logits.T, q), d_scale + jnp.sum(d_logits * scores), d_bias + d_logits.sum()
        return sums, _product(d_logits, keys)

    start = jax.tree.map(jnp.zeros_like, (keys, scale, bias))
    (d_keys, d_scale, d_bias), d_queries = _by_blocks(rows, start, (queries, positives), block)
    return cotangent * scale * d_queries, cotangent * scale * d_keys, None, cotangent * d_scale, cotangent * d_bias


_sigmoid_rows: Any = jax.custom_vjp(_sigmoid_value, nondiff_argnums=(5,))
_sigmoid_rows.defvjp(_sigmoid_forward, _sigmoid_backward)
