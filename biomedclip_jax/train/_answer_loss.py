"""The loss of a batch of questions about images: no part of it compares examples with each other."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from biomedclip_jax.config import AnswerLoss, QuestionTypes, Stage
from biomedclip_jax.models import CLIP
from biomedclip_jax.models.answering.qcr.model import QCR
from biomedclip_jax.sharding import AXES
from biomedclip_jax.train.microbatches import Batch, Normalise, encode_in_microbatches


def answer_share(
    stage: Stage,
    model: Callable[[Any], Callable[[], CLIP]],
    batch: Batch,
    normalise: Normalise,
    trained: Any,
) -> Array:
    """This device's share of the loss of the whole batch, inside `jax.shard_map`; the shares add up to it.

    model: what makes the model of what is trained. batch: with `keys`, one an example.
    """
    clip = model(trained)
    loss = stage.loss
    assert isinstance(loss, AnswerLoss)

    def encode(part: Batch) -> Array:
        return answer_terms(loss, clip(), part | {"images": normalise(part["images"])})

    terms = encode_in_microbatches(encode, batch, stage.microbatches)
    counted = answer_counted(loss, clip(), batch["labels"])
    examples = lax.psum(counted.sum(axis=0), AXES)
    return (jnp.where(counted, terms, 0).sum(axis=0) / jnp.maximum(examples, 1)).sum()


def answer_terms(loss: AnswerLoss, clip: CLIP, part: Batch) -> Array:
    """The parts of the loss of each example, float32 [B, K]; see `models.answering.head`. Images are normalised; dropout
    where there are `keys`."""
    head, keys = clip.answering, part.get("keys")
    if isinstance(loss, QuestionTypes):
        assert isinstance(head, QCR)
        return head.type_terms(part["tokens"], part["labels"], keys)
    return head.terms(clip, part["images"], part["tokens"], part["labels"], keys)


def answer_counted(loss: AnswerLoss, clip: CLIP, labels: Array) -> Array:
    """The examples that each part of the loss is of, bool [B, K]."""
    head = clip.answering
    if isinstance(loss, QuestionTypes):
        assert isinstance(head, QCR)
        return head.type_counted(labels)
    return head.counted(labels)
