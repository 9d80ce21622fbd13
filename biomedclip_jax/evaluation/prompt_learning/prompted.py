"""Class embeddings from learned prompts: the text tower's forward pass, a bounded number of tokens at a time."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from biomedclip_jax.config import CLIPConfig
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.clip import Params
from biomedclip_jax.models.prompts import Layout, prompt_words

# Activations that the backward pass keeps are about 0.5 MB a token with BERT base.
TOKENS_AT_ONCE = 1_024


@functools.cache
def graph_of(config: CLIPConfig) -> Any:
    """The model's structure in float32, for `nnx.merge`."""
    return abstract_model(config)[0]


def encode_prompts(
    config: CLIPConfig, params: Params, layout: Layout, context: Array, tokens_at_once: int = TOKENS_AT_ONCE
) -> Array:
    """Unit embeddings float32 [C, E] of the prompts. context: learned vectors [n, D], or [C, n, D] for each prompt its own.

    With more than `tokens_at_once` tokens, prompts go through the tower in groups whose activations are computed again in the
    backward pass: memory is that of one group.
    """

    def encode(tokens: Array, slots: Array, context: Array) -> Array:
        clip = nnx.merge(graph_of(config), params)
        return clip.encode_words(prompt_words(tokens, slots, context, clip.text.word[...]), tokens)

    tokens, slots = jnp.asarray(layout.tokens), jnp.asarray(layout.slots)
    count, length = tokens.shape
    size = max(1, tokens_at_once // length)
    if count <= size:
        return encode(tokens, slots, context)
    groups = -(-count // size)
    size = -(-count // groups)  # the same number of groups, as even as can be
    chosen = jnp.minimum(jnp.arange(groups * size), count - 1).reshape(groups, size)

    def group(members: Array) -> Array:
        return encode(tokens[members], slots[members], context if context.ndim == 2 else context[members])

    return lax.map(jax.checkpoint(group), chosen).reshape(groups * size, -1)[:count]


def meta_net(trained: Params, images: Array) -> Array:
    """CoCoOp's network: unit image embeddings [B, E] -> what is added to the learned vectors, [B, D]."""
    precise = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    hidden = jax.nn.relu(precise(images, trained["hidden_kernel"]) + trained["hidden_bias"])
    return precise(hidden, trained["out_kernel"]) + trained["out_bias"]


def encode_conditioned(config: CLIPConfig, params: Params, layout: Layout, trained: Params, images: Array) -> Array:
    """Unit embeddings float32 [B, C, E]: of each class, as seen by each image (CoCoOp). images: unit embeddings [B, E]."""
    count = len(images)
    context = trained["context"][None] + meta_net(trained, images)[:, None]  # [B, n, D]
    tokens, slots = (jnp.tile(jnp.asarray(part), (count, 1)) for part in layout)
    each = jnp.repeat(context, layout.tokens.shape[0], axis=0)
    return encode_prompts(config, params, Layout(tokens, slots), each).reshape(count, layout.tokens.shape[0], -1)  # type: ignore[arg-type]
