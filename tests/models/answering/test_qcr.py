"""QCR against PyTorch: scores, loss and gradients; and that an example depends on nothing beside it."""

import copy
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
from helpers.qcr_reference import Reference, ours
from helpers.tiny import MODEL

from biomedclip_jax.config import CLIPConfig, QCRConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.models.answering.qcr.model import QCR

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
    rng = np.random.default_rng(0)
    shapes = abstract_model(config)[1]
    params = jax.tree.map(lambda x: (0.2 * rng.normal(size=x.shape)).astype(np.float32), shapes)
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


def _qcr(params: dict[str, Any], answering: QCRConfig = ANSWERING) -> QCR:
    found = _clip(params, dataclasses.replace(CONFIG, answering=answering)).answering
    assert isinstance(found, QCR)
    return found


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


def _drawn(config: CLIPConfig, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.abs(0.3 * rng.normal(size=x.shape)).astype(np.float32), abstract_model(config)[1])


def _keys(rows: int) -> Any:
    return jax.random.split(jax.random.key(3, impl="threefry2x32"), rows)


def test_an_example_depends_on_nothing_beside_it(pair: tuple[Reference, dict[str, Any]], terms: Any, scores: Any) -> None:
    """Not on its row, nor on the size of the batch, which may be 1; with dropout neither, which its key alone decides."""
    _, params = pair
    images, keys, turned = _images(4), _keys(4), np.array([2, 0, 3, 1])
    whole = np.array(terms(params, images, TOKENS, LABELS, keys))
    moved = terms(params, images[turned], TOKENS[turned], LABELS[turned], keys[turned])
    np.testing.assert_allclose(moved, whole[turned], atol=1e-6)
    one = slice(1, 2)
    np.testing.assert_allclose(terms(params, images[one], TOKENS[one], LABELS[one], keys[one]), whole[one], atol=1e-6)
    np.testing.assert_allclose(
        scores(params, images[one], TOKENS[one]), np.array(scores(params, images, TOKENS))[one], atol=1e-6
    )
    others = np.array(terms(params, images, TOKENS, LABELS, keys[turned]))
    assert (others[:, :2] != whole[:, :2]).all() and np.allclose(others[:, 2], whole[:, 2])  # no dropout in the auto-encoder


def test_the_type_classifier_learns_from_its_own_loss_alone(pair: tuple[Reference, dict[str, Any]]) -> None:
    reference, params = pair
    is_open = torch.tensor([0, 1, 1, 0])
    expected = F.cross_entropy(reference.types(torch.from_numpy(TOKENS).long()), is_open, reduction="none")
    expected.sum().backward()
    gradients = ours({f"types.{name}": x.grad.numpy() for name, x in reference.types.named_parameters() if x.grad is not None})
    reference.zero_grad()

    def loss(params: dict[str, Any]) -> tuple[Any, Any]:
        found = _qcr(params).type_terms(TOKENS, LABELS, None)
        return found.sum(), found

    (_, found), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(found[:, 0], expected.detach(), atol=1e-5)
    own: dict[str, Any] = flatten_dict(tree, sep="/")
    for name, x in own.items():
        path = name.removeprefix("answering/")
        np.testing.assert_allclose(x, gradients.get(path, 0), atol=1e-4, err_msg=name)
    assert len(gradients) == 17
    dropping = _qcr(params).type_terms(TOKENS, LABELS, _keys(4))
    assert not np.allclose(dropping, found)


def test_a_question_without_a_right_answer_is_in_no_branchs_loss(pair: tuple[Reference, dict[str, Any]]) -> None:
    """Its type is not known. An answer that occurs as both types stands twice, and tells the type."""
    qcr = _qcr(pair[1])
    labels = LABELS.at[0].set(False)
    np.testing.assert_array_equal(qcr.counted(labels)[0], [False, False, True])
    np.testing.assert_array_equal(qcr.type_counted(labels)[:, 0], [False, True, True, True])
    left = jnp.eye(5, dtype=bool)[jnp.array([2, 4])]
    np.testing.assert_array_equal(qcr.counted(left), [[True, False, True], [False, True, True]])


