"""Whole trainings, step by step, against torch's optimizers and Dassl's learning rates; nothing frozen moves."""

import math

import jax
import numpy as np
import pytest
from helpers.prompt_reference import unit_rows
from helpers.tiny import MODEL

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.prompt_learning.tip_adapter import KeysLoss
from biomedclip_jax.evaluation.prompt_learning.training import Recipe, batches, cross_entropy, fit


def linear(trained, frozen, images, labels, weights):
    """A small objective whose form both libraries have."""
    return cross_entropy(3 * images @ trained["context"] + frozen["bias"], labels, weights)


def data(count: int, classes: int = 4, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return unit_rows(rng, count, width), rng.integers(0, classes, count)


def test_sgd_is_torchs_with_dassls_schedule() -> None:
    import torch
    import torch.nn.functional as F

    images, labels = data(22)
    recipe = Recipe(epochs=5, batch_size=6, learning_rate=0.4, weight_decay=0.05, warmup_learning_rate=0.03)
    start = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    found, losses = fit(linear, recipe, {"context": start}, {"bias": bias}, images, labels, seed=3)

    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([theirs], lr=0.4, momentum=0.9, weight_decay=0.05)
    order = batches(22, recipe, 3)
    assert order.shape == (5, 3, 6), "a short last batch is left out"
    for epoch in range(5):
        # Dassl: the first epoch at a constant rate, then half a cosine that starts to count after it
        optimizer.param_groups[0]["lr"] = 0.03 if epoch == 0 else 0.2 * (1 + math.cos(math.pi * (epoch - 1) / 5))
        for step in range(3):
            chosen = order[epoch, step]
            loss = F.cross_entropy(3 * torch.tensor(images[chosen]) @ theirs + torch.tensor(bias), torch.tensor(labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert abs(loss.item() - losses[epoch, step]) <= 1e-5
    assert np.abs(found["context"] - theirs.detach().numpy()).max() <= 1e-5
    assert np.abs(found["context"] - start).max() > 0.1


def test_keys_are_tuned_as_in_torch() -> None:
    """Tip-Adapter-F: AdamW with eps 1e-4, the rate down to 0 over all steps, a short last batch used."""
    import torch
    import torch.nn.functional as F

    images, labels = data(11)
    text = unit_rows(np.random.default_rng(2), 4, 8)
    recipe = Recipe(epochs=4, batch_size=4, learning_rate=0.01, optimizer="adamw", weight_decay=0.01)
    frozen = {"text": text, "scale": np.float32(9.0), "key_labels": labels.astype(np.int32)}
    found, losses = fit(KeysLoss(1.3, 2.0), recipe, {"keys": images}, frozen, images, labels, seed=5)

    adapter = torch.nn.Parameter(torch.tensor(images))
    optimizer = torch.optim.AdamW([adapter], lr=0.01, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 3)
    values = F.one_hot(torch.tensor(labels), 4).float()
    order = batches(11, recipe, 5)
    assert order.shape == (4, 3, 4) and (order < 0).sum() == 4
    for epoch in range(4):
        assert sorted(order[epoch][order[epoch] >= 0]) == list(range(11))
        for step in range(3):
            chosen = order[epoch, step][order[epoch, step] >= 0]
            rows = torch.tensor(images[chosen])
            cached = (-2.0 * (1 - rows @ adapter.T)).exp() @ values
            loss = F.cross_entropy(9 * rows @ torch.tensor(text).T + 1.3 * cached, torch.tensor(labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            assert abs(loss.item() - losses[epoch, step]) <= 1e-5
    assert np.abs(found["keys"] - adapter.detach().numpy()).max() <= 1e-5
    assert np.abs(found["keys"] - images).max() > 0.02


def test_the_seed_is_all_that_draws() -> None:
    recipe = Recipe(epochs=3, batch_size=4)
    assert np.array_equal(batches(10, recipe, 0), batches(10, recipe, 0))
    assert not np.array_equal(batches(10, recipe, 0), batches(10, recipe, 1))
    assert not np.array_equal(batches(10, recipe, 0)[0], batches(10, recipe, 0)[1])
    assert batches(3, recipe, 0).shape == (3, 1, 3), "fewer images than a batch are one batch"


def test_a_training_that_diverges_is_said() -> None:
    images, labels = data(8)
    recipe = Recipe(epochs=30, batch_size=4, learning_rate=1e30)
    with pytest.raises(UserError, match="learning_rate = 1e\\+30: training diverged"):
        fit(linear, recipe, {"context": np.ones((8, 4))}, {"bias": np.zeros(4, np.float32)}, images, labels, 0)
    with pytest.raises(UserError, match="epochs = 0"):
        Recipe(epochs=0)


def test_seeds_share_one_program() -> None:
    """A table has many trainings of one shape: only the first is compiled."""
    images, labels = data(8)
    recipe = Recipe(epochs=2, batch_size=4)
    hash((MODEL, recipe))  # what programs are kept under
    count = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: count.append(name))
    for seed in range(3):
        before = sum("backend_compile" in name for name in count)
        fit(linear, recipe, {"context": np.ones((8, 4))}, {"bias": np.zeros(4, np.float32)}, images, labels, seed)
        compiled = sum("backend_compile" in name for name in count) - before
    assert compiled == 0
