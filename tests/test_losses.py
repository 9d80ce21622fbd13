"""The contrastive losses: open_clip's, exact to float32 where they are small, the same when devices share the work, and in
memory that grows with the batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.reference import load_open_clip
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from biomedclip_jax import losses
from biomedclip_jax.config import Classification, ClassLoss, MultiLabel, PairLoss, Sigmoid, Softmax
from biomedclip_jax.losses import class_loss, local_loss, pair_loss
from biomedclip_jax.sharding import AXES, BATCH, make_mesh

Arguments = tuple[np.ndarray, ...]
BIAS = -3.0


def arguments(scale: float, noise: float, rows: int = 64, width: int = 32) -> Arguments:
    """Unit embeddings of pairs that lie `noise` apart, in float64, the logarithm of the scale and the bias."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(rows, width))
    text = image + noise * rng.normal(size=image.shape)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    return image, text, np.log(np.float64(scale)), np.float64(BIAS)


def single(values: Arguments) -> list[Array]:
    return [jnp.asarray(x, jnp.float32) for x in values]


def with_gradients(loss: Callable[..., Array], values: Arguments) -> list[np.ndarray]:
    """[loss, gradient of image, of text, of logit_scale, of logit_bias]"""
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*single(values))
    return [np.asarray(x) for x in (value, *gradients)]


def contrastive_loss(image: Array, text: Array, logit_scale: Array) -> Array:
    scores = jnp.matmul(image, text.T, precision=lax.Precision.HIGHEST)
    diagonal = jnp.diag(scores)
    others = ~jnp.eye(len(image), dtype=bool)
    by_image = jax.nn.logsumexp(jnp.exp(logit_scale) * (scores - diagonal[:, None]), axis=1, where=others)
    by_text = jax.nn.logsumexp(jnp.exp(logit_scale) * (scores.T - diagonal[:, None]), axis=1, where=others)
    return (jax.nn.softplus(by_image) + jax.nn.softplus(by_text)).mean() / 2


def sigmoid_loss(image: Array, text: Array, logit_scale: Array, logit_bias: Array) -> Array:
    scores = jnp.matmul(image, text.T, precision=lax.Precision.HIGHEST)
    sign = 2 * jnp.eye(len(image)) - 1
    return jax.nn.softplus(-sign * (jnp.exp(logit_scale) * scores + logit_bias)).sum() / len(image)


def plain(kind: PairLoss) -> Callable[..., Array]:
    """The formula over the whole matrix of scores, as the references have it; nothing of it is shared with `losses.py`."""
    if isinstance(kind, Sigmoid):
        return sigmoid_loss
    assert kind == Softmax()
    return lambda image, text, logit_scale, logit_bias: contrastive_loss(image, text, logit_scale)


def blockwise(kind: PairLoss) -> Callable[..., Array]:
    def loss(image: Array, text: Array, logit_scale: Array, logit_bias: Array) -> Array:
        return pair_loss(kind, image, text, {"logit_scale": logit_scale, "logit_bias": logit_bias})

    return loss


def shared(kind: PairLoss, devices: int = 8, fsdp: int = 1, order: np.ndarray | None = None) -> Callable[..., Array]:
    """The sum of the devices' shares. order: how the captions are spread over the devices."""
    mesh = make_mesh(jax.devices()[:devices], fsdp)

    def share(image: Array, text: Array, rows: Array, numbers: dict[str, Array]) -> Array:
        numbers = jax.tree.map(lambda x: lax.pcast(x, AXES, to="varying"), numbers)
        return lax.psum(local_loss(kind, image, text, numbers, None if order is None else rows), AXES)

    def loss(image: Array, text: Array, logit_scale: Array, logit_bias: Array) -> Array:
        rows = jnp.arange(len(image)) if order is None else jnp.asarray(order)
        on_mesh = jax.shard_map(share, mesh=mesh, in_specs=(BATCH, BATCH, BATCH, P()), out_specs=P())
        return on_mesh(image, text[rows], rows, {"logit_scale": logit_scale, "logit_bias": logit_bias})

    return loss