def test_parts_are_there_only_where_they_are_asked_for() -> None:
    """Without auto-encoder two terms; with answers of one type alone, that type for every question."""
    answers = (*ANSWERING.answers[:4], "right")
    answering = dataclasses.replace(ANSWERING, answers=answers, vision=("clip",), closed_answers=0)
    config = dataclasses.replace(CONFIG, answering=answering)
    params = _drawn(config)
    assert sorted(params["answering"]) == ["closed", "modulation", "open", "question", "types"]
    clip = _clip(params, config)
    qcr: Any = clip.answering
    labels = LABELS[:2]

    def loss(params: dict[str, Any]) -> tuple[Any, Any]:
        clip = _clip(params, config)
        found = clip.answering.terms(clip, _images(2), TOKENS[:2], labels, None)
        return found[:, 1].sum(), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert found.shape == (2, 2) and np.isfinite(found).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(qcr.counted(labels), [[False, True]] * 2)
    assert not qcr.predicted_closed(TOKENS).any()
    everything = dataclasses.replace(answering, closed_answers=5)
    assert _qcr(_drawn(dataclasses.replace(CONFIG, answering=everything)), everything).predicted_closed(TOKENS).all()


def test_pubmedclips_dropout_in_evaluation_is_the_same_for_the_same_question(pair: tuple[Reference, dict[str, Any]]) -> None:
    _, params = pair
    dropping = dataclasses.replace(ANSWERING, drops_in_evaluation=True)
    qcr, plain = _qcr(params, dropping), _qcr(params)
    seen = jnp.ones((4, 144))
    both = qcr._branches(seen, TOKENS, None), plain._branches(seen, TOKENS, None)
    assert not np.allclose(both[0][0], both[1][0]) and not np.allclose(both[0][1], both[1][1])
    again = qcr._branches(seen[:1], TOKENS[2:3], None)
    np.testing.assert_allclose(again[0], both[0][0][2:3], atol=1e-6)
    kinds = qcr.types(jnp.array(TOKENS), qcr._always(TOKENS, 4)), plain.types(jnp.array(TOKENS), None)
    assert not np.allclose(*kinds)


def test_measured_statistics_are_those_of_batch_normalisation_in_training(pair: tuple[Reference, dict[str, Any]]) -> None:
    reference, params = pair
    images = _images(4)
    found = jax.jit(lambda params: _qcr(params).maml_statistics(images))(params)
    own: dict[str, Any] = flatten_dict(params["answering"]["maml"], sep="/") | flatten_dict(found, sep="/")
    measured = params | {"answering": params["answering"] | {"maml": unflatten_dict(own, sep="/")}}
    pixels = reference._gray(images, 84)
    assert reference.maml is not None
    again = copy.deepcopy(reference.maml).train()
    with torch.no_grad():
        expected = again(pixels)
    np.testing.assert_allclose(_qcr(measured).maml(jnp.array(pixels.permute(0, 2, 3, 1).numpy())), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": ("yes", "no", "yes"), "closed_answers": 3}, r"^QCRConfig\.answers: 'yes' is there more than once"),
        ({"answers": ("no", "yes", "yes"), "closed_answers": 1}, r"^QCRConfig\.answers: 'yes' is there more than once"),
        ({"words": ("is", "is")}, r"^QCRConfig\.words: 'is' is there more than once: expected each word once$"),
        ({"words": "is"}, r"^QCRConfig\.words = 'is': expected a tuple of texts"),
        ({"closed_answers": 6}, r"^QCRConfig\.closed_answers = 6: expected from 0 to the number of answers, 5$"),
        ({"vision": ()}, r"^QCRConfig\.vision = \(\): expected one or more of clip, maml, autoencoder"),
        ({"vision": ("clip", "clip")}, r"^QCRConfig\.vision = .*none of them twice$"),
        ({"glimpses": 33}, r"^QCRConfig\.glimpses = 33: expected at most 32$"),
        ({"width": 24}, r"^QCRConfig\.width = 24: expected a multiple of 16$"),
        ({"dropout": 1.0}, r"^QCRConfig\.dropout = 1\.0: expected at least 0 and below 1$"),
        ({"std": (0.0, 1.0, 1.0)}, r"^QCRConfig\.std = .*expected numbers above 0$"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ANSWERING, **changes)
