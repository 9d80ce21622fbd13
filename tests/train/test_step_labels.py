"""The update of stages that learn of labels: the same on one device and on eight, and what moves."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import ROWS, Way, assert_same, batch_of, parameters, prompts_of, result

from biomedclip_jax.config import Adaptation, Classification, GPTConfig, MultiLabel, Softmax, Stage, check_stage
from biomedclip_jax.errors import UserError

BERT = tiny.MODEL
THREE = Adaptation(context=3)
SIZES = {"vocab_size": 50, "context_length": 8, "positions": 16, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
GPT = dataclasses.replace(BERT, text=GPTConfig(**SIZES, pad_id=0, pool="first_eos"), text_head="linear")
CONTEXT = ("context", "logit_scale")
WAYS = {
    "classes, GPT, split over 4": Way(
        loss=Classification(), model=GPT, adaptation=THREE, trainable=CONTEXT, fsdp=4, microbatches=2
    ),
    "classes, BERT, the image tower as well": Way(
        loss=Classification(), model=BERT, adaptation=THREE, trainable=("context", "image")
    ),
    "several labels": Way(loss=MultiLabel(), model=GPT, adaptation=THREE, trainable=CONTEXT),
    "pairs of an image and its label": Way(
        loss=Softmax("sum", 8, "label"), model=GPT, adaptation=THREE, trainable=("context", "image"), microbatches=2
    ),
    "pairs in the whole batch, BERT": Way(loss=Softmax(text="label"), model=BERT, adaptation=THREE, trainable=CONTEXT),
}


@pytest.mark.parametrize("name", WAYS)
def test_eight_devices_are_one(name: str) -> None:
    way = WAYS[name]
    ours = result(way)
    assert "context" in ours[1]
    assert all(path.partition("/")[0] in way.trainable for path in ours[1])
    assert_same(ours, result(way.plain))


def test_captions_in_groups_without_exchange() -> None:
    """CLEFT's first stage, also where a device has several groups."""
    way = Way(loss=Softmax("sum", 8), devices=4, model=GPT, adaptation=THREE, microbatches=2)
    both, alone = result(way), result(way.plain)
    assert_same(both, alone)
    assert "context" not in both[1], "captions do not meet it"


def test_the_gradient_of_the_context_is_that_of_finite_differences() -> None:
    way = WAYS["classes, BERT, the image tower as well"].plain
    _, gradients = result(way)
    direction = np.random.default_rng(0).normal(size=gradients["context"].shape).astype(np.float32)
    base = parameters(BERT, THREE)
    sides = [result(way, params=base | {"context": base["context"] + sign * 0.005 * direction})[0] for sign in (1, -1)]
    measured = (sides[0] - sides[1]) / 0.01
    assert abs(measured - float(np.sum(gradients["context"] * direction))) <= 1e-2 * abs(measured)


def test_the_label_decides_and_not_the_caption() -> None:
    way = WAYS["pairs of an image and its label"].plain
    batch = batch_of(way)
    other = batch | {"tokens": np.flip(batch["tokens"], axis=0).copy()}
    moved = batch | {"labels": np.roll(batch["labels"], 1, axis=1)}
    assert result(way, other)[0] == result(way, batch)[0] != result(way, moved)[0]


def test_groups_and_devices_must_fit_each_other() -> None:
    for negatives in (4, 8, 16):
        check_stage(Stage(ROWS, steps=1, loss=Softmax(negatives=negatives)), devices=8)
    with pytest.raises(UserError, match=r"Softmax\.negatives = 16: .* 96 / 8 = 12"):
        check_stage(Stage(96, steps=1, loss=Softmax(negatives=16)), devices=8)


def test_the_layouts_of_the_tests_have_every_vector_once() -> None:
    for model in (BERT, GPT):
        slots = prompts_of(model, 3).slots
        assert all(sorted(row[row >= 0]) == [0, 1, 2] for row in slots) and "context" in parameters(model, THREE)
