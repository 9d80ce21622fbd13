"""Configs check themselves, and come back from JSON as they were."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest

from biomedclip_jax.config import (
    AttentionForm,
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    ComputeConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    RunConfig,
    ShardingConfig,
    Sigmoid,
    Stage,
    TrainConfig,
    ViTConfig,
    from_json,
    to_json,
)
from biomedclip_jax.config.checks import decisive
from biomedclip_jax.errors import UserError

DATA = DataConfig(train="pairs.csv")
STAGE = Stage(batch_size=8, steps=1)
SIGMOID = Stage(batch_size=8, steps=1, loss=Sigmoid())


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
        (lambda: Stage(batch_size=8, steps=1, loss="hinge"), "loss"),  # type: ignore[arg-type]
        (lambda: Stage(batch_size=8, steps=1, trainable=()), "trainable"),
        (lambda: Stage(batch_size=8, steps=1, trainable="text"), "trainable"),  # type: ignore[arg-type]
        (lambda: Stage(batch_size=8, steps=1, trainable=("text", "")), "trainable"),
        (lambda: OptimizerConfig(learning_rate=-1.0), "learning_rate"),
        (lambda: OptimizerConfig(schedule="steps"), "schedule"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(groups=("image", 0.1)), "groups"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(groups=(("image", 0.1, 2),)), "groups"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(groups=((3, 0.1),)), "groups"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(groups=(("image", -0.1),)), "groups"),
        (lambda: OptimizerConfig(ema=0.0), "ema"),
        (lambda: OptimizerConfig(ema=1.0), "ema"),
        (lambda: ComputeConfig(remat="some"), "remat"),  # type: ignore[arg-type]
        (lambda: ComputeConfig(attention="flash"), "attention"),  # type: ignore[arg-type]
        (lambda: ComputeConfig(attention="fused").on("cpu"), "attention"),
        (lambda: ComputeConfig(attention="fused").on("tpu"), "attention"),
        (lambda: ComputeConfig(dtype="float16"), "dtype"),  # type: ignore[arg-type]
        (lambda: ComputeConfig(text_buckets=0), "text_buckets"),
        (lambda: ShardingConfig(fsdp=0), "fsdp"),
        (lambda: ShardingConfig(gather="block"), "gather"),  # type: ignore[arg-type]
        (lambda: DataConfig(train="x", template="no place"), "template"),
        (lambda: TrainConfig("x", DATA, ()), "stages"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1, image_size=230),)), "image_size"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1),), preprocess=PreprocessConfig(384)), "image_size"),
        (lambda: TrainConfig("x", DATA, (Stage(batch_size=8, steps=1),), model_init="a", text_init="b"), "model_init"),
        (lambda: TrainConfig("x", DATA, (SIGMOID,)), "loss"),
        (lambda: TrainConfig("x", DATA, (STAGE,), interpolate=1.5), "interpolate"),
        (lambda: RunConfig(evaluate_every=0), "evaluate_every"),
        (lambda: TrainConfig("x", DATA, (STAGE,), run=RunConfig(evaluate_every=5)), "evaluate_every"),
        (lambda: RunConfig(checkpoint_minutes=0.0), "checkpoint_minutes"),
        (lambda: RunConfig(stall_minutes=-1.0), "stall_minutes"),
        (lambda: RunConfig(keep_checkpoints=0), "keep_checkpoints"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_field(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(UserError, match=rf"\.{field} = .*expected") as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_chosen_for_the_devices(dtype: Literal["float32", "bfloat16"]) -> None:
    def on(platform: str, attention: AttentionForm) -> AttentionForm:
        return ComputeConfig(dtype=dtype, attention=attention).on(platform).attention

    assert on("gpu", "auto") == ("fused" if dtype == "bfloat16" else "plain")
    assert on("cpu", "auto") == on("tpu", "auto") == on("gpu", "plain") == "plain" and on("gpu", "fused") == "fused"


@pytest.mark.parametrize("text", [BertConfig(), ClipTextConfig(vocab_size=300)])
def test_json_and_back(text: BertConfig | ClipTextConfig) -> None:
    config = TrainConfig(
        "x",
        DATA,
        (SIGMOID, Stage(batch_size=16, microbatch=4, epochs=0.5, patch_keep=0.5, trainable=("text", "*_head"))),
        model=CLIPConfig(text=text, text_head="linear", init_logit_bias=-10.0),
        optimizer=OptimizerConfig(schedule="constant", groups=(("image", 0.1), ("*/bias", 0.0)), ema=0.999),
        compute=ComputeConfig(dtype="bfloat16", remat="dots", text_buckets=2),
        sharding=ShardingConfig(fsdp=4, gather="step"),
        interpolate=0.5,
    )
    assert from_json(to_json(config)) == config


def test_the_sigmoid_loss_with_a_bias_is_fine() -> None:
    TrainConfig("x", DATA, (SIGMOID, STAGE), model=CLIPConfig(init_logit_bias=-10.0))


def _saved(**changes: Any) -> str:
    """A saved stage, with fields changed."""
    return json.dumps(json.loads(to_json(STAGE)) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a config: expected an object with `kind`, found list"),
        ("3", "not a config: expected an object with `kind`, found int"),
        ('{"batch_size": 8}', "no kind: expected one of AdaLoRAConfig, "),
        ('{"kind": "Path"}', "kind 'Path': expected one of AdaLoRAConfig, "),
        ('{"kind": "Literal"}', "kind 'Literal': expected one of"),
        ('{"kind": "check"}', "kind 'check': expected one of"),
        ('{"kind": ["Stage"]}', r"kind \['Stage'\]: expected one of"),
        (_saved(kind="UserError"), "kind 'UserError': expected one of"),
        (_saved(optimizer={"kind": "Path"}), "kind 'Path': expected one of"),
        (_saved(colour="red"), r"Stage\.colour: no such field; expected batch_size, "),
        ('{"kind": "Stage", "steps": 1}', r"Stage: .*missing 1 required positional argument: 'batch_size'"),
        (_saved(batch_size="8"), r"Stage\.batch_size = '8': expected a whole number above 0"),
        (_saved(patch_keep="all"), "Stage: "),
    ],
)
def test_json_that_is_no_config_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as error:
        from_json(text)
    assert "\n" not in str(error.value)


def test_what_may_change_when_a_run_goes_on() -> None:
    """Each operational field alone leaves the decisive part as it was; every other field changes it."""
    config = TrainConfig("x", dataclasses.replace(DATA, held_out="y"), (STAGE,))
    stage, data, compute = STAGE, config.data, config.compute
    free = {
        "run": RunConfig(log_every=3, evaluate_every=2, keep_checkpoints=5),
        "sharding": ShardingConfig(fsdp=2, gather="step"),
        "stages": (dataclasses.replace(stage, microbatch=2),),
        "data": dataclasses.replace(data, workers=3),
        "compute": dataclasses.replace(compute, remat="full", unroll=3, text_buckets=2, attention="plain"),
    }
    for name, value in free.items():
        assert decisive(dataclasses.replace(config, **{name: value})) == decisive(config), name
    bound = {
        "seed": 1,
        "stages": (dataclasses.replace(stage, batch_size=16),),
        "data": dataclasses.replace(data, reference_share=0.5),
        "compute": dataclasses.replace(compute, dtype="bfloat16"),
        "optimizer": OptimizerConfig(ema=0.9),
    }
    for name, value in bound.items():
        assert decisive(dataclasses.replace(config, **{name: value})) != decisive(config), name
