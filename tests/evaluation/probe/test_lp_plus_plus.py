"""LP++ and LP+text against PyTorch, written out as a loop: every update, the epoch that is kept, the whole logits."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate, make_task

from biomedclip_jax.evaluation.probe.lp_plus_plus import LPPlusPlus, LPText, first_probe
from biomedclip_jax.evaluation.probe.methods import FewShot, Part


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> FewShot:
    """Hard enough that the best epoch is neither the first nor the last; text weights that know something."""
    made = make_task(make_candidate(tmp_path_factory.mktemp("model")), shots=7, noise=1.6)
    means = np.stack([made.test.unit[made.test.labels == i].mean(axis=0) for i in range(4)])
    text = means + 0.1 * np.random.default_rng(5).normal(size=means.shape)
    return dataclasses.replace(made, text=(text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32))


def torch_probe(method: LPPlusPlus, part: Part, text: Any, epochs: int, seed: int) -> Any:
    """A generator of (logits of images, alpha) after each epoch: full batches, the gradient of alpha never set to 0."""
    import torch
    import torch.nn.functional as F

    features, labels, text = torch.tensor(part.unit), torch.tensor(part.labels), torch.tensor(text)
    count, classes = len(part), len(text)
    counts = torch.bincount(labels, minlength=classes)
    own = [(features[labels == k] @ text[k]).mean() for k in range(classes) if counts[k]]
    alpha = (250 * torch.stack(own).mean() * torch.ones(1, classes)).requires_grad_()
    linear = torch.nn.Linear(features.shape[1], classes)
    linear.weight.data = torch.stack([features[labels == k].sum(dim=0) for k in range(classes)])
    linear.bias.data = torch.tensor(np.asarray(first_probe(part, text.numpy(), seed).bias))
    assert linear.bias.abs().max() <= features.shape[1] ** -0.5 and linear.bias.abs().max() > 0
    if isinstance(method, LPText):
        rate = 5 * math.log(count / classes + 1)
    else:
        rate = (4 * count / torch.linalg.eigvalsh(features.T @ features).max()).item()
    rate_of_alpha = count / (4 * ((features @ text.T) ** 2).sum(dim=0).max())
    optimizer = torch.optim.SGD(linear.parameters(), rate, momentum=0.9)
    for epoch in range(epochs):
        loss = F.cross_entropy(linear(features) + torch.ones(count, 1) @ alpha * (features @ text.T), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (epoch + 1) % 10 == 0:
            alpha.data -= rate_of_alpha * alpha.grad.data

        def logits(images: np.ndarray) -> Any:
            rows = torch.tensor(images)
            return (linear(rows) + torch.ones(len(rows), 1) @ alpha * (rows @ text.T)).detach().numpy()

        yield logits, alpha.detach().numpy()[0]


def kept_epoch(method: LPPlusPlus, task: FewShot) -> int:
    """The best epoch on the validation images, counted from 1, of equals the last; of a training on `task.train`."""
    best, kept = -1.0, 0
    for epoch, (logits, _) in enumerate(torch_probe(method, task.train, task.text, method.epochs, task.seed)):
        accuracy = (logits(task.validation.unit).argmax(axis=1) == task.validation.labels).mean()
        if accuracy >= best:
            best, kept = accuracy, epoch + 1
    return kept


@pytest.mark.parametrize("method", [LPPlusPlus(), LPText()], ids=lambda method: method.name)
def test_it_is_trained_as_in_torch(method: LPPlusPlus, task: FewShot) -> None:
    prediction = method(task)
    epochs = kept_epoch(method, task)
    assert epochs > 1, "more than one epoch has to be needed here"
    assert (prediction.settings["epochs"], prediction.settings["selection"]) == (epochs, "validation")
    *_, (logits, alpha) = torch_probe(method, task.given, task.text, epochs, task.seed)
    expected = logits(task.test.unit)
    assert np.abs(prediction.logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(np.array(prediction.settings["alpha"]) - alpha).max() <= 1e-4 * np.abs(alpha).max()
    assert np.array_equal(prediction.logits, method(task).logits) and prediction.logits.dtype == np.float64
    zero_shot = ((task.test.unit @ task.text.T).argmax(axis=1) == task.test.labels).mean()
    assert (prediction.logits.argmax(axis=1) == task.test.labels).mean() >= zero_shot - 0.1
    assert not prediction.caveats and prediction.settings["first_alpha"] > 0


@pytest.mark.parametrize("method", [LPPlusPlus(epochs=60), LPText(epochs=60)], ids=lambda method: method.name)
def test_the_blending_weights_move(method: LPPlusPlus, task: FewShot) -> None:
    """Without validation all epochs count; the last of 60 moves alpha the sixth time."""
    alone = dataclasses.replace(task, validation=task.validation.subset(np.zeros(0, int)))
    prediction = method(alone)
    assert (prediction.settings["epochs"], prediction.settings["selection"]) == (60, "last_epoch")
    *_, (logits, alpha) = torch_probe(method, task.given, task.text, 60, task.seed)
    assert np.abs(np.array(prediction.settings["alpha"]) - alpha).max() <= 1e-4 * np.abs(alpha).max()
    assert np.abs(alpha - prediction.settings["first_alpha"]).max() > 0.5
    expected = logits(task.test.unit)
    assert np.abs(prediction.logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_class_without_images_and_text_that_points_away(task: FewShot) -> None:
    """Neither gives anything that is not a number; text weights that start below 0 are said."""
    few = task.given.subset(np.flatnonzero(task.given.labels != 2))
    none = task.validation.subset(np.zeros(0, int))
    found = LPPlusPlus()(dataclasses.replace(task, given=few, train=few, validation=none))
    assert np.isfinite(found.logits).all() and found.logits.shape == (40, 4)
    away = LPPlusPlus()(dataclasses.replace(task, text=-task.text))
    assert np.isfinite(away.logits).all() and "the zero-shot weights count -" in away.caveats[0]


def test_the_published_recipes() -> None:
    assert (LPPlusPlus().name, LPPlusPlus().epochs) == ("lp++", 300)
    assert (LPText().name, LPText().epochs) == ("lp+text", 200)
