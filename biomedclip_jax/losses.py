"""The losses: what one block of scores adds to a loss, and one device's share of the whole, streamed over such blocks.

With unit embeddings u (image) and v (text), s = exp(logit_scale) and B pairs:

    Softmax   1/2B · Σ_i [ log Σ_j exp(s·(u_i·v_j - u_i·v_i)) + log Σ_j exp(s·(v_i·u_j - v_i·u_i)) ]
              CLIP's InfoNCE (open_clip `ClipLoss`); with directions="sum", as CLEFT's released code has it, twice
              that; where equal captions are positives: `equal_captions.py`
    Sigmoid   1/B · Σ_i Σ_j log(1 + exp(-z_ij·(s·u_i·v_j + b))), z = 1 for pairs and -1 for all others, b learned
              SigLIP (arXiv 2303.15343; open_clip `SigLipLoss`); where equal captions are positives, z = 1 for these
    Classification, MultiLabel
              cross-entropy and binary cross-entropy of images against the embeddings of all classes

A device's share is its own rows against the columns of all devices. The scores exist for one block of rows at a time
and are computed again in the backward pass (`jax.checkpoint`): memory grows with B, not with B². No collective is in
the loop over blocks: embeddings are gathered once before it, and the transpose of the gather brings gradients home.

To add a loss of pairs: its fields as a class in `config/losses.py`, whose `directions` say whether it is summed over
images alone, its formula as a function such as `softmax_block`, and a line in `_BLOCK_FUNCTIONS`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from biomedclip_jax.config import Classification, ClassLoss, PairLoss, Sigmoid, Softmax
from biomedclip_jax.equal_captions import NOTHING, EqualIds, Ids, equal_ids, positives_block
from biomedclip_jax.sharding import all_rows, device_count, first_row

Scalar = Float[Array, ""]
Numbers = Mapping[str, Scalar]  # logit_scale (the logarithm of s) and, for `Sigmoid`, logit_bias
Embeddings = Float[Array, "n E"]  # of unit length
Rows = Int[Array, " n"]
Pairs = Rows | EqualIds  # of some rows: the column that each belongs to, or all columns with its id
Scores = Float[Array, "n m"]  # of n rows of a block against all m columns

_BLOCK_SCORES = 1 << 24  # scores of one block of rows: 64 MiB in float32
_MOST_ROWS = 1024

# --- the formulas: scores of a block, and which of them are of pairs -> what the block adds to the loss -------------


def softmax_block(scores: Scores, pairs: Bool[Array, "n m"], numbers: Numbers) -> Scalar:
    """Σ_i log Σ_j exp(s·(score_ij - score of the pair)) over the rows of a block.

    The pair's score is subtracted first, and log(1 + Σ of the others) is taken of what remains. So a loss of 1e-11 and
    the gradient of the scale keep their digits, where log-sum-exp minus the pair's score loses all of them.
    """
    gaps = scores - jnp.sum(scores, axis=1, where=pairs, keepdims=True)
    others = jax.nn.logsumexp(jnp.where(pairs, NOTHING, jnp.exp(numbers["logit_scale"]) * gaps), axis=1)
    return jax.nn.softplus(others).sum()


def sigmoid_block(scores: Scores, pairs: Bool[Array, "n m"], numbers: Numbers) -> Scalar:
    """Σ_i Σ_j log(1 + exp(-z_ij·(s·score_ij + b))) over the scores of a block; a row may have several pairs."""
    logits = jnp.exp(numbers["logit_scale"]) * scores + numbers["logit_bias"]
    return jax.nn.softplus(jnp.where(pairs, -logits, logits)).mean(axis=1).sum() * scores.shape[1]  # one sum loses digits


_BLOCK_FUNCTIONS: dict[type, Callable[..., Array]] = {Softmax: softmax_block, Sigmoid: sigmoid_block}
_OF_EQUAL_CAPTIONS: dict[type, Callable[..., Array]] = {Softmax: positives_block, Sigmoid: sigmoid_block}


# --- losses of pairs ------------------------------------------------------------------------------------------------


def pair_loss(loss: PairLoss, image: Embeddings, text: Embeddings, numbers: Numbers, ids: Ids | None = None) -> Scalar:
    """The loss of pairs on one device; row i of image and text is a pair. ids: as for `local_loss`."""
    own = jnp.arange(len(image)) if ids is None else EqualIds(ids, ids)
    return _sum_of_rows(loss, (image, text), (image, text), (own, own), numbers) / len(image)


def local_loss(
    loss: PairLoss, image: Embeddings, text: Embeddings, numbers: Numbers, text_rows: Rows | None = None, ids: Ids | None = None
) -> Scalar:
    """This device's share of a loss over all devices, inside `jax.shard_map`: the shares add up to the whole.

    image, text: its n = B / devices rows. numbers: device-varying. text_rows: the pairs (rows of the whole batch) that
    the rows of `text` belong to, where they are not the device's own in order; each pair of the batch must be on
    exactly one device. ids: of the rows of `text`, where equal ones make pairs positives of each other.
    `Softmax.negatives`, a divisor or a multiple of n: pairs are compared in groups of so many.
    """
    here, negatives = len(image), loss.negatives
    if negatives is not None and here % negatives == 0:
        groups = jax.tree.map(lambda x: x.reshape(-1, negatives, x.shape[1]), (image, text, ids))
        return jax.vmap(lambda u, v, same: pair_loss(loss, u, v, numbers, same))(*groups).mean() / device_count()
    batch = here * device_count()
    group = negatives or batch
    first = first_row(here) // group * group  # first row of the group that this device has rows of
    pairs = first_row(here) - first + jnp.arange(here)
    caption_of_image = image_of_caption = pairs
    if text_rows is not None:
        order = all_rows(text_rows)  # pair of each gathered caption; its inverse says where the caption of a pair is
        caption_of_image = jnp.zeros_like(order).at[order].set(jnp.arange(batch))[pairs]
        image_of_caption = text_rows
    columns = jax.tree.map(all_rows, (image, text, ids))
    if group < batch:
        columns = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, group), columns)
    matches: Sequence[Pairs] = caption_of_image, image_of_caption
    if ids is not None:
        own = columns[2][caption_of_image]
        matches = EqualIds(own, columns[2]), EqualIds(ids, columns[2] if text_rows is None else all_rows(own))
    return _sum_of_rows(loss, (image, text), columns[:2], matches, numbers) / batch


def _sum_of_rows(
    loss: PairLoss, rows: Sequence[Array], columns: Sequence[Array], pairs: Sequence[Pairs], numbers: Numbers
) -> Array:
    """The loss of these rows, times B. Each argument is of images and of texts; pairs: of each row."""
    functions = _OF_EQUAL_CAPTIONS if isinstance(pairs[0], EqualIds) else _BLOCK_FUNCTIONS
    streamed = partial(_streamed, functions[type(loss)], numbers)
    by_image = streamed(rows[0], columns[1], pairs[0])
    if loss.directions is None:
        return by_image
    both = by_image + streamed(rows[1], columns[0], pairs[1])
    return both if loss.directions == "sum" else both / 2


def _streamed(block_function: Callable[..., Array], numbers: Numbers, queries: Array, keys: Array, pairs: Pairs) -> Array:
    """Σ of `block_function` over blocks of the rows of `queries`, of which the last may be shorter."""
    of_rows, ids = pairs if isinstance(pairs, EqualIds) else (pairs, None)
    size = min(_MOST_ROWS, max(8, _BLOCK_SCORES // len(keys)))

    @jax.checkpoint
    def block(queries: Array, pairs: Array) -> Array:
        scores = _product(queries, keys.T)
        positives = jnp.arange(len(keys)) == pairs[:, None] if ids is None else equal_ids(pairs, ids)
        return block_function(scores, positives, numbers)

    whole = len(queries) // size * size
    total = jnp.float32(0)
    if whole:
        blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), (queries, of_rows))
        total += lax.scan(lambda _, part: (None, block(*part)), None, blocks)[1].sum()
    return total + block(queries[whole:], of_rows[whole:]) if whole < len(queries) else total


# --- losses of classes ----------------------------------------------------------------------------------------------


def class_loss(
    loss: ClassLoss, image: Float[Array, "B E"], classes: Float[Array, "C E"], labels: Bool[Array, "B C"], logit_scale: Scalar
) -> Scalar:
    """The mean loss of images against all classes, of unit embeddings; the logits are exp(logit_scale) times the cosines.

    `Classification`: cross-entropy, one label an image. `MultiLabel`: the mean of torch's `BCEWithLogitsLoss`.
    """
    logits = jnp.exp(logit_scale) * _product(image, classes.T)
    if isinstance(loss, Classification):
        return optax.losses.softmax_cross_entropy(logits, labels.astype(logits.dtype)).mean()
    return optax.losses.sigmoid_binary_cross_entropy(logits, labels).mean()


def _product(a: Array, b: Array) -> Array:
    """The matrix product in full float32, also on TPUs and on GPUs whose default is TF32."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
