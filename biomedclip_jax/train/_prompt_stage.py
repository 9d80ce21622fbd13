"""Stages that learn from labels (CLEFT's second): where the learned context starts, and what stands for a class."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.data.text import Tokenizer, TokenMaker
from biomedclip_jax.models.adapters import CONTEXT
from biomedclip_jax.prompts.layout import ContextConfig, Layout, start_tokens
from biomedclip_jax.prompts.learned import LearnedPrompts, layout_of
from biomedclip_jax.sharding import replicated
from biomedclip_jax.train.state import TrainState


def context_of(config: TrainConfig) -> ContextConfig:
    """The context to be learned: vectors that start from the template's words before the label, repeated as needed.

    Where the template begins with the label, they are drawn from N(0, 0.02²).
    """
    words = config.data.template.partition("{}")[0].strip()
    count = config.adaptation.context
    return ContextConfig(start=words, vectors=count) if words else ContextConfig(start=count)


def class_prompts(config: TrainConfig, classes: Sequence[str], tokenizer: TokenMaker) -> Layout:
    """The prompts of the classes as token ids, with slots for the learned context."""
    assert isinstance(tokenizer, Tokenizer)
    return layout_of(config.model.text, tokenizer, classes, context_of(config))


def with_context(state: TrainState, config: TrainConfig, tokenizer: TokenMaker) -> TrainState:
    """The state that a run starts from, with its context at the template's words; unchanged where there are no words, or
    nothing that starts from them.
    """
    if config.adaptation.context == 0 or not isinstance(tokenizer, Tokenizer):
        return state
    if (tokens := start_tokens(context_of(config), tokenizer)) is None:
        return state
    params = state.params

    def words(table: Array) -> Array:
        return table[jnp.asarray(tokens)].astype(jnp.float32)

    begin = jax.jit(words, out_shardings=params[CONTEXT].sharding)
    # an array for each of the two, because they are donated apart
    ema = state.ema | {CONTEXT: begin(params["text"]["word"])} if CONTEXT in state.ema else state.ema
    return dataclasses.replace(state, params=params | {CONTEXT: begin(params["text"]["word"])}, ema=ema)


def learned_prompts(state: TrainState, config: TrainConfig, classes: Sequence[str]) -> LearnedPrompts | None:
    """What a run has learned for its classes, the moving average where there is one; None where it learns no prompts."""
    if not any(stage.prompted for stage in config.stages):
        return None
    learned = state.averaged_params[CONTEXT]
    whole = jax.jit(lambda x: x, out_shardings=replicated(state.mesh))(learned)
    return LearnedPrompts("context-prompts", tuple(classes), context_of(config), {"context": np.asarray(whole, np.float32)})