def open_clip_loss(kind: PairLoss, values: Arguments, dtype: str = "float64") -> list[np.ndarray]:
    """The same of open_clip's ClipLoss or SigLipLoss and torch's autograd."""
    load_open_clip()
    import torch
    from open_clip.loss import ClipLoss, SigLipLoss

    # through our own float32 values: what is compared is the loss, not the rounding of its input
    tensors = [torch.tensor(np.asarray(x), dtype=getattr(torch, dtype), requires_grad=True) for x in single(values)]
    image, text, logit_scale, bias = tensors
    scale = logit_scale.exp()
    loss = SigLipLoss()(image, text, scale, bias) if isinstance(kind, Sigmoid) else ClipLoss()(image, text, scale)
    loss.backward()
    return [loss.detach().numpy(), *(np.zeros(()) if t.grad is None else t.grad.numpy() for t in tensors)]


def difference(ours: np.ndarray, expected: np.ndarray) -> float:
    if not np.abs(expected).max():
        return float(np.abs(ours).max())
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


KINDS = pytest.mark.parametrize("kind", [Softmax(), Sigmoid()], ids=["softmax", "sigmoid"])
OPEN_CLIP = pytest.mark.parametrize("kind", [Softmax(), Sigmoid()], ids=["softmax", "sigmoid"])  # those that it has


@OPEN_CLIP
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07])
@pytest.mark.parametrize("form", [plain, blockwise, shared])
def test_loss_and_gradients_are_open_clips(kind: PairLoss, scale: float, form: Callable[..., Any]) -> None:
    values = arguments(scale, noise=2.0)  # pairs that are hard to tell, as early in training
    # open_clip in float64: its own float32 gradients carry as much rounding as ours
    for found, expected in zip(with_gradients(form(kind), values), open_clip_loss(kind, values), strict=True):
        assert found.dtype == np.float32
        assert difference(found, expected) <= 1e-6


@pytest.mark.parametrize("form", [plain, shared])
@pytest.mark.parametrize("noise", [0.75, 0.9, 1.1])
def test_well_separated_pairs_keep_their_digits(noise: float, form: Callable[..., Any]) -> None:
    """At scale 100 the loss nears 0 and the textbook form (log-sum-exp minus positive) loses every digit of it."""
    values = arguments(100.0, noise)
    expected = open_clip_loss(Softmax(), values)
    assert 1e-11 < expected[0] < 1e-3, "a loss that is small, but not 0"
    found = with_gradients(form(Softmax()), values)
    for ours, theirs in zip(found, expected, strict=True):
        assert difference(ours, theirs) <= 1e-4

    def textbook(image: Array, text: Array, logit_scale: Array, _: Array) -> Array:
        scores = jnp.exp(logit_scale) * image @ text.T
        positive = jnp.exp(logit_scale) * (image * text).sum(axis=1)
        return 0.5 * sum((jax.nn.logsumexp(scores, axis=axis) - positive).mean() for axis in (0, 1))

    assert difference(with_gradients(textbook, values)[3], expected[3]) > 1e-4, "the test would notice"


@KINDS
@pytest.mark.parametrize("scale", [1 / 0.07, 100.0])
@pytest.mark.parametrize("fsdp", [1, 2])
def test_shares_of_eight_devices_add_up(kind: PairLoss, scale: float, fsdp: int) -> None:
    values = arguments(scale, noise=2.0)
    expected = with_gradients(plain(kind), values)
    for found, wanted in zip(with_gradients(shared(kind, fsdp=fsdp), values), expected, strict=True):
        assert difference(found, wanted) <= 1e-6


@KINDS
def test_captions_may_be_spread_over_the_devices_in_any_order(kind: PairLoss) -> None:
    values = arguments(1 / 0.07, noise=2.0)
    order = np.random.default_rng(1).permutation(64).astype(np.int32)
    expected = with_gradients(plain(kind), values)
    for found, wanted in zip(with_gradients(shared(kind, order=order), values), expected, strict=True):
        assert difference(found, wanted) <= 1e-6


