"""Equal captions as positives of each other: the plain formula, however the batch is split, in memory that grows with it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import ROWS, Way, assert_same, batch_of, collectives_in_loops, program, result
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from biomedclip_jax import losses
from biomedclip_jax.config import PairLoss, Sigmoid, Softmax, Stage
from biomedclip_jax.config.losses import Directions
from biomedclip_jax.equal_captions import caption_ids
from biomedclip_jax.errors import UserError
from biomedclip_jax.losses import local_loss, pair_loss
from biomedclip_jax.sharding import AXES, BATCH, make_mesh
from biomedclip_jax.train.text_buckets import Bucket

POSITIVES = Softmax(equal_captions="positives")
SIGLIP = Sigmoid(equal_captions="positives")
Arguments = tuple[np.ndarray, ...]


def tokens_of(captions: np.ndarray, length: int = 8) -> np.ndarray:
    """A caption's number -> its tokens, which differ in one place only."""
    tokens = np.full((len(captions), length), 7, np.int32)
    tokens[:, 3] = captions
    return tokens


def arguments(scale: float, captions: np.ndarray, width: int = 32) -> Arguments:
    """Unit embeddings of pairs in float64, the logarithm of the scale, and the captions' tokens."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(len(captions), width))
    text = image + rng.normal(size=image.shape)
    text = text[np.unique(captions, return_inverse=True)[1] % len(text)]  # equal captions have equal embeddings
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    return image, text, np.log(np.float64(scale)), tokens_of(captions)


def with_gradients(loss: Callable[..., Array], values: Arguments) -> list[np.ndarray]:
    """[loss, gradient of image, of text, of logit_scale]"""
    *embeddings, tokens = values
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    value, gradients = run(*(jnp.asarray(x, jnp.float32) for x in embeddings), jnp.asarray(tokens))
    return [np.asarray(x) for x in (value, *gradients)]


def reference(values: Arguments, directions: Directions = "mean", negatives: int | None = None) -> list[np.ndarray]:
    """The cross-entropy with uniform targets over the whole matrix, by torch in float64; nothing is shared with `losses.py`."""
    import torch
    from torch.nn.functional import cross_entropy

    *embeddings, tokens = values
    image, text, scale = (torch.tensor(np.float64(np.float32(x)), requires_grad=True) for x in embeddings)
    group = negatives or len(tokens)
    parts = []
    for start in range(0, len(tokens), group):
        rows = slice(start, start + group)
        same = torch.tensor([[float((a == b).all()) for b in tokens[rows]] for a in tokens[rows]], dtype=torch.float64)
        targets, scores = same / same.sum(dim=1, keepdim=True), scale.exp() * image[rows] @ text[rows].T
        parts.append(cross_entropy(scores, targets) + cross_entropy(scores.T, targets))
    loss = torch.stack(parts).mean() / (1 if directions == "sum" else 2)
    loss.backward()
    return [loss.detach().numpy(), *(x.grad.numpy() for x in (image, text, scale))]  # type: ignore[union-attr]


def sigmoid_reference(values: Arguments) -> list[np.ndarray]:
    """SigLIP's formula over the whole matrix, +1 where captions are equal, by torch in float64."""
    import torch
    from torch.nn.functional import logsigmoid

    *embeddings, tokens = values
    image, text, scale = (torch.tensor(np.float64(np.float32(x)), requires_grad=True) for x in embeddings)
    sign = torch.tensor([[1.0 if (a == b).all() else -1.0 for b in tokens] for a in tokens], dtype=torch.float64)
    loss = -logsigmoid(sign * (scale.exp() * image @ text.T + bias_of(scale))).sum() / len(tokens)
    loss.backward()
    return [loss.detach().numpy(), *(x.grad.numpy() for x in (image, text, scale))]  # type: ignore[union-attr]


def bias_of(logit_scale: Any) -> Any:
    """A bias that moves with the scale: so the scale's gradient has that of the bias in it."""
    return -1.5 * logit_scale - 0.5


def blockwise(kind: PairLoss) -> Callable[..., Array]:
    def loss(image: Array, text: Array, logit_scale: Array, tokens: Array) -> Array:
        numbers = {"logit_scale": logit_scale, "logit_bias": bias_of(logit_scale)}
        return pair_loss(kind, image, text, numbers, caption_ids(tokens))

    return loss


