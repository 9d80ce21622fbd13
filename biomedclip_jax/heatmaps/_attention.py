"""Gradient-weighted attention: which patches the image embedding looks at, and is made more like a text by.

Chefer, Gur and Wolf, "Generic Attention-model Explainability" (ICCV 2021, arXiv 2103.15679), as their notebook for
CLIP has it: of each block the attention weights times their gradient, without what is negative, mean over heads;
blocks are chained as R <- R + C·R. The score is the cosine of image and text.

Fused attention has no weights to look at, and the programs of inference work out one token of the last block. So the
last blocks are written out here in the plain form; a test holds them to the tower's own features.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from biomedclip_jax.models import CLIP, unit_length
from biomedclip_jax.models.layers import einsum
from biomedclip_jax.models.transformer import prefix_length
from biomedclip_jax.models.vit import ViT


@functools.lru_cache(maxsize=4)
def relevance(graph: Any, last: int) -> Callable[[dict[str, Any], Any, Any], Array]:
    """A jitted function (params, images [1, S, S, 3], unit text embeddings [T, E]) -> relevance of the patches [T, P].

    graph: the model in float32, with a ViT as image tower; last: how many of its last blocks count, at most all.
    """

    def run(params: dict[str, Any], images: Array, texts: Array) -> Array:
        clip = nnx.merge(graph, params)
        tower = clip.image
        blocks, x = _parted(tower, images, last)
        added = [jnp.zeros(shape) for shape in _weight_shapes(tower, x.shape[1], len(blocks))]

        def scores(added: list[Array]) -> tuple[Array, list[Array]]:
            features, weights = seen(tower, blocks, x, added)
            return jnp.matmul(texts, unit_length(clip.image_head(features))[0], precision=lax.Precision.HIGHEST), weights

        _, pull, weights = jax.vjp(scores, added, has_aux=True)

        def of_text(chosen: Array) -> Array:
            (gradients,) = pull(chosen)
            return _chained(tower, [jnp.maximum(g * w, 0)[0].mean(axis=0) for g, w in zip(gradients, weights, strict=True)])

        return lax.map(of_text, jnp.eye(len(texts)))  # one after the other: a gradient is as large as all weights

    return jax.jit(run)


def _parted(tower: ViT, images: Array, last: int) -> tuple[list[Any], Array]:
    """The last blocks one by one, and what goes into them."""
    depth = tower.config.depth
    graph, state = nnx.split(tower.blocks)
    first = depth - min(last, depth)
    x = tower.embed(images)
    if first:
        x = tower.run(x, None, nnx.merge(graph, jax.tree.map(lambda leaf: leaf[:first], state)))
    return [nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(first, depth)], x


def _weight_shapes(tower: ViT, tokens: int, blocks: int) -> list[tuple[int, ...]]:
    heads = tower.config.heads
    own = [(1, heads, tokens, tokens + prefix_length(tower.blocks.attention))] * blocks
    return [*own, (1, heads, tower.config.patches)] if tower.config.pool == "map" else own


def seen(tower: ViT, blocks: list[Any], x: Array, added: list[Array]) -> tuple[Array, list[Array]]:
    """The features [B, D] of the states x [B, N, D] before the last blocks, and all attention weights on the way.

    added: is added to the weights, zeros that gradients are taken by.
    """
    weights = []
    for block, more in zip(blocks, added, strict=False):
        x, own = _through(block, x, more)
        weights.append(own)
    if tower.config.pool != "map":
        return tower.pooled(x), weights
    features, own = tower.pool.looking(tower.norm(x[:, tower.config.prefix_tokens :]), added[-1])
    return features, [*weights, own]


def _through(block: Any, x: Array, added: Array) -> tuple[Array, Array]:
    """A pre-norm block in the plain form, and the weights of its attention [B, H, N, m]."""
    attention = block.attention
    b, n, d = x.shape
    q, k, v = attention.qkv(block.norm1(x)).reshape(b, n, 3, attention.heads, -1).transpose(2, 0, 3, 1, 4)
    if attention.prefix is not None:
        k, v, _ = attention.prefix(k, v, None)
    weights = jax.nn.softmax(einsum("bhnk,bhmk->bhnm", q * (d // attention.heads) ** -0.5, k), axis=-1)
    y = einsum("bhnm,bhmk->bhnk", weights + added, v).transpose(0, 2, 1, 3).reshape(b, n, d)
    x = x + block.branch(attention.out(y), None, 1)
    return x + block.branch(block.mlp(block.norm2(x)), None, 2), weights


def _chained(tower: ViT, looks: list[Array]) -> Array:
    """How much of what is pooled comes from each patch, [P]. looks: C of each block, and of the pool of a SigLIP."""
    c = tower.config
    tokens = c.prefix_tokens + c.patches
    if c.pool == "map":
        row = jnp.zeros(tokens).at[c.prefix_tokens :].set(looks.pop())
    elif c.pool == "cls":
        row = jnp.zeros(tokens).at[0].set(1.0)
    else:
        first = 0 if c.pool == "mean_prenorm" else c.prefix_tokens
        row = jnp.zeros(tokens).at[first:].set(1 / (tokens - first))
    for look in reversed(looks):
        row = row + jnp.matmul(row, look[:, -tokens:], precision=lax.Precision.HIGHEST)  # a prefix has no place in the image
    return row[c.prefix_tokens :]


def has_attention(clip: CLIP) -> bool:
    """Whether the image tower is one that this file knows the attention of."""
    return isinstance(clip.image, ViT)
