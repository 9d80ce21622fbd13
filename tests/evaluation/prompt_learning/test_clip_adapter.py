"""CLIP-Adapter against PyTorch: first weights, loss and gradient of a batch, and the logits of a whole training."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from helpers.few_shot_task import make_candidate, make_task
from helpers.prompt_reference import unit_rows

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe.methods import FewShot, Part
from biomedclip_jax.evaluation.prompt_learning import ClipAdapter, Recipe
from biomedclip_jax.evaluation.prompt_learning.clip_adapter import AdapterLoss, initial_adapter
from biomedclip_jax.evaluation.prompt_learning.training import batches


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> FewShot:
    """Features of any length, as an image tower makes them; text weights that tell classes apart, not well."""
    made = make_task(make_candidate(tmp_path_factory.mktemp("model")))
    rng = np.random.default_rng(7)
    means = np.stack([made.test.unit[made.test.labels == i].mean(axis=0) for i in range(4)])
    text = means + rng.normal(size=means.shape)
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)

    def stretched(part: Part) -> Part:
        lengths = rng.uniform(2, 12, (len(part), 1)).astype(np.float32)
        return dataclasses.replace(part, features=part.unit * lengths)

    return dataclasses.replace(made, text=text, given=stretched(made.given), test=stretched(made.test))


def torch_adapter(arrays: dict[str, np.ndarray]) -> Any:
    import torch

    width, hidden = arrays["down"].shape
    layers = torch.nn.Linear(width, hidden, bias=False), torch.nn.Linear(hidden, width, bias=False)
    for layer, name in zip(layers, ("down", "up"), strict=True):
        layer.weight.data = torch.tensor(arrays[name].T)
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU())


def torch_logits(adapter: Any, features: np.ndarray, text: np.ndarray, scale: float, ratio: float) -> Any:
    import torch

    old = torch.tensor(features)
    new = ratio * adapter(old) + (1 - ratio) * old
    return scale * (new / new.norm(dim=-1, keepdim=True)) @ torch.tensor(text).T


def agree(found: Any, expected: Any, bound: float = 1e-5) -> None:
    expected = expected.detach().numpy()
    assert np.abs(np.asarray(found) - expected).max() <= bound * max(1, np.abs(expected).max())


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0])
def test_loss_and_gradient(ratio: float) -> None:
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(0)
    features, labels = 5 * rng.normal(size=(6, 32)).astype(np.float32), rng.integers(0, 4, 6)
    text, arrays = unit_rows(rng, 4, 32), initial_adapter(32, rng)
    frozen, weights = {"text": text, "scale": np.float32(14.0)}, np.ones(6, np.float32)
    step = jax.jit(jax.value_and_grad(AdapterLoss(ratio)))
    loss, gradient = step(arrays, frozen, features, labels, weights)
    adapter = torch_adapter(arrays)
    expected = F.cross_entropy(torch_logits(adapter, features, text, 14.0, ratio), torch.tensor(labels))
    expected.backward()
    agree(loss, expected)
    for name, layer in (("down", adapter[0]), ("up", adapter[2])):
        theirs = layer.weight.grad.T.numpy()
        assert np.abs(np.asarray(gradient[name]) - theirs).max() <= 1e-4 * np.abs(theirs).max()
    weights[4:] = 0
    filled = jax.jit(AdapterLoss(ratio))(arrays, frozen, features, labels, weights)
    assert abs(filled - AdapterLoss(ratio)(arrays, frozen, features[:4], labels[:4], weights[:4])) <= 1e-5


def test_it_is_trained_as_in_torch(task: FewShot) -> None:
    import torch
    import torch.nn.functional as F

    recipe = Recipe(epochs=6, batch_size=8, learning_rate=0.05)
    prediction = ClipAdapter(ratio=0.4, recipe=recipe)(task)
    scale = task.candidate.clip.logit_scale
    arrays = initial_adapter(32, np.random.default_rng([task.seed, 1]))
    adapter = torch_adapter(arrays)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch, steps in enumerate(batches(len(task.given), recipe, task.seed)):
        optimizer.param_groups[0]["lr"] = 1e-5 if epoch == 0 else 0.025 * (1 + math.cos(math.pi * (epoch - 1) / 6))
        for rows in steps:
            logits = torch_logits(adapter, task.given.features[rows], task.text, scale, 0.4)
            optimizer.zero_grad()
            F.cross_entropy(logits, torch.tensor(task.given.labels[rows])).backward()
            optimizer.step()
    agree(prediction.logits, torch_logits(adapter, task.test.features, task.text, scale, 0.4), 1e-5)
    untrained = torch_logits(torch_adapter(arrays), task.test.features, task.text, scale, 0.4)
    assert np.abs(prediction.logits - untrained.detach().numpy()).max() > 0.05, "training has to make a difference here"


def test_it_learns_and_says_how(task: FewShot) -> None:
    method = ClipAdapter(ratio=0.5, recipe=Recipe(epochs=60, batch_size=8, learning_rate=0.05))
    prediction = method(task)
    zero_shot = ((task.test.unit @ task.text.T).argmax(axis=1) == task.test.labels).mean()
    assert (prediction.logits.argmax(axis=1) == task.test.labels).mean() > zero_shot + 0.1
    assert prediction.logits.dtype == np.float64 and np.array_equal(prediction.logits, method(task).logits)
    said = {"ratio": 0.5, "epochs": 60, "batch_size": 8, "learning_rate": 0.05, "selection": "last_epoch"}
    assert prediction.settings.items() >= said.items() and prediction.prompts is None


def test_the_published_recipe(task: FewShot) -> None:
    method = ClipAdapter()
    assert (method.name, method.ratio) == ("clip-adapter", 0.2)
    few = dataclasses.replace(task, given=task.given.subset(np.arange(4)))
    published = {"epochs": 50, "batch_size": 32, "learning_rate": 2e-3}
    assert method(few).settings.items() >= published.items()
    for ratio in (0, 1.5, float("nan")):
        with pytest.raises(UserError, match="clip-adapter: ratio"):
            ClipAdapter(ratio=ratio)


def test_first_weights_are_drawn_as_in_torch() -> None:
    arrays = initial_adapter(512, np.random.default_rng(0))
    assert (arrays["down"].shape, arrays["up"].shape) == ((512, 128), (128, 512))
    for name, inputs in (("down", 512), ("up", 128)):
        assert np.abs(arrays[name]).max() <= inputs**-0.5
        assert arrays[name].std() == pytest.approx((3 * inputs) ** -0.5, rel=0.02)
