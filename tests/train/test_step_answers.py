"""The update of stages that answer questions: the same on one device and on eight, in one part and in several."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import Way, assert_same, batch_of, result

from biomedclip_jax.config import Adaptation, Answers, LoRAConfig, MeterConfig

ANSWERS = ("yes", "no", "left", "right lung", "2")
METER = dataclasses.replace(
    tiny.MODEL, answering=MeterConfig(ANSWERS, question_length=8, layers=2, width=32, heads=4, mlp_width=64)
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
}


@pytest.mark.parametrize("name", WAYS)
def test_eight_devices_are_one(name: str) -> None:
    way = WAYS[name]
    ours, expected = result(way), result(way.plain)
    assert "answering/classifier/out/kernel" in ours[1] or any(path.startswith("answering/classifier") for path in ours[1])
    no_gradient = [path for path, leaf in ours[1].items() if np.abs(leaf).max() <= 1e-3]
    for path in no_gradient:
        del ours[1][path]
    assert_same(ours, expected)
    assert len(ours[1]) > 20 or "frozen" in name or "LoRA" in name


def test_a_row_of_an_unknown_answer_is_wrong_in_all() -> None:
    way = WAYS["METER, frozen towers"].plain
    batch = batch_of(way)
    none = batch | {"labels": np.zeros_like(batch["labels"])}
    assert result(way, none)[0] != result(way, batch)[0]
