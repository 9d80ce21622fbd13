"""The fine-tuned tower: the same however the batch is split, equal to a plain gradient, and it learns."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.tiny_labels import TinyCandidate, coloured, labelled, part_of, task, unit

from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.probe._image_tower import Tower, decoded
from biomedclip_jax.evaluation.probe._search import Found
from biomedclip_jax.evaluation.probe.finetune import FineTune, Images, tune
from biomedclip_jax.evaluation.probe.sampling import Budget

TEXT = unit(np.random.default_rng(3).normal(size=(3, 16)))
PAIR = (0.02, 1e-2)


@pytest.fixture(scope="module")
def candidate() -> TinyCandidate:
    return TinyCandidate()


def images_of(candidate: TinyCandidate, count: int, seed: int) -> Images:
    images, labels = coloured(count, seed)
    data = labelled(images, labels)
    return Images(decoded(data.images, data.names, candidate.clip.processor.config), np.arange(count), labels)


def test_decoded_pixels_are_those_of_the_processor(candidate: TinyCandidate) -> None:
    images, _ = coloured(5, 0)
    config = candidate.clip.processor.config
    pixels = decoded(images, [str(i) for i in range(5)], config)
    assert pixels.dtype == np.uint8 and pixels.shape == (5, 16, 16, 3)
    normalised = (np.float32(pixels) / 255 - np.float32(config.mean)) / np.float32(config.std)
    np.testing.assert_allclose(normalised, candidate.clip.processor.images(images), atol=1e-6)
    tower = Tower(candidate.clip)
    ours = tower.features(tower.start(TEXT), pixels, np.arange(5))
    np.testing.assert_allclose(ours, candidate.clip.encode_images(images, normalize=False), atol=1e-5)


def test_an_image_that_cannot_be_read(candidate: TinyCandidate) -> None:
    with pytest.raises(UserError, match=r"gone\.png"):
        decoded(["gone.png"], ["gone.png"], candidate.clip.processor.config)


def trained(candidate: TinyCandidate, **ways: Any) -> dict[str, np.ndarray]:
    """Parameters, statistics and losses after 3 epochs of 70 images: a whole batch of 64 and one of 6."""
    tuned = tune(Tower(candidate.clip, **ways), images_of(candidate, 70, 0), None, TEXT, PAIR, epochs=3, seed=1)
    leaves = flatten_dict({"params": tuned.state.params, "statistics": tuned.state.statistics}, sep="/")
    return {name: np.asarray(x) for name, x in leaves.items()} | {"losses": tuned.losses}


def test_the_split_changes_nothing(candidate: TinyCandidate) -> None:
    """One device with all at once; eight with 8 rows each, in parts of 3, which do not divide 8."""
    whole, split = trained(candidate, devices=jax.devices()[:1]), trained(candidate, microbatch=3)
    assert whole.keys() == split.keys()
    for name, leaf in whole.items():
        np.testing.assert_allclose(split[name], leaf, atol=1e-5, err_msg=name)


def test_a_step_is_a_plain_gradient(candidate: TinyCandidate) -> None:
    """One update against `jax.grad` of the loss written down in one place, momentum and decay included (two steps)."""
    images = images_of(candidate, 20, 2)
    clip = candidate.clip
    config = clip.processor.config
    x = (images.pixels.astype(np.float32) / 255 - np.float32(config.mean)) / np.float32(config.std)
    graph, _ = nnx.split(clip.model)
    flat = flatten_dict(clip.params, sep="/")

    def loss(params: dict[str, Any]) -> jax.Array:
        model = nnx.merge(graph, unflatten_dict(flat | params["tower"], sep="/"))
        features = model.image_features(jnp.asarray(x))
        normed = (features - features.mean(0)) / jnp.sqrt(features.var(0) + 1e-5)
        logits = normed @ params["kernel"] + params["bias"]
        return -jax.nn.log_softmax(logits)[jnp.arange(20), images.labels].mean()

    params = {
        "tower": {path: jnp.asarray(leaf) for path, leaf in flat.items() if path.startswith("image")},
        "kernel": jnp.asarray(TEXT.T),
        "bias": jnp.zeros(3),
    }
    velocity = jax.tree.map(jnp.zeros_like, params)
    gradient = jax.jit(jax.value_and_grad(loss))
    tower = Tower(clip)
    state = tower.start(TEXT)
    for _ in range(2):
        expected, slopes = gradient(params)
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + PAIR[1] * p, velocity, slopes, params)
        params = jax.tree.map(lambda p, v: p - PAIR[0] * v, params, velocity)
        state, found = tower.step(state, images.pixels, images.labels, np.ones(20, np.float32), *PAIR)
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
    ours = state.params["tower"] | state.params["linear"]
    for name, leaf in (params.pop("tower") | params).items():
        np.testing.assert_allclose(ours[name], leaf, atol=1e-5, err_msg=name)


def test_it_learns_and_leaves_the_model_alone(candidate: TinyCandidate) -> None:
    before = jax.tree.map(np.array, candidate.clip.params)
    test = images_of(candidate, 60, 9)
    run = partial(tune, Tower(candidate.clip), images_of(candidate, 60, 0), test, TEXT)
    tuned = run((0.02, 1e-6), epochs=15, seed=0)
    assert tuned.losses[-5:].mean() < 0.5 * tuned.losses[0]
    assert tuned.accuracies[-1] > 0.8 and tuned.best is not None
    assert (tuned.best.argmax(1) == test.labels).mean() == pytest.approx(tuned.accuracies.max())
    jax.tree.map(np.testing.assert_array_equal, before, candidate.clip.params)
    failed = run((1e3, 1e3), epochs=4, seed=0)
    assert failed.accuracies[-1] == 0 and len(failed.losses) < 4


def test_the_method(candidate: TinyCandidate, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its small search: better than zero-shot; the one image of a one-shot task that validates is decoded, too."""
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.finetune.EPOCHS", 6)
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.finetune.SEARCH_EPOCHS", 2)
    (images, labels), (others, truth) = coloured(45, 0), coloured(60, 5)
    known, test = (part_of(np.ones((len(y), 16)), y, x) for x, y in ((images, labels), (others, truth)))
    predicted = FineTune()(task(known, test, Budget(shots=15), TEXT, candidate))
    assert (predicted.probabilities.argmax(1) == truth).mean() > 0.6
    assert predicted.settings["tried"] == 8 and predicted.settings["learning_rate"] > 1e-4
    fixed = FineTune(search="none", learning_rate=0.01)
    one = fixed(task(known, test, Budget(shots=1), TEXT, candidate))
    assert one.probabilities.shape == (60, 3) and one.settings["learning_rate"] == 0.01
    decoded_once = fixed._pixels.copy()
    fixed(task(known, test, Budget(shots=1), TEXT, candidate, seed=1))
    assert all(fixed._pixels[key] is pixels for key, pixels in decoded_once.items())
    wild = dataclasses.replace(fixed, learning_rate=1e3, weight_decay=1e3)
    with pytest.raises(UserError, match="tiny diverged with learning rate 1000 and weight decay 1000"):
        wild(task(known, test, Budget(shots=1), TEXT, candidate))


def test_a_tower_that_loses_what_the_search_found_is_trained_as_long_as_the_search(
    candidate: TinyCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight decay that leaves nothing of the tower in the long training, and much in the two epochs of the search."""
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.finetune.EPOCHS", 40)
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.finetune.SEARCH_EPOCHS", 2)
    found = Found(0.02, 3.0, 1.0, 8)
    monkeypatch.setattr("biomedclip_jax.evaluation.probe.finetune.small_search", lambda score: found)
    (images, labels), (others, truth) = coloured(45, 0), coloured(30, 5)
    known, test = (part_of(np.ones((len(y), 16)), y, x) for x, y in ((images, labels), (others, truth)))
    predicted = FineTune()(task(known, test, Budget(shots=15), TEXT, candidate))
    assert predicted.settings["epochs"] == 2 and np.isfinite(predicted.logits).all()
    assert predicted.caveats[0].startswith("trained for 2 epochs, as in the search: after 40 epochs")
