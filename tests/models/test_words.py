"""Text towers that take word embeddings: the same numbers as from tokens, and learned vectors reach the result."""

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.tiny import MODEL, batch

from biomedclip_jax.config import CLIPConfig, ClipTextConfig
from biomedclip_jax.models import abstract_model, init_params

CLIP_TEXT = CLIPConfig(
    image=MODEL.image,
    text=ClipTextConfig(vocab_size=50, context_length=8, width=32, depth=2, heads=4, mlp_width=64),
    embed_width=16,
    text_head="linear",
)


@pytest.mark.parametrize("config", [MODEL, CLIP_TEXT], ids=["bert", "clip"])
@pytest.mark.parametrize("dropout", [False, True])
def test_words_in_is_tokens_in_to_the_last_bit(config: CLIPConfig, dropout: bool) -> None:
    graph, params = abstract_model(config)[0], init_params(config, seed=0)
    tokens = batch(4)["tokens"]
    keys = jax.random.split(jax.random.key(0), 4) if dropout else None
    by_tokens = jax.jit(lambda p: nnx.merge(graph, p).encode_text(tokens, keys))(params)
    by_words = jax.jit(lambda p, words: nnx.merge(graph, p).encode_words(words, tokens, keys))
    words = params["text"]["word"][tokens]
    assert np.array_equal(by_words(params, words), by_tokens)
    # a vector at a position that is no padding moves its own text alone
    moved, others = by_words(params, words.at[2, 1, :4].add(1.0)), np.array([0, 1, 3])
    assert np.array_equal(moved[others], by_tokens[others]) and np.abs(moved[2] - by_tokens[2]).max() > 1e-3
    if config is MODEL:
        padded = np.argwhere(tokens == 0)[0]
        assert np.array_equal(by_words(params, words.at[*padded, :4].add(1.0)), by_tokens)
