"""What may change in a run that goes on, and how a change that may not is named."""

import dataclasses
from typing import Any

import pytest

from biomedclip_jax.config import Adaptation, DataConfig, OptimizerConfig, RunConfig, Sigmoid, Stage, TrainConfig
from biomedclip_jax.config.changes import refused_changes

BASE = TrainConfig(name="a", data=DataConfig(train="a.csv", held_out="h.csv"), stages=(Stage(16, steps=2), Stage(32, steps=1)))
MIX = (("a.csv", 3.0), ("b.csv", 1.0))


def with_data(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (dataclasses.replace(BASE, seed=3), ["seed = 3, there 0"]),
        (
            dataclasses.replace(BASE, optimizer=OptimizerConfig(learning_rate=1e-4)),
            ["optimizer.learning_rate = 0.0001, there 0.0005"],
        ),
        (
            dataclasses.replace(BASE, stages=(BASE.stages[0], Stage(64, steps=1))),
            ["stages.1.batch_size = 64, there 32"],
        ),
        (dataclasses.replace(BASE, stages=BASE.stages[:1]), None),
        (
            dataclasses.replace(
                BASE,
                model=dataclasses.replace(BASE.model, init_logit_bias=-10.0),
                stages=(Stage(16, steps=2, loss=Sigmoid()), BASE.stages[1]),
            ),
            ["stages.0.loss = Sigmoid(), there Softmax()", "model.init_logit_bias = -10.0, there None"],
        ),
        (with_data(BASE, train=MIX), ["data.train = (('a.csv', 3.0), ('b.csv', 1.0)), there 'a.csv'"]),
        (with_data(BASE, caption_column="text"), ["data.caption_column = 'text', there 'caption'"]),
        (with_data(BASE, crop_scale=(0.5, 1.0)), ["data.crop_scale = (0.5, 1.0), there (0.9, 1.0)"]),
        (
            dataclasses.replace(BASE, adaptation=Adaptation(context=4)),
            ["adaptation.context = 4, there 0"],
        ),
    ],
)
def test_what_changes_the_result_is_named_with_both_values(now: TrainConfig, expected: list[str] | None) -> None:
    found = [str(change) for change in refused_changes(now, BASE)]
    if expected is None:
        assert len(found) == 1 and found[0].startswith("stages = (Stage(batch_size=16, steps=2)), there (Stage(")
    else:
        assert sorted(found) == sorted(expected)


def test_what_changes_no_update_may_change() -> None:
    now = with_data(BASE, held_out="other.csv", train="moved/a.csv", tokenizer="moved/tokenizer", template="an image of {}")
    run = RunConfig(evaluate_every=5, checkpoint_every=3)
    now = dataclasses.replace(now, name="b", export="last", patience=3, interpolate=0.5, run=run)
    assert refused_changes(now, BASE) == []
    assert refused_changes(with_data(BASE, held_out=None), BASE) == []


def test_a_mix_may_move_and_not_change_its_weights() -> None:
    mixed = with_data(BASE, train=MIX)
    assert refused_changes(with_data(BASE, train=(("x/a.csv", 3.0), ("x/b.csv", 1.0))), mixed) == []
    others = (("a.csv", 2.0), ("b.csv", 1.0)), (("a.csv", 3.0),), "a.csv", (("b.csv", 1.0), ("a.csv", 3.0))
    for train in others:
        assert [change.path for change in refused_changes(with_data(BASE, train=train), mixed)] == ["data.train"], train


def test_the_template_that_context_starts_from_may_not_change() -> None:
    learned = dataclasses.replace(BASE, adaptation=Adaptation(context=4))
    assert [change.path for change in refused_changes(with_data(learned, template="an image of {}"), learned)] == [
        "data.template"
    ]
