"""Shapes in signatures are checked in every test: wrong ones are caught here, so the checks are on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import tiny
from jaxtyping import TypeCheckError

from biomedclip_jax.config import Classification, Softmax
from biomedclip_jax.evaluation._metrics import confusion_counts
from biomedclip_jax.evaluation.retrieval._ranks import ranks
from biomedclip_jax.losses import class_loss, pair_loss
from biomedclip_jax.models import abstract_model, init_params, logits, unit_length


def test_a_wrong_shape_is_caught() -> None:
    image, text = jnp.ones((3, 8)), jnp.ones((4, 8))
    assert logits(image, text, jnp.float32(0)).shape == (3, 4)
    with pytest.raises(TypeCheckError, match=r"B E|C E"):
        logits(image, text.T, jnp.float32(0))
    with pytest.raises(TypeCheckError):
        unit_length(jnp.ones((3, 8), jnp.int32))


def test_it_is_caught_inside_a_compiled_function_and_a_module() -> None:
    graph, _ = abstract_model(tiny.MODEL)
    params, batch = init_params(tiny.MODEL, 0), tiny.batch(4)

    def encode(params: dict, tokens: jax.Array, keys: jax.Array) -> jax.Array:
        return nnx.merge(graph, params).encode_text(tokens, keys)

    keys = jax.random.split(jax.random.key(0), 4)
    assert jax.eval_shape(encode, params, batch["tokens"], keys).shape[0] == 4
    with pytest.raises(TypeCheckError):
        jax.eval_shape(encode, params, batch["tokens"], keys[:3])
    with pytest.raises(TypeCheckError):
        jax.eval_shape(encode, params, batch["tokens"].astype(np.float32), keys)


def test_it_is_caught_in_losses() -> None:
    numbers = {"logit_scale": jnp.float32(0)}
    assert pair_loss(Softmax(), jnp.ones((3, 8)), jnp.ones((3, 8)), numbers).shape == ()
    with pytest.raises(TypeCheckError):
        pair_loss(Softmax(), jnp.ones((3, 8)), jnp.ones((4, 8)), numbers)
    with pytest.raises(TypeCheckError):
        class_loss(Classification(), jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.ones((3, 2)), numbers["logit_scale"])


def test_it_is_caught_in_evaluation() -> None:
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(TypeCheckError):
        ranks(rows, rows[:, :2], np.stack([np.arange(3)] * 2, axis=1))
    with pytest.raises(TypeCheckError):
        confusion_counts(np.arange(3), np.arange(2), 3)