def shared(kind: PairLoss, devices: int = 8, order: np.ndarray | None = None) -> Callable[..., Array]:
    """The sum of the devices' shares. order: how the captions are spread over the devices."""

    def share(image: Array, text: Array, tokens: Array, rows: Array, scale: Array) -> Array:
        scale = lax.pcast(scale, AXES, to="varying")
        numbers = {"logit_scale": scale, "logit_bias": bias_of(scale)}
        text_rows = None if order is None else rows
        return lax.psum(local_loss(kind, image, text, numbers, text_rows, caption_ids(tokens)), AXES)

    mesh = make_mesh(jax.devices()[:devices])
    on_mesh = jax.shard_map(share, mesh=mesh, in_specs=(BATCH,) * 4 + (P(),), out_specs=P())

    def loss(image: Array, text: Array, logit_scale: Array, tokens: Array) -> Array:
        rows = jnp.arange(len(image)) if order is None else jnp.asarray(order)
        return on_mesh(image, text[rows], tokens[rows], rows, logit_scale)

    return loss


def assert_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - wanted).max() <= 1e-6 * np.abs(wanted).max()


MANY = np.random.default_rng(1).integers(0, 12, 64)  # 12 captions, of 64 pairs
ONE_TWICE = np.append(np.arange(63), 5)
CAPTIONS = pytest.mark.parametrize("captions", [MANY, ONE_TWICE], ids=["12 captions", "one caption twice"])
FORMS = pytest.mark.parametrize(
    "form", [blockwise, shared, functools.partial(shared, devices=1)], ids=["one", "8", "mesh of 1"]
)


@CAPTIONS
@FORMS
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_loss_and_gradients_are_those_of_the_plain_formula(
    form: Callable[..., Any], scale: float, captions: np.ndarray
) -> None:
    values = arguments(scale, captions)
    assert_close(with_gradients(form(POSITIVES), values), reference(values))


@CAPTIONS
@FORMS
def test_siglips_loss_and_gradients_are_those_of_the_plain_formula(form: Callable[..., Any], captions: np.ndarray) -> None:
    values = arguments(10.0, captions)
    assert_close(with_gradients(form(SIGLIP), values), sigmoid_reference(values))


@pytest.mark.parametrize("rows", [3, 8, 24])
def test_blocks_that_do_not_divide_the_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_MOST_ROWS", rows)
    values = arguments(1 / 0.07, MANY)
    assert_close(with_gradients(blockwise(POSITIVES), values), reference(values))
    values = arguments(10.0, MANY)
    assert_close(with_gradients(blockwise(SIGLIP), values), sigmoid_reference(values))


@pytest.mark.parametrize("order", [None, np.random.default_rng(1).permutation(64).astype(np.int32)], ids=["in order", "spread"])
def test_captions_may_be_spread_over_the_devices_in_any_order(order: np.ndarray | None) -> None:
    values = arguments(1 / 0.07, MANY)
    assert_close(with_gradients(shared(POSITIVES, order=order), values), reference(values))
    values = arguments(10.0, MANY)
    assert_close(with_gradients(shared(SIGLIP, order=order), values), sigmoid_reference(values))


@pytest.mark.parametrize("negatives", [4, 8, 32])  # a device has 8 pairs
def test_within_groups_and_with_summed_directions(negatives: int) -> None:
    kind = Softmax("sum", negatives, equal_captions="positives")
    values = arguments(1 / 0.07, MANY)
    assert_close(with_gradients(shared(kind), values), reference(values, "sum", negatives))


