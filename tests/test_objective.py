"""The contrastive loss: open_clip's, exact to float32 where it is small, and the same when devices share the work."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from reference import load_open_clip

from biomedclip_jax.objective import contrastive_loss, local_contrastive_loss
from biomedclip_jax.sharding import DATA, make_mesh

Arguments = tuple[np.ndarray, np.ndarray, np.ndarray]


def arguments(scale: float, noise: float, rows: int = 64, width: int = 32) -> Arguments:
    """Unit embeddings of pairs that lie `noise` apart, in float64, and the logarithm of the scale."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(rows, width))
    text = image + noise * rng.normal(size=image.shape)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    return image, text, np.log(np.float64(scale))


def single(values: Arguments) -> list[Array]:
    return [jnp.asarray(x, jnp.float32) for x in values]


def with_gradients(loss: Callable[..., Array], values: Arguments) -> list[np.ndarray]:
    """[loss, gradient of image, of text, of logit_scale]"""
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*single(values))
    return [np.asarray(x) for x in (value, *gradients)]


def open_clip_loss(values: Arguments, dtype: str) -> list[np.ndarray]:
    """The same of open_clip's ClipLoss and torch's autograd."""
    open_clip = load_open_clip()
    import torch

    # through our own float32 values: what is compared is the loss, not the rounding of its input
    tensors = [torch.tensor(np.asarray(x), dtype=getattr(torch, dtype), requires_grad=True) for x in single(values)]
    image, text, logit_scale = tensors
    loss = open_clip.ClipLoss()(image, text, logit_scale.exp())
    loss.backward()
    return [loss.detach().numpy(), *(t.grad.numpy() for t in tensors)]


def difference(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07])
def test_loss_and_gradients_are_open_clips(scale: float) -> None:
    values = arguments(scale, noise=2.0)  # pairs that are hard to tell, as early in training
    ours = with_gradients(contrastive_loss, values)
    # open_clip in float64: its own float32 gradients carry as much rounding as ours
    for found, expected in zip(ours, open_clip_loss(values, "float64"), strict=True):
        assert found.dtype == np.float32
        assert difference(found, expected) <= 1e-6


@pytest.mark.parametrize("noise", [1.0, 1.1])
def test_well_separated_pairs_keep_their_digits(noise: float) -> None:
    """At scale 100 the loss nears 0 and the textbook form (log-sum-exp minus positive) loses the gradient of the scale."""
    values = arguments(100.0, noise)
    expected = open_clip_loss(values, "float64")
    assert 1e-6 < expected[0] < 1e-3, "a loss that is small, but not 0"
    found = with_gradients(contrastive_loss, values)
    assert difference(found[3], expected[3]) <= 1e-4

    def textbook(image: Array, text: Array, logit_scale: Array) -> Array:
        scores = jnp.exp(logit_scale) * image @ text.T
        positive = jnp.exp(logit_scale) * (image * text).sum(axis=1)
        return 0.5 * sum((jax.nn.logsumexp(scores, axis=axis) - positive).mean() for axis in (0, 1))

    assert difference(with_gradients(textbook, values)[3], expected[3]) > 1e-4, "the test would notice"


@pytest.mark.parametrize("scale", [1 / 0.07, 100.0])
def test_shares_of_eight_devices_add_up(scale: float) -> None:
    mesh = make_mesh()
    assert mesh.size == 8

    def shared(image: Array, text: Array, logit_scale: Array) -> Array:
        def share(image: Array, text: Array, logit_scale: Array) -> Array:
            return lax.psum(local_contrastive_loss(image, text, logit_scale), DATA)

        return jax.shard_map(share, mesh=mesh, in_specs=(P(DATA), P(DATA), P()), out_specs=P())(image, text, logit_scale)

    values = arguments(scale, noise=2.0)
    for found, expected in zip(with_gradients(shared, values), with_gradients(contrastive_loss, values), strict=True):
        assert difference(found, expected) <= 1e-6
