"""What GPT-2 and LLaMA share as text towers: which tokens are seen, and which one stands for the text.

Padding is the end-of-text token on the right, as CLEFT pads (`find_last_word_token` in XYPB/CLEFT `backbones/encoder_cleft.py`,
and the tokenizer's attention mask): a text ends where the trailing padding begins, and no padding token is looked at.
"""

import jax.numpy as jnp
from jax import Array

from biomedclip_jax.config import GPTConfig, LlamaConfig


def with_end(tokens: Array, config: GPTConfig | LlamaConfig) -> Array:
    """tokens [B, N] with one more padding token, where "first_eos" would miss it because padding has been cut off.

    A caption that fills N columns then has an end unless N is `context_length`, where the tokenizer has left none.
    """
    if config.pool == "last_token" or tokens.shape[1] >= config.context_length:
        return tokens
    return jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=config.pad_id)


def text_lengths(tokens: Array, pad_id: int) -> Array:
    """int32 [B]: tokens before the trailing padding; 0 for an empty text."""
    return jnp.max(jnp.where(tokens != pad_id, jnp.arange(1, tokens.shape[1] + 1), 0), axis=1)


def seen(lengths: Array, n: int) -> Array:
    """bool [B, 1, N, N]: which key a query looks at, at most its own place and never padding.

    So the token after a text sees all of the text and not itself. The first token of an empty text sees itself alone.
    """
    place = jnp.arange(n)
    real = place < jnp.maximum(lengths, 1)[:, None]
    return (place <= place[:, None]) & real[:, None, None, :]


def pooled(x: Array, lengths: Array, config: GPTConfig | LlamaConfig) -> Array:
    """x [B, N, D] -> [B, D]: the hidden state of the token that `config.pool` means."""
    last = jnp.maximum(lengths - 1, 0)
    first_eos = jnp.where(lengths < x.shape[1], lengths, 0)  # CLEFT's index -n for n padding tokens, also for n = 0
    place = last if config.pool == "last_token" else first_eos
    return jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]
