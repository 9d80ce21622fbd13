"""What is chosen by numbers: sizes from the data, the rate, the mixture, and the scores behind them."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from biomedclip_jax.config import MeterConfig, PreprocessConfig, Sigmoid, Softmax
from biomedclip_jax.config.files import load_config, to_python
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune import _memory as memory
from biomedclip_jax.finetune import _rates as rates
from biomedclip_jax.finetune._judge import least_loss, pair_loss
from biomedclip_jax.finetune._memory import fitting_microbatch
from biomedclip_jax.finetune._mixture import Tried, chosen, mixed
from biomedclip_jax.finetune._plan import METHOD_RATES, check_fits, planned, sizes
from biomedclip_jax.finetune._rates import TriedRate, best_rate
from biomedclip_jax.finetune.request import METHODS, Method, Request
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.model import Model
from biomedclip_jax.train.optimizer import chosen as trained_paths


def request(**changes: object) -> Request:
    return dataclasses.replace(Request(model="m", data="d", replay=None), **changes)  # type: ignore[arg-type]


MODEL = Model(tiny.MODEL, PreprocessConfig(image_size=16), {}, Path("words"))


# --- sizes and the config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "batch", "epochs"), [(30, 8, 30), (400, 32, 30), (2_100, 128, 15), (100_000, 128, 5)])
def test_batch_and_length_follow_from_the_data(pairs: int, batch: int, epochs: float) -> None:
    found = sizes(request(), pairs, devices=1)
    assert (found.batch_size, found.epochs) == (batch, epochs)
    assert found.steps == max(20, int(np.ceil(epochs * pairs / batch)))


def test_what_is_asked_for_counts_and_a_batch_must_fit_the_devices() -> None:
    assert sizes(request(batch_size=24, epochs=2.0), 96, devices=8).steps == 8
    assert sizes(request(), 30, devices=6).batch_size == 12
    assert sizes(request(replay="more", replay_share=0.5), 100, devices=1).pairs == 200
    with pytest.raises(UserError, match="--batch-size 20: expected a multiple of the 8 devices"):
        sizes(request(batch_size=20), 96, devices=8)


def test_a_model_without_projections_trains_none() -> None:
    """Such as a SigLIP, whose towers end in the space that is compared."""
    config = dataclasses.replace(tiny.MODEL, image_head="none", text_head="none", embed_width=tiny.MODEL.image.width)
    bare = dataclasses.replace(MODEL, config=config)
    found = planned(request(method="lora"), bare, "m", sizes(request(), 100, 1), 1e-3, Path("out"))
    assert found.stages[0].trainable == ("*lora*", "logit_*")
    with pytest.raises(UserError, match="m: has no projections, which are all that --method probe trains"):
        check_fits(request(method="probe"), bare)


PATHS = [
    *("image/blocks/attention/qkv/kernel", "image/blocks/attention/qkv/lora_a", "text/blocks/mlp/fc1/kernel"),
    *("text/word", "image_head/kernel", "text_head/kernel", "logit_scale"),
]


@pytest.mark.parametrize(
    ("method", "left_alone"),
    [
        ("lora", {"image/blocks/attention/qkv/kernel", "text/blocks/mlp/fc1/kernel", "text/word"}),
        ("full", set()),
        ("locked-image", {"image/blocks/attention/qkv/kernel", "image/blocks/attention/qkv/lora_a"}),
        ("probe", set(PATHS[:4])),
    ],
)
def test_each_method_trains_what_its_name_says(method: Method, left_alone: set[str], tmp_path: Path) -> None:
    config = planned(request(method=method), MODEL, "m", sizes(request(), 100, 1), 1e-3, tmp_path)
    assert set(PATHS) - set(trained_paths(PATHS, config.stages[0].trainable)) == left_alone
    assert (config.adaptation.text is not None) == (method == "lora")
    assert METHOD_RATES.keys() == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_resnet_is_refused_before_anything_is_done(method: Method) -> None:
    """Whatever is trained: a run of any kind needs a ViT."""
    other = dataclasses.replace(MODEL, config=dataclasses.replace(tiny.MODEL, image=ResNetConfig(32, stem_width=8, heads=4)))
    with pytest.raises(UserError, match=r"m: its image tower is no vision transformer .* `biomedclip evaluate probe` learns"):
        check_fits(request(method=method), other)


def test_a_model_that_answers_questions_is_refused() -> None:
    """Pairs would move the towers under what answers, without a word."""
    answers = dataclasses.replace(MODEL, config=dataclasses.replace(MODEL.config, answering=MeterConfig(answers=("yes", "no"))))
    with pytest.raises(UserError, match=r"m: answers questions, .*model_init"):
        check_fits(request(method="lora"), answers)


def test_a_siglip_learns_by_its_own_loss_and_its_bias_with_it(tmp_path: Path) -> None:
    biased = dataclasses.replace(MODEL, config=dataclasses.replace(MODEL.config, init_logit_bias=-10.0))
    for method in METHODS:
        stage = planned(request(method=method), biased, "m", sizes(request(), 100, 1), 1e-3, tmp_path).stages[0]
        assert stage.loss == Sigmoid(equal_captions="positives")
        assert {"logit_scale", "logit_bias"} <= set(trained_paths([*PATHS, "logit_bias"], stage.trainable))


def test_the_config_stops_early_exports_the_best_and_can_be_edited_and_read_again(tmp_path: Path) -> None:
    asked = request(replay="more")
    config = planned(asked, MODEL, "m", sizes(asked, 300, 1), 1e-3, tmp_path)
    assert config.export == "best" and config.patience and config.run.evaluate_every
    assert config.stages[0].loss == Softmax(equal_captions="positives")
    assert config.data.train == ((str(tmp_path / "data/train.jsonl"), 0.75), (str(tmp_path / "data/replay.jsonl"), 0.25))
    (tmp_path / "config.py").write_text(to_python(config))
    assert load_config(tmp_path / "config.py") == config


# --- memory ---------------------------------------------------------------------------------------------------------


def test_the_microbatch_is_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = planned(request(), MODEL, "m", sizes(request(batch_size=64), 300, 8), 1e-3, tmp_path)
    monkeypatch.setattr(memory, "_needed", lambda config, pairs, microbatch: 1e9 + microbatch // 8 * 1e9)
    for free, expected in ((100e9, None), (9e9, 32), (4e9, 8)):  # a device; 0.6 of it may be taken
        monkeypatch.setattr(memory, "_free_bytes", lambda free=free: int(free))
        assert fitting_microbatch(config, 300)[0] == expected
    monkeypatch.setattr(memory, "_free_bytes", lambda: int(2e9))
    with pytest.raises(UserError, match=r"one pair a device needs 2.0 GB, but 1.2 GB can be had"):
        fitting_microbatch(config, 300)


def test_memory_is_measured_on_the_real_update(tmp_path: Path) -> None:
    asked = request(batch_size=32, method="full")
    config = planned(asked, MODEL, "m", sizes(asked, 300, 8), 1e-3, tmp_path)
    few, many = (memory._needed(config, 300, microbatch) for microbatch in (8, 32))
    assert 0 < few < many
    assert memory._free_bytes()


# --- rates and mixtures ---------------------------------------------------------------------------------------------


def test_the_rate_with_the_lowest_held_out_loss_is_taken() -> None:
    said: list[str] = []
    tried = [TriedRate(1e-4, 2.0), TriedRate(1e-3, 1.5), TriedRate(1e-2, None)]
    assert best_rate(3.0, tried, said.append) == 1e-3 and not said
    assert best_rate(1.0, tried, said.append) == pytest.approx(1e-4 / 3) and "no rate came below" in said[0]
    with pytest.raises(UserError, match="no number with each of the three rates"):
        best_rate(1.0, [TriedRate(1e-2, None)], said.append)


def test_the_losses_of_a_run_are_read_with_that_of_the_start_first(tmp_path: Path) -> None:
    lines = [{"step": 0, "held_out_loss": 3.0}, {"step": 5, "loss": 1.0}, {"step": 5, "held_out_loss": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rates._losses(tmp_path) == [3.0, 2.0]


def test_the_best_mixture_that_does_not_forget_is_taken() -> None:
    tried = [Tried(0.0, 3.0, 0.5, 0.60), Tried(1.0, 1.0, 0.9, 0.40), Tried(0.5, 1.5, 0.8, 0.595), Tried(0.25, 2.0, 0.7, 0.60)]
    assert chosen(tried, 0.01).share == 0.5
    assert chosen(tried, 0.0).share == 0.25
    assert chosen(tried, 1.0).share == 1.0
    assert chosen([tried[0], Tried(1.0, 3.5, 0.9, 0.7)], 0.01).share == 0.0
    assert chosen([Tried(0.0, 3.0, 0.5), Tried(1.0, 1.0, 0.9)], 0.0).share == 1.0, "without a forgetting check"
    lower = [Tried(0.0, 3.0, 0.5), Tried(1.0, 1.0, 0.45), Tried(0.5, 2.0, 0.5)]
    assert chosen(lower, 0.02).share == 0.5, "a lower loss does not buy a lower score"


def test_a_mixture_lies_between_and_its_ends_are_bit_equal() -> None:
    a, b = {"x": np.array([0.1, 2.0], np.float32)}, {"x": np.array([1.1, 4.0], np.float32)}
    assert mixed(a, b, 0.0) is a and mixed(a, b, 1.0) is b
    np.testing.assert_allclose(mixed(a, b, 0.25)["x"], [0.35, 2.5], rtol=1e-6)


def test_the_loss_of_mixtures_is_that_of_the_training() -> None:
    from biomedclip_jax.losses import pair_loss as trained

    rng = np.random.default_rng(0)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 12, 8)).astype(np.float32))
    captions = [f"caption {i}" for i in range(12)]
    theirs = trained(Softmax(), jnp.asarray(image), jnp.asarray(text), {"logit_scale": jnp.float32(2.0)})
    assert pair_loss(image, text, captions, float(np.exp(2.0))) == pytest.approx(float(theirs), rel=1e-6)
    text[1] = text[0]
    same = pair_loss(image[:2], text[:2], ["same", "same"], 10.0)
    assert same > np.log(2) - 1e-9, "two images of one caption: both texts are right, each with a half"


def test_mixtures_are_compared_by_what_they_tell_not_by_how_sure_they_are() -> None:
    rng = np.random.default_rng(1)
    text = rng.normal(size=(10, 16))
    image = text + 0.5 * rng.normal(size=(10, 16))
    captions = [str(i) for i in range(10)]
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    least = least_loss(image, text, captions)
    assert least <= min(pair_loss(image, text, captions, scale) for scale in (1.0, 10.0, 100.0)) + 1e-2
    assert least < least_loss(image[::-1], text, captions)


def test_a_request_that_cannot_work_names_its_field() -> None:
    for field, value in (("replay_share", 1.0), ("max_forgetting", -1.0), ("rate", 0.0), ("epochs", 0.0), ("method", "x")):
        with pytest.raises(UserError, match=field):
            request(**{field: value})