def test_where_no_captions_are_equal_it_is_clips_loss_with_all_its_digits() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(64, 32))
    text = image + 0.75 * rng.normal(size=image.shape)
    pairs = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    values = (*pairs, np.log(100.0), tokens_of(np.arange(64)))

    def clip(image: Array, text: Array, logit_scale: Array, _: Array) -> Array:
        return pair_loss(Softmax(), image, text, {"logit_scale": logit_scale})

    found, expected = with_gradients(blockwise(POSITIVES), values), with_gradients(clip, values)
    assert 0 < expected[0] < 1e-3, "a loss that a difference of logarithms would lose"
    for ours, wanted in zip(found, expected, strict=True):
        assert np.abs(ours - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_all_captions_equal_have_the_least_loss_there_is() -> None:
    image, _, scale, tokens = arguments(1 / 0.07, np.zeros(16, int))
    text = np.tile(image[:1], (16, 1))
    value, *gradients = with_gradients(blockwise(POSITIVES), (text, text, scale, tokens))
    assert value == pytest.approx(np.log(16), rel=1e-6)
    assert all(np.isfinite(each).all() for each in gradients)


def test_one_pair_alone_has_a_finite_loss_and_gradient() -> None:
    assert all(np.isfinite(x).all() for x in with_gradients(blockwise(POSITIVES), arguments(10.0, np.zeros(1, int))))


@functools.cache
def temporaries(batch: int) -> int:
    """Bytes that value and gradient of the loss take besides their arguments, on each of eight devices."""
    embeddings, number = jax.ShapeDtypeStruct((batch, 64), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    run = jax.jit(jax.value_and_grad(shared(POSITIVES), argnums=(0, 1, 2)))
    lowered = run.lower(embeddings, embeddings, number, jax.ShapeDtypeStruct((batch, 8), jnp.int32))
    return lowered.compile().memory_analysis().temp_size_in_bytes  # type: ignore[union-attr]


def test_memory_grows_with_the_batch_and_not_with_its_square() -> None:
    """4k -> 64k -> 256k pairs: 16 x and 4 x the pairs, by the bound of the other losses."""
    small, middle, large = map(temporaries, (4_096, 65_536, 262_144))
    assert middle <= 16 * small and large <= 5 * middle


# --- the ids ----------------------------------------------------------------------------------------------------------


def test_ids_are_equal_where_all_tokens_are_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 40_000, (20_000, 16)).astype(np.int32)
    tokens[1::4] = tokens[::4]
    tokens[1::4, rng.integers(0, 16, 5_000)] ^= 1 << 10  # one token differs, by one bit
    tokens[2::4] = tokens[::4][:, ::-1]  # the same tokens in another order
    tokens[3::4] = tokens[::4]
    ids = np.asarray(jax.jit(caption_ids)(tokens))
    assert ids.shape == (20_000, 2) and ids.dtype == np.uint32
    assert (ids[3::4] == ids[::4]).all()
    assert len(np.unique(ids, axis=0)) == len(np.unique(tokens, axis=0)) > 14_000
    words = np.unique(tokens, axis=0, return_index=True)[1]
    for half in ids[words].T:  # each word alone is spread over all of its bits
        assert abs(np.unpackbits(np.frombuffer(half.tobytes(), np.uint8)).mean() - 0.5) < 0.01


# --- in a step ----------------------------------------------------------------------------------------------------------


def repeated() -> dict[str, np.ndarray]:
    """The batch of the tiny step, with five captions in all, each on several devices."""
    batch = batch_of(Way())
    return batch | {"tokens": batch["tokens"][np.arange(ROWS) % 5]}


BIASED = dataclasses.replace(tiny.MODEL, init_logit_bias=-3.0)
WAYS = {
    "8 devices": Way(loss=POSITIVES),
    "8 devices, 4 microbatches": Way(loss=POSITIVES, microbatches=4),
    "fsdp, 2 microbatches": Way(loss=POSITIVES, fsdp=2, microbatches=2),
    "one device, 8 microbatches": Way(loss=POSITIVES, devices=1, microbatches=8),
    "SigLIP, fsdp, 2 microbatches": Way(loss=SIGLIP, fsdp=2, microbatches=2, model=BIASED),
    "captions sorted by length": Way(loss=POSITIVES, buckets=(Bucket(2, 3, 1), Bucket(6, 8, 1))),  # they fit
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_step_is_the_same_however_it_is_split(way: Way) -> None:
    expected = result(way.plain, repeated())
    assert_same(result(way, repeated()), expected)
    negatives = result(dataclasses.replace(way.plain, loss=type(way.loss)()), repeated())
    assert abs(expected[0] - negatives[0]) > 1e-2, "the test would notice if equal captions were negatives"


def test_no_collective_is_in_a_loop() -> None:
    assert collectives_in_loops(program(Way(loss=POSITIVES, microbatches=4)).as_text()) == []


def test_bad_choices_name_the_field() -> None:
    with pytest.raises(UserError, match=r"Softmax\.equal_captions = 'both': expected one of 'negatives', 'positives'"):
        Softmax(equal_captions="both")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"Sigmoid\.equal_captions = 'both': expected one of 'negatives', 'positives'"):
        Sigmoid(equal_captions="both")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"equal_captions = 'positives': .* Classification\(\)"):
        Stage(8, steps=1, loss=Softmax(text="label", equal_captions="positives"))
