"""The update of stages that answer questions: the same on one device and on eight, in one part and in several."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import Way, assert_same, batch_of, result

from biomedclip_jax.config import Adaptation, Answers, LoRAConfig, MeterConfig, QCRConfig, QuestionTypes

ANSWERS = ("yes", "no", "left", "right lung", "2")
METER = dataclasses.replace(
    tiny.MODEL, answering=MeterConfig(ANSWERS, question_length=8, layers=2, width=32, heads=4, mlp_width=64)
)
QCR = dataclasses.replace(
    tiny.MODEL,
    answering=QCRConfig(
        ("yes", "no", "left", "right lung", "yes"),
        closed_answers=2,
        words=tuple(map(str, range(50))),
        question_length=8,
        vision=("clip",),
        word_width=16,
        width=32,
    ),
)
TOWERS = ("image/*", "text/*", "answering")
WAYS = {
    "METER, towers and all": Way(loss=Answers(), model=METER, trainable=TOWERS, microbatches=4),
    "METER, split over 4, a layer at a time": Way(loss=Answers(), model=METER, trainable=TOWERS, fsdp=4, microbatches=2),
    "METER, frozen towers": Way(loss=Answers(), model=METER, trainable=("answering",), remat="full"),
    "METER, LoRA in the towers": Way(
        loss=Answers(),
        model=METER,
        adaptation=Adaptation(image=LoRAConfig(rank=2), text=LoRAConfig(rank=2)),
        trainable=("answering", "*lora_b"),
    ),
    "QCR and the image tower": Way(
        loss=Answers(),
        model=QCR,
        trainable=("image", "image_head", *(f"answering/{part}" for part in ("question", "modulation", "closed", "open"))),
        microbatches=2,
        fsdp=2,
    ),
    "QCR's classifier of questions": Way(loss=QuestionTypes(), model=QCR, trainable=("answering/types",), microbatches=2),
}


@pytest.mark.parametrize("name", WAYS)
def test_eight_devices_are_one(name: str) -> None:
    way = WAYS[name]
    ours, expected = result(way), result(way.plain)
    largest = max(np.abs(leaf).max() for leaf in expected[1].values())
    moved = {path: leaf for path, leaf in ours[1].items() if np.abs(expected[1][path]).max() > 1e-3}
    assert any(path.startswith("answering") for path in moved)
    assert_same((ours[0], moved), expected)
    for path in ours[1].keys() - moved.keys():  # biases before a softmax, whose true gradient is zero
        assert np.abs(ours[1][path] - expected[1][path]).max() <= 1e-5 * largest, path


def test_of_two_types_each_has_a_mean_of_its_own() -> None:
    """With one closed question in the batch its loss counts as much as those of all open ones together."""
    way = WAYS["QCR and the image tower"].plain
    batch = batch_of(way)
    labels = np.zeros_like(batch["labels"])
    labels[:, 2] = True
    one, none = labels.copy(), result(way, batch | {"labels": labels})[0]
    one[0] = [True, False, False, False, False]
    assert result(way, batch | {"labels": one})[0] > none + 0.1, "the mean over one closed question, not over all"


def test_a_row_of_an_unknown_answer_is_wrong_in_all() -> None:
    way = WAYS["METER, frozen towers"].plain
    batch = batch_of(way)
    none = batch | {"labels": np.zeros_like(batch["labels"])}
    assert result(way, none)[0] != result(way, batch)[0]
