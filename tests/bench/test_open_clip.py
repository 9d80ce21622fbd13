"""The other side: open_clip's own model and loss on our batch, with accumulation and patch dropout as its loop does them."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_bench import CONFIG

from biomedclip_jax.bench import _open_clip as theirs
from biomedclip_jax.bench.task import Task, exact_biomedclip, make_batch, task_config
from biomedclip_jax.config import Stage
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.errors import UserError
from biomedclip_jax.train.state import parameter_count

CPU = torch.device("cpu")


def task(**stage: Any) -> Task:
    """A model that open_clip has: no dropout, so that two passes are the same."""
    text = dataclasses.replace(CONFIG.model.text, dropout=0.0, attention_dropout=0.0)
    config = dataclasses.replace(
        CONFIG, model=dataclasses.replace(CONFIG.model, text=text), stages=(Stage(8, steps=1, **stage),)
    )
    return Task(task_config(config, 0), compiled=False)


def trainer(task: Task) -> theirs.Trainer:
    torch.manual_seed(0)
    model = theirs.build_model(task)
    batch = make_batch(task, task.stage.batch_size)
    images = torch.from_numpy(normalised(batch["images"], task.config.preprocess)).permute(0, 3, 1, 2)
    return theirs.Trainer(task, model, model, CPU, {"images": images, "tokens": torch.from_numpy(batch["tokens"]).long()})


def gradients(trainer: theirs.Trainer) -> dict[str, np.ndarray]:
    trainer.optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
    trainer.step()
    return {name: p.grad.numpy().copy() for name, p in trainer.raw.named_parameters() if p.grad is not None}


def test_the_model_has_our_size() -> None:
    made = theirs.build_model(task())
    assert sum(p.numel() for p in made.parameters()) == parameter_count(CONFIG.model)


@pytest.mark.slow
def test_biomedclip_has_its_size_and_dropout() -> None:
    made = theirs.build_model(Task(dataclasses.replace(exact_biomedclip(8), stages=(Stage(8, steps=1, patch_keep=0.5),))))
    assert sum(p.numel() for p in made.parameters()) == 195_902_721
    assert made.visual.trunk.patch_drop.prob == 0.5
    drops = {m.p for m in made.text.modules() if isinstance(m, torch.nn.Dropout)}
    assert 0.1 in drops


def test_accumulation_gives_the_gradient_of_the_whole_batch() -> None:
    whole, parts = gradients(trainer(task())), gradients(trainer(task(microbatch=2)))
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        if name == "logit_scale":  # open_clip adds it up once a part (its issue 761)
            gradient = 4 * gradient
        np.testing.assert_allclose(parts[name], gradient, rtol=1e-4, atol=1e-5 * np.abs(gradient).max() + 1e-9)


def test_patch_dropout_only_in_training() -> None:
    made = theirs.build_model(task(patch_keep=0.5))
    images = torch.randn(2, 3, 16, 16)
    made.eval()
    assert torch.equal(made(images)["image_features"], made(images)["image_features"])
    made.train()
    assert not torch.equal(made(images)["image_features"], made(images)["image_features"])


def test_weight_decay_groups() -> None:
    made = theirs.build_model(task())
    plain, decayed = theirs.build_optimizer(task(), made).param_groups
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.2)
    assert any(p is made.logit_scale for p in plain["params"])
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert len(plain["params"]) + len(decayed["params"]) == len(list(made.parameters()))


def test_everything_runs() -> None:
    work = theirs.build(dataclasses.replace(task(patch_keep=0.5, microbatch=4), what=("step", "forward", "loss")))
    for call in work.calls.values():
        call()
    assert work.facts.platform == "cpu"
    assert work.facts.notes == {"step": "eager", "forward": "eager"}
    assert work.peak_bytes() > 1 << 20


def test_the_temperature_is_clamped() -> None:
    made = trainer(task())
    with torch.no_grad():
        made.raw.logit_scale.fill_(9.0)
    made.step()
    assert made.raw.logit_scale.item() == pytest.approx(math.log(100))


def test_what_open_clip_does_not_train_is_refused() -> None:
    with pytest.raises(UserError, match="softmax"):
        theirs.build(task(trainable=("text",)))
