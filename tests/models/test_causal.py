"""What GPT-2 and LLaMA share: where a text ends, what is seen of it, and that padding changes nothing."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from biomedclip_jax.config import ComputeConfig, GPTConfig, LlamaConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.models._gpt import GPT, pooled, seen, text_lengths, with_end
from biomedclip_jax.models._llama import Llama

PAD = 7
SIZES = {"vocab_size": 40, "context_length": 8, "positions": 16, "width": 16, "depth": 3, "heads": 4, "mlp_width": 32}
GPT_SMALL = GPTConfig(**SIZES, pad_id=PAD)
LLAMA_SMALL = LlamaConfig(**SIZES, key_value_heads=2, pad_id=PAD)
SMALL = {GPT: GPT_SMALL, Llama: LLAMA_SMALL}
# full, one padding token, short, empty, and one with the end-of-text token inside
TOKENS = np.array(
    [[1, 2, 3, 4, 5, 6, 8, 9], [1, 2, 3, 4, 5, 6, 8, 7], [1, 2, 3, 7, 7, 7, 7, 7], [7] * 8, [1, 7, 3, 4, 7, 7, 7, 7]], np.int32
)


@functools.cache
def parameters(kind: type) -> Any:
    """Random everywhere: biases and norms start at 0 and 1, where a mistake with them would not show."""
    rng = np.random.default_rng(0)
    shapes = nnx.state(nnx.eval_shape(lambda: kind(SMALL[kind], ComputeConfig(), nnx.Rngs(0))))
    return jax.tree.map(lambda x: np.asarray((x.ndim < 2) + 0.1 * rng.normal(size=x.shape), np.float32), shapes)


def tower(config: GPTConfig | LlamaConfig, **compute: Any) -> Any:
    kind: Any = GPT if isinstance(config, GPTConfig) else Llama
    graph, _ = nnx.split(nnx.eval_shape(lambda: kind(config, ComputeConfig(**compute), nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(jnp.asarray, parameters(kind)))


def test_where_a_text_ends() -> None:
    assert text_lengths(TOKENS, PAD).tolist() == [8, 7, 3, 0, 4]
    x = np.broadcast_to(np.arange(8.0)[:, None], (5, 8, 2))
    configs = {pool: dataclasses.replace(GPT_SMALL, pool=pool) for pool in ("last_token", "first_eos")}
    found = {pool: pooled(x, text_lengths(TOKENS, PAD), config)[:, 0].tolist() for pool, config in configs.items()}
    assert found == {"last_token": [7, 6, 2, 0, 3], "first_eos": [0, 7, 3, 0, 4]}


def test_padding_is_not_looked_at_and_the_future_neither() -> None:
    mask = np.asarray(seen(np.array([2, 0, 4]), 4))[:, 0]
    assert mask[0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert mask[1].tolist() == [[1, 0, 0, 0]] * 4, "an empty text: the first token alone, however many follow"
    assert mask[2].tolist() == np.tril(np.ones((4, 4))).tolist()


def test_first_eos_has_its_token_wherever_padding_is_cut() -> None:
    first = dataclasses.replace(GPT_SMALL, pool="first_eos")
    assert with_end(TOKENS[:, :5], first)[:, -1].tolist() == [PAD] * 5
    assert with_end(TOKENS, first).shape == (5, 8), "the tokenizer has left no room in the first"
    assert with_end(TOKENS[:, :5], GPT_SMALL).shape == (5, 5)


CONFIGS = [dataclasses.replace(c, pool=pool) for c in (GPT_SMALL, LLAMA_SMALL) for pool in ("last_token", "first_eos")]
IDS = [f"{type(c).__name__} {c.pool}" for c in CONFIGS]


def run(function: Any, *arguments: Any) -> Any:
    """function(*arguments), compiled with LLVM's optimizations off: half the time, and the same program."""
    return jax.jit(function).lower(*arguments).compile({"xla_backend_optimization_level": 0})(*arguments)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_padding_changes_nothing(config: GPTConfig | LlamaConfig) -> None:
    """Also with dropout, whose masks belong to the token."""
    model = tower(config)
    keys = jax.random.split(jax.random.key(0), 3)
    whole, dropped = run(lambda: (model(TOKENS[2:]), model(TOKENS[2:], keys)))
    short, short_dropped = run(lambda: (model(TOKENS[2:, :4]), model(TOKENS[2:, :4], keys)))
    assert np.abs(short - whole).max() <= 1e-5
    assert np.abs(short_dropped - dropped).max() <= 1e-5
    assert (np.abs(dropped - whole).max() > 1e-2) == isinstance(config, GPTConfig), "LLaMA has no dropout"


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_word_embeddings_in_the_place_of_tokens(config: GPTConfig | LlamaConfig) -> None:
    """Learned context before a text: it is seen, it moves the text on, and the end is found all the same."""
    model = tower(config)
    words = np.asarray(model.word[jnp.asarray(TOKENS)])
    context = np.random.default_rng(1).normal(size=(5, 3, 16)).astype(np.float32)
    both = np.concatenate([context, words], axis=1), np.concatenate([np.zeros((5, 3), np.int32), TOKENS], axis=1)
    padded = np.concatenate([both[0], words[:, :2]], axis=1), np.concatenate([both[1], np.full((5, 2), PAD)], axis=1)
    parts = run(lambda: (model(TOKENS), model.from_words(words, TOKENS), model.from_words(*both), model.from_words(*padded)))
    plain, from_words, with_context, with_padding = parts
    assert np.array_equal(from_words, plain)
    assert np.abs(with_context - plain).max() > 1e-2
    ended = [1, 2, 4] if config.pool == "first_eos" else [0, 1, 2, 4]  # the first text of TOKENS is full
    assert np.abs(with_padding - with_context)[np.array(ended)].max() <= 1e-5


