"""Configs check themselves, and come back from JSON as they were."""

from collections.abc import Callable
from typing import Any

import pytest

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    Stage,
    TrainConfig,
    ViTConfig,
    from_json,
    to_json,
)
from biomedclip_jax.errors import UserError

DATA = DataConfig(train="pairs.csv")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ViTConfig(width=0), "width"),
        (lambda: ViTConfig(heads=7), "heads"),
        (lambda: ViTConfig(image_size=225), "image_size"),
        (lambda: ViTConfig(activation="relu"), "activation"),  # type: ignore[arg-type]
        (lambda: ViTConfig(class_token=False), "class_token"),
        (lambda: BertConfig(context_length=600), "context_length"),
        (lambda: BertConfig(dropout=1.0), "dropout"),
        (lambda: ClipTextConfig(heads=0), "heads"),
        (lambda: CLIPConfig(image_head="none"), "image_head"),
        (lambda: PreprocessConfig(std=(0.0, 1.0, 1.0)), "std"),
        (lambda: Stage(batch_size=8), "epochs"),
        (lambda: Stage(batch_size=8, epochs=1, steps=1), "epochs"),
        (lambda: Stage(batch_size=8, steps=1, microbatch=3), "microbatch"),
        (lambda: Stage(batch_size=8, steps=1, patch_keep=0.0), "patch_keep"),
        (lambda: OptimizerConfig(learning_rate=-1.0), "learning_rate"),
        (lambda: DataConfig(train="x", template="no place"), "template"),
        (lambda: TrainConfig("x", DATA, ()), "stages"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1, image_size=230),)), "image_size"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1),), preprocess=PreprocessConfig(384)), "image_size"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1),), model_init="a", text_init="b"), "model_init"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_field(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(UserError, match=rf"\.{field} = .*expected") as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [BertConfig(), ClipTextConfig(vocab_size=300)])
def test_json_and_back(text: BertConfig | ClipTextConfig) -> None:
    config = TrainConfig(
        "x",
        DATA,
        (Stage(batch_size=8, steps=1), Stage(batch_size=16, microbatch=4, epochs=0.5, patch_keep=0.5)),
        model=CLIPConfig(text=text, text_head="linear"),
    )
    assert from_json(to_json(config)) == config
