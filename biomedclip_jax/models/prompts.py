"""Prompts with learned vectors in them, as a text tower takes them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Layout(NamedTuple):
    """The prompts of C classes. Prompts are as long as the longest one; the others are padded.

    tokens: int32 [C, N], with placeholders for learned vectors. slots: int32 [C, N], the number of the learned vector that
    stands there, -1 where the token itself does.
    """

    tokens: np.ndarray
    slots: np.ndarray


def prompt_words(tokens: Array, slots: Array, context: Array, table: Array) -> Array:
    """Word embeddings [C, N, D] of the prompts; context: learned vectors [n, D], or [C, n, D]."""
    place = jnp.maximum(slots, 0)
    learned = context[place] if context.ndim == 2 else jnp.take_along_axis(context, place[..., None], axis=1)
    return jnp.where(slots[..., None] >= 0, learned, table[tokens])


def prompt_embeddings(clip: Any, tokens: ArrayLike, slots: ArrayLike) -> Array:
    """Unit embeddings float32 [C, E] of the prompts of a layout, by a `CLIP` with learned context; without dropout."""
    tokens = jnp.asarray(tokens)
    words = prompt_words(tokens, jnp.asarray(slots), clip.context[...], clip.text.word[...])
    return clip.encode_words(words, tokens)
