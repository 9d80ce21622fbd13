"""The made batches are what the loader would give, and a task survives the way to another process."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_bench import CONFIG

from biomedclip_jax.bench.task import Task, caption_lengths, exact_biomedclip, make_batch, task_config
from biomedclip_jax.errors import UserError
from biomedclip_jax.train.state import parameter_count


def test_a_batch_has_the_loaders_shapes_and_types() -> None:
    task = Task(task_config(CONFIG, 1), lengths="real")
    batch = make_batch(task, 200)
    expected = tiny.batch(200)
    assert batch["images"].shape == (200, 24, 24, 3)
    assert batch["images"].dtype == np.uint8
    for name in ("tokens", "index"):
        assert batch[name].dtype == expected[name].dtype
    assert batch["tokens"].shape == expected["tokens"].shape
    assert batch["tokens"].max() < tiny.MODEL.text.vocab_size
    np.testing.assert_array_equal(batch["tokens"][0], make_batch(task, 200)["tokens"][0])


def test_captions_are_full_or_as_long_as_real_ones() -> None:
    assert (caption_lengths("full", 256, 5) == 256).all()
    lengths = caption_lengths("real", 256, 20_000)
    assert abs(np.median(lengths) - 123) < 3
    assert 0.14 < (lengths == 256).mean() < 0.21, "19 % of the real ones are longer than 256 tokens"
    task = Task(task_config(CONFIG, 0), lengths="real")
    used = (make_batch(task, 500)["tokens"] != 0).sum(axis=1)
    np.testing.assert_array_equal(used, caption_lengths("real", 8, 500))


def test_padding_comes_last_and_only_there() -> None:
    model = dataclasses.replace(tiny.MODEL, text=dataclasses.replace(tiny.MODEL.text, pad_id=1, context_length=8))
    config = dataclasses.replace(CONFIG, model=model)
    tokens = make_batch(Task(task_config(config, 0), lengths="real"), 300)["tokens"]
    padded = tokens == 1
    assert (padded[:, 1:] >= padded[:, :-1]).all()


def test_a_task_is_the_same_after_the_way_to_another_process() -> None:
    task = Task(task_config(CONFIG, 1), ("loss", "step"), 3, "real", False, "files")
    assert "\n" not in task.to_json()
    assert Task.from_json(task.to_json()) == task


def test_one_stage_is_left_with_fresh_weights() -> None:
    config = task_config(CONFIG, 1)
    assert config.stages == (CONFIG.stages[1],)
    assert config.model_init is None
    task = Task(config)
    assert (task.forward_rows, task.pairs("forward"), task.pairs("step"), task.image_size) == (8, 8, 32, 24)
    with pytest.raises(UserError, match="--stage 2: expected 0 to 1"):
        task_config(CONFIG, 2)


def test_the_default_is_biomedclip() -> None:
    config = exact_biomedclip(8)
    assert parameter_count(config.model) == 195_902_721
    assert config.model.text.context_length == 256
    assert config.image_size(config.stages[0]) == 224