@KINDS
@pytest.mark.parametrize("rows", [3, 8, 24])
def test_blocks_that_do_not_divide_the_rows(kind: PairLoss, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_MOST_ROWS", rows)
    values = arguments(1 / 0.07, noise=2.0)
    for found, wanted in zip(with_gradients(blockwise(kind), values), with_gradients(plain(kind), values), strict=True):
        assert difference(found, wanted) <= 1e-6


@KINDS
def test_one_pair_alone_has_a_finite_loss_and_gradient(kind: PairLoss) -> None:
    assert all(np.isfinite(x).all() for x in with_gradients(blockwise(kind), arguments(10.0, 1.0, rows=1)))


@functools.cache
def temporaries(kind: PairLoss, form: Callable[..., Any], batch: int) -> int:
    """Bytes that value and gradient of the loss take besides their arguments, on each of eight devices."""
    embeddings = jax.ShapeDtypeStruct((batch, 64), jnp.float32)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    run = jax.jit(jax.value_and_grad(form(kind), argnums=(0, 1, 2, 3)))
    return run.lower(embeddings, embeddings, number, number).compile().memory_analysis().temp_size_in_bytes


@KINDS
def test_memory_grows_with_the_batch_and_not_with_its_square(kind: PairLoss) -> None:
    """4k -> 64k -> 256k pairs: 16 x and 4 x the pairs. The plain loss is the control."""
    small, middle, large = (temporaries(kind, shared, batch) for batch in (4_096, 65_536, 262_144))
    assert middle <= 16 * small and large <= 5 * middle
    assert temporaries(kind, plain, 8_192) > 3.5 * temporaries(kind, plain, 4_096)


# --- CLEFT's loss, and losses of classes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("devices", "negatives"), [(1, 8), (8, 4), (8, 8), (8, 32)])
def test_both_directions_summed_within_groups_are_clefts(devices: int, negatives: int) -> None:
    """Its `training_step`: on each GPU the cross-entropy of both directions, added; DDP takes the mean over the GPUs."""
    import torch
    from torch.nn.functional import cross_entropy

    values = arguments(14.3, 1.0)
    mesh = make_mesh(jax.devices()[:devices])

    def share(image: Array, text: Array, logit_scale: Array) -> Array:
        scale = {"logit_scale": lax.pcast(logit_scale, AXES, to="varying")}
        return lax.psum(local_loss(Softmax("sum", negatives), image, text, scale), AXES)

    ours = jax.shard_map(share, mesh=mesh, in_specs=(BATCH, BATCH, P()), out_specs=P())
    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(*single(values)[:3])

    image, text, scale = (torch.tensor(x, requires_grad=True) for x in values[:3])
    losses = []
    for u, v in zip(image.split(negatives), text.split(negatives), strict=True):
        scores, diagonal = scale.exp() * u @ v.T, torch.arange(negatives)
        losses.append(cross_entropy(scores, diagonal) + cross_entropy(scores.T, diagonal))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert abs(float(value) - loss.item()) <= 1e-6 * loss.item()
    for mine, theirs in zip(gradients, (image, text, scale), strict=True):
        assert difference(np.asarray(mine), theirs.grad.numpy()) <= 1e-5  # type: ignore[union-attr]


def test_a_sum_of_directions_is_twice_their_mean() -> None:
    values = arguments(14.3, 1.0)
    mean, total = (with_gradients(shared(kind), values) for kind in (Softmax(), Softmax("sum")))
    blocks = with_gradients(blockwise(Softmax("sum")), values)
    for once, both, blockwise_both in zip(mean, total, blocks, strict=True):
        assert difference(both, 2 * once) <= 1e-6 and difference(blockwise_both, 2 * once) <= 1e-6


@pytest.mark.parametrize("kind", [Classification(), MultiLabel()], ids=["classification", "multilabel"])
def test_losses_of_classes_are_torchs(kind: ClassLoss) -> None:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    image, classes, scale, _ = arguments(14.3, 1.0)
    classes = classes[:5]
    drawn = np.random.default_rng(1).random((len(image), 5))
    labels = drawn > 0.7 if kind == MultiLabel() else drawn == drawn.max(axis=1, keepdims=True)

    def ours(image: Array, classes: Array, scale: Array) -> Array:
        return class_loss(kind, image, classes, jnp.asarray(labels), scale)

    given = (image, classes, scale)
    value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(*(jnp.asarray(x, jnp.float32) for x in given))
    u, c, s = (torch.tensor(x, requires_grad=True) for x in given)
    scores, wanted = s.exp() * u @ c.T, torch.tensor(labels, dtype=torch.float64)
    loss = cross_entropy(scores, wanted) if kind == Classification() else binary_cross_entropy_with_logits(scores, wanted)
    loss.backward()
    assert abs(float(value) - loss.item()) <= 1e-6 * loss.item()
    for mine, theirs in zip(gradients, (u, c, s), strict=True):
        assert difference(np.asarray(mine), theirs.grad.numpy()) <= 1e-5  # type: ignore[union-attr]
