"""QCR against PyTorch: scores, loss and gradients; and that an example depends on nothing beside it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import CLIPConfig, QCRConfig
from biomedclip_jax.models import CLIP, abstract_model, init_params
from tests.helpers.qcr_reference import Reference, ours
from tests.helpers.tiny import MODEL

ANSWERING = QCRConfig(
    answers=("yes", "no", "left", "liver", "left"),
    closed_answers=3,
    words=tuple("abcdefgh"),
    question_length=6,
    word_width=8,
    width=32,
    vision=("clip", "maml", "autoencoder"),
)
CONFIG = dataclasses.replace(MODEL, answering=ANSWERING)
TOKENS = np.array([[0, 1, 2, 8, 8, 8], [3, 4, 5, 6, 7, 0], [1, 1, 8, 8, 8, 8], [7, 5, 2, 1, 8, 8]], np.int32)
LABELS = jnp.eye(5, dtype=bool)[jnp.array([0, 4, 3, 1])]


def _images(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 16, 16, 3)).astype(np.float32)


def _reference(config: CLIPConfig) -> tuple[Reference, dict[str, Any]]:
    """A PyTorch model of random weights, and the parameters of ours that has the same."""
    torch.manual_seed(0)
    assert isinstance(config.answering, QCRConfig)
    reference = Reference(config.answering, config.embed_width)
    torch.nn.init.constant_(reference.types.fc2.bias, 1.0)  # so that its few hidden units are not all off
    params = init_params(config, 0)
    own = ours({name: x.numpy() for name, x in reference.state_dict().items()})
    drawn: dict[str, Any] = flatten_dict(params["answering"], sep="/")
    assert {name: x.shape for name, x in own.items()} == {name: x.shape for name, x in drawn.items()}
    return reference, params | {"answering": unflatten_dict({name: jnp.array(x) for name, x in own.items()}, sep="/")}


@pytest.fixture(scope="module")
def pair() -> tuple[Reference, dict[str, Any]]:
    return _reference(CONFIG)


def _clip(params: dict[str, Any], config: CLIPConfig = CONFIG) -> CLIP:
    return nnx.merge(abstract_model(config)[0], params)


def _with(params: dict[str, Any], path: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The parameters with one of QCR's changed."""
    own: dict[str, Any] = flatten_dict(params["answering"], sep="/")
    return params | {"answering": unflatten_dict(own | {path: change(own[path])}, sep="/")}


@pytest.fixture(scope="module")
def scores() -> Any:
    return jax.jit(lambda params, images, tokens: _clip(params).answering.scores(_clip(params), images, tokens))


@pytest.fixture(scope="module")
def terms() -> Any:
    return jax.jit(lambda params, *given: _clip(params).answering.terms(_clip(params), *given))


def test_loss_and_gradients_are_pytorchs(pair: tuple[Reference, dict[str, Any]]) -> None:
    reference, params = pair
    images = _images(4)
    closed, open_, error = reference(images, TOKENS, _clip(params).image_features(images))
    right = torch.tensor(np.array(LABELS)).float()
    theirs = [
        F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        for logits, target in ((closed, right[:, :3]), (open_, right[:, 3:]))
    ]
    expected = torch.stack([*theirs, 0.001 * error], 1)
    counted = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 1], [1, 0, 1]], bool)
    np.testing.assert_array_equal(_clip(params).answering.counted(LABELS), counted)
    (expected * torch.from_numpy(counted)).sum().backward()
    gradients = {name: x.grad.numpy() for name, x in reference.named_parameters() if x.grad is not None}
    reference.zero_grad()

    def loss(params: dict[str, Any]) -> tuple[Any, Any]:
        clip = _clip(params)
        found = clip.answering.terms(clip, images, TOKENS, LABELS, None)
        return (found * counted).sum(), found

    (_, found), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
    own: dict[str, Any] = flatten_dict(tree, sep="/")
    named = {f"answering/{name}": x for name, x in ours(gradients).items()}
    assert not any(name.startswith("answering/types/") for name in named)  # the reference's loss does not use them
    for name, x in named.items():
        np.testing.assert_allclose(own[name], x, atol=1e-4, err_msg=name)
        assert np.abs(x).max() > 0 or x.size == 0, name
    still = ("answering/types/", "answering/maml/norm", "text", "logit_scale")
    for name in own.keys() - named.keys():  # CLIP's image tower learns; the type classifier and the statistics do not
        assert bool(np.abs(own[name]).max() > 0) != name.startswith(still), name


def test_scores_are_those_of_the_predicted_type(pair: tuple[Reference, dict[str, Any]], scores: Any) -> None:
    reference, params = pair
    images = _images(4)
    with torch.no_grad():
        closed, open_, _ = reference(images, TOKENS, _clip(params).image_features(images))
        kinds = reference.types(torch.from_numpy(TOKENS).long()).numpy()
    apart = kinds[:, 1] - kinds[:, 0]
    middle = np.sort(apart)[1:3].mean()  # added to the logit of closed, it makes two questions closed and two open
    found = np.array(scores(_with(params, "types/fc3/bias", lambda x: x + jnp.array([middle, 0.0])), images, TOKENS))
    is_closed = (apart < middle)[:, None]
    assert is_closed.sum() == 2
    expected = np.concatenate([np.where(is_closed, closed, -np.inf), np.where(is_closed, -np.inf, open_)], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