@pytest.mark.parametrize(
    ("config", "compute"), [(CONFIGS[0], {"remat": "full", "unroll": 3}), (CONFIGS[2], {"remat": "dots"})], ids=["GPT", "LLaMA"]
)
def test_how_it_computes_does_not_change_what(config: GPTConfig | LlamaConfig, compute: dict) -> None:
    def gradient(**compute: Any) -> list[jax.Array]:
        graph, state = nnx.split(tower(config, **compute))
        keys = jax.random.split(jax.random.key(0), 5)
        return jax.tree.leaves(run(jax.grad(lambda s: nnx.merge(graph, s)(TOKENS, keys)[:, :3].sum()), state))

    for a, b in zip(gradient(**compute), gradient(), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * max(1.0, float(np.abs(b).max()))


@pytest.mark.parametrize("config", CONFIGS[::2], ids=IDS[::2])
def test_bfloat16_stays_near_float32(config: GPTConfig | LlamaConfig) -> None:
    half, exact = (run(tower(config, dtype=dtype), TOKENS) for dtype in ("bfloat16", "float32"))
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half.astype(np.float32) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (GPT_SMALL, {"context_length": 17}, "context_length = 17: expected at most positions = 16"),
        (GPT_SMALL, {"pad_id": 40}, "pad_id = 40: expected a token id, below vocab_size = 40"),
        (GPT_SMALL, {"pool": "mean"}, "pool = 'mean': expected one of 'last_token', 'first_eos'"),
        (GPT_SMALL, {"embedding_dropout": 1.0}, "embedding_dropout = 1.0"),
        (LLAMA_SMALL, {"key_value_heads": 3}, "key_value_heads = 3: expected a divisor of heads = 4"),
        (LLAMA_SMALL, {"heads": 16, "key_value_heads": 16}, "heads = 16: expected heads of an even width"),
    ],
)
def test_sizes_that_do_not_fit(config: GPTConfig | LlamaConfig, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(config, **changes)
