"""The real training step of a stage, lowered for devices that are only described: where planning touches training."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered

from biomedclip_jax.config import GPTConfig, LlamaConfig, QCRConfig, TrainConfig, reads_padding
from biomedclip_jax.planning.devices import host_memory_known
from biomedclip_jax.prompts.layout import Layout
from biomedclip_jax.sharding import make_mesh, rows, rows_on_host
from biomedclip_jax.train.optimizer import learning_rate, stage_steps
from biomedclip_jax.train.state import abstract_state, optimizer_for
from biomedclip_jax.train.step import make_step
from biomedclip_jax.train.text_buckets import Buckets, plan_buckets

# Median and 90th percentile of the PubMedBERT tokens of 891 real captions. A log-normal through both has
# 16 % of captions above 256 tokens (measured 19 %), 73 % above 77 (70 %) and mean 163 (159).
_MEDIAN, _P90 = 123, 321
_SAMPLE = 4_096
ASSUMED_CLASSES = 14  # CheXpert's
_ASSUMED_ANSWERS, _ASSUMED_CLOSED = 487, 56  # of VQA-RAD's training part; 29 are both closed and open
_ASSUMED_WORDS = 1_200  # in its questions, about


def assumed_lengths(longest: int) -> np.ndarray:
    """Tokens of captions as in PubMed Central, cut at `longest`: int [n]. An assumption: no data is read."""
    shares = (np.arange(_SAMPLE) + 0.5) / _SAMPLE
    normal = np.asarray(jax.scipy.special.ndtri(shares))
    width = np.log(_P90 / _MEDIAN) / 1.2816
    return np.clip(np.round(_MEDIAN * np.exp(width * normal)), 2, longest).astype(np.int64)


def assumed_buckets(config: TrainConfig, number: int, devices: int) -> Buckets:
    """The text buckets that a run would choose for captions of the assumed lengths."""
    count, longest = config.compute.text_buckets, config.model.text.context_length
    if reads_padding(config.model.text) or config.stages[number].answers:
        return ()
    return plan_buckets(assumed_lengths(longest), longest, config.stages[number], devices, count)


def assumed_prompts(config: TrainConfig, number: int) -> Layout | None:
    """The prompts of a stage that learns of labels, as many and as long as may be; None for others. No data is read.

    A causal tower has the learned vectors before its text, others inside it.
    """
    if not config.stages[number].prompted:
        return None
    vectors, length = config.adaptation.context, config.model.text.context_length
    if isinstance(config.model.text, GPTConfig | LlamaConfig):
        length += vectors
    slots = np.where(np.arange(length) < vectors, np.arange(length), -1)
    return Layout(np.ones((ASSUMED_CLASSES, length), np.int32), np.tile(slots, (ASSUMED_CLASSES, 1)).astype(np.int32))


def with_assumed_answers(config: TrainConfig) -> TrainConfig:
    """The config with as many answers as VQA-RAD's training part has, and words, where it names none. No data is read."""
    answering = config.model.answering
    if answering is None or answering.answers:
        return config
    answers = tuple(f"answer {number}" for number in range(_ASSUMED_ANSWERS))
    if isinstance(answering, QCRConfig):
        words = answering.words or tuple(f"word {number}" for number in range(_ASSUMED_WORDS))
        answering = dataclasses.replace(answering, answers=answers, closed_answers=_ASSUMED_CLOSED, words=words)
    else:
        answering = dataclasses.replace(answering, answers=answers)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, answering=answering))


def lower_step(config: TrainConfig, number: int, devices: Sequence[Any], buckets: Buckets, pairs: int) -> Lowered:
    """The update of stage `number` on these devices, ready to be compiled; nothing is computed and nothing allocated.

    pairs: in the data set, for the schedule. UserError where batch, microbatch or sharding do not fit the devices.
    """
    stage = config.stages[number]
    mesh = make_mesh(devices, config.sharding.fsdp)
    size = config.image_size(stage)
    optimizer = optimizer_for(config)
    state = abstract_state(config, size, optimizer, mesh)
    rate = learning_rate(config.optimizer, config.stages, stage_steps(config.stages, pairs))
    b, answering, on_host = stage.batch_size, config.model.answering, config.compute.images_in == "host"
    length = config.model.text.context_length if answering is None else answering.question_length
    shapes = {
        "images": ((b, size, size, 3), jnp.uint8) if not on_host else ((b, size * size * 3 // 4), jnp.uint32),
        "tokens": ((b, length), jnp.int32),
        "index": ((b,), jnp.uint32),
        "signal": ((b,), jnp.int32),
    }
    prompts = assumed_prompts(config, number)
    if prompts is not None or answering is not None:
        classes = len(prompts.tokens) if prompts is not None else len(answering.answers) if answering is not None else 0
        shapes["labels"] = ((b, classes), jnp.bool_)
    shardings = {name: rows_on_host(mesh) if on_host and name == "images" else rows(mesh) for name in shapes}
    batch = {name: jax.ShapeDtypeStruct(*shapes[name], sharding=shardings[name]) for name in shapes}
    step = make_step(config, number, mesh, optimizer, rate, buckets, prompts)
    with host_memory_known(devices, shardings["images"] if on_host else None):
        return step.lower(state, batch)


def with_stage(config: TrainConfig, number: int, **changes: Any) -> TrainConfig:
    """The config with some fields of one stage changed."""
    stages = list(config.stages)
    stages[number] = dataclasses.replace(stages[number], **changes)
    return dataclasses.replace(config, stages=tuple(stages))
