"""The loss of a whole batch and its gradient, however the batch is split over devices and microbatches.

The towers run inside `jax.shard_map`, each device on its rows of the batch. Parameters are made device-varying before
they are differentiated: then no gradient is summed inside a loop, and one `psum` at the end is the only reduction.
(With replicated parameters there is an all-reduce in every scan body: seen in the compiled text for 8 devices.)

Exact large batches: the towers encode one microbatch after another and the loss sees all embeddings at once. The
backward pass encodes each again (`jax.checkpoint`): memory holds one microbatch's activations and all embeddings.
Dropout and patch drop are keyed by example, so the gradient is that of the whole batch to rounding. The idea is
GradCache's (arXiv 2101.06983); in JAX it is a scan over a checkpointed function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import Classification, MultiLabel, Stage, TrainConfig
from biomedclip_jax.equal_captions import caption_ids
from biomedclip_jax.losses import class_loss, local_loss
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.prompts.layout import Layout, prompt_embeddings
from biomedclip_jax.sharding import BATCH, as_varying, device_count, gather_leaves, shard_axes, shard_specs, sum_over_devices
from biomedclip_jax.train._answer_loss import answer_share
from biomedclip_jax.train._compiler_options import platform
from biomedclip_jax.train.microbatches import Batch, Normalise, encode_in_microbatches, normaliser
from biomedclip_jax.train.optimizer import Flat, trained_by
from biomedclip_jax.train.text_buckets import Buckets, sort_captions

_TOWERS = ("image", "text")
_NUMBERS = ("logit_scale", "logit_bias")


@dataclass(frozen=True)
class StepContext:
    """All that the traced functions of a stage's gradient know besides arrays."""

    seed: int
    dtype: str  # of matrix products
    stage: Stage
    graph: nnx.GraphDef[CLIP]
    axes: dict[str, Any]  # of each parameter: the axis along which it is split over devices, or -1
    gathered_by_block: tuple[str, ...]  # towers whose blocks are put together one by one, where they are used
    trained: tuple[str, ...]  # paths of the parameters that the stage trains
    pad_id: int
    normalise: Normalise
    buckets: Buckets
    prompts: Layout | None  # of the classes, where the stage learns by labels


def loss_and_gradient(
    config: TrainConfig, stage: Stage, mesh: Mesh, buckets: Buckets = (), prompts: Layout | None = None
) -> Callable[[dict[str, Any], Batch], tuple[Array, Flat]]:
    """(params, batch) -> (loss, {path: gradient}) of the whole batch, for the parameters that the stage trains.

    The loss is replicated; gradients are sharded as their parameters are. buckets: the lengths at which captions
    are computed (`text_buckets.py`). prompts: of the classes, where the stage learns by labels.
    """
    assert stage.prompted == (prompts is not None)
    model = config.model_in(stage)
    shapes = abstract_model(model, adaptation=config.adaptation)[1]
    axes, flat_shapes = shard_axes(shapes, mesh), flatten_dict(shapes, sep="/")
    split = {tower: any(axis >= 0 for axis in jax.tree.leaves(axes[tower]["blocks"])) for tower in _TOWERS}
    by_block = tuple(tower for tower in _TOWERS if split[tower] and config.sharding.gather == "layer")
    gathers = [
        partial(gather_leaves, axes=axes[tower]["blocks"], first=1, dtype=config.compute.dtype) if tower in by_block else None
        for tower in _TOWERS
    ]
    graph, _ = abstract_model(model, config.compute.on(platform(mesh)), *gathers, adaptation=config.adaptation)
    trained = tuple(trained_by(stage, flat_shapes))
    rest = model.text.pad_id, normaliser(config.preprocess), buckets, prompts
    context = StepContext(config.seed, config.compute.dtype, stage, graph, axes, by_block, trained, *rest)
    specs = shard_specs(shapes, axes)
    out = P(), {path: spec for path, spec in flatten_dict(specs, sep="/").items() if path in trained}
    return jax.shard_map(partial(_on_device, context), mesh=mesh, in_specs=(specs, BATCH), out_specs=out)


def _on_device(c: StepContext, params: dict[str, Any], batch: Batch) -> tuple[Array, Flat]:
    """Loss and gradient of the whole batch, from this device's rows of it."""
    loss, gradients = _gradient_around_the_choice(c, flatten_dict(as_varying(params, c.axes), sep="/"), batch)
    axes = flatten_dict(c.axes, sep="/")
    return sum_over_devices(loss, gradients, {path: axes[path] for path in c.trained})


def _gradient_around_the_choice(c: StepContext, weights: Flat, batch: Batch) -> tuple[Array, Flat]:
    """This device's share of the loss, and of the gradient of what is trained.

    With text buckets, a `lax.cond` chooses between captions sorted into buckets and padded ones, and XLA compiles
    both branches. To keep the image tower out of them, its vjp is taken by hand: its forward pass before the
    choice, its backward pass after it, and between them the gradient of everything else, also with respect to the
    image embeddings. The two sides share no parameter.
    """
    if c.stage.answers:
        keyed = batch | {"keys": example_keys(c.seed, batch["index"])}
        share = partial(answer_share, c.stage, lambda own: _model(c, weights | own), keyed, c.normalise)
        return jax.value_and_grad(share)({path: weights[path] for path in c.trained})
    of_image = {path: weights[path] for path in c.trained if path.startswith("image")}
    others = {path: weights[path] for path in c.trained if path not in of_image}
    image, image_backward = jax.vjp(partial(_encode_images, c, weights, batch), of_image)
    padded = partial(_text_side, c, weights, batch, ())
    if c.buckets:
        captions, fits = sort_captions(batch, c.pad_id, c.buckets)
        bucketed = partial(_text_side, c, weights, captions, c.buckets)
        loss, (gradients, d_image) = lax.cond(fits, bucketed, padded, others, image)
    else:
        loss, (gradients, d_image) = padded(others, image)
    return loss, gradients | image_backward(d_image)[0]


def _text_side(
    c: StepContext, weights: Flat, batch: Batch, buckets: Buckets, trained: Flat, image: Array
) -> tuple[Array, tuple[Flat, Array]]:
    """The share of the loss, and its gradient by what is trained outside the image tower and by the embeddings `image`."""
    return jax.value_and_grad(partial(_share_of_loss, c, weights, batch, buckets), argnums=(0, 1))(trained, image)


def _share_of_loss(c: StepContext, weights: Flat, batch: Batch, buckets: Buckets, trained: Flat, image: Array) -> Array:
    """This device's share of the loss; image: float32 [B / devices, E]."""
    weights = weights | trained
    numbers = {name: weights[name] for name in _NUMBERS if name in weights}
    clip = _model(c, weights)
    loss: Any = c.stage.loss
    if isinstance(loss, Classification | MultiLabel):
        assert c.prompts is not None
        classes = prompt_embeddings(clip(), *c.prompts)
        return class_loss(loss, image, classes, batch["labels"], numbers["logit_scale"]) / device_count()
    if c.prompts is not None:
        return local_loss(loss, image, _encode_labels(c, clip, batch), numbers)
    ids = caption_ids(batch["tokens"]) if loss.equal_captions == "positives" else None
    return local_loss(loss, image, _encode_captions(c, clip, batch, buckets), numbers, batch.get("rows"), ids)


def _encode_images(c: StepContext, weights: Flat, batch: Batch, trained: Flat) -> Array:
    clip = _model(c, weights | trained)

    def encode(part: Batch) -> Array:
        return clip().encode_image(c.normalise(part["images"]), example_keys(c.seed, part["index"]), c.stage.patch_keep)

    return encode_in_microbatches(encode, {name: batch[name] for name in ("images", "index")}, c.stage.microbatches)


def _encode_captions(c: StepContext, clip: Callable[[], CLIP], batch: Batch, buckets: Buckets) -> Array:
    def encode(part: Batch) -> Array:
        return clip().encode_text(part["tokens"], example_keys(c.seed, part["index"]))

    if not buckets:
        return encode_in_microbatches(encode, {name: batch[name] for name in ("tokens", "index")}, c.stage.microbatches)
    parts, start = [], 0
    for bucket in buckets:
        rows = slice(start, start + bucket.rows)
        part = {"tokens": batch["tokens"][rows, : bucket.length], "index": batch["index"][rows]}
        parts.append(encode_in_microbatches(encode, part, bucket.microbatches))
        start += bucket.rows
    return jnp.concatenate(parts)


def _encode_labels(c: StepContext, clip: Callable[[], CLIP], batch: Batch) -> Array:
    """Each image's text is the learned prompt of its class."""
    assert c.prompts is not None
    tokens, slots = map(jnp.asarray, c.prompts)

    def encode(part: Batch) -> Array:
        return prompt_embeddings(clip(), tokens[part["class"]], slots[part["class"]])

    return encode_in_microbatches(encode, {"class": batch["labels"].argmax(axis=1)}, c.stage.microbatches)


def example_keys(seed: int, index: Array) -> Array:
    """One random key an example [B]: a function of the seed and the example's position in the run alone."""
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


# --- the model of weights that may be split over devices --------------------------------------------------------------


def _model(c: StepContext, weights: Flat) -> Callable[[], CLIP]:
    """What makes the model: split leaves are put together, but for blocks that are gathered one by one where they are used.

    It is called inside the trace of each microbatch: an NNX module must not cross a trace.
    """
    axes = flatten_dict(c.axes, sep="/")

    def whole(path: str, x: Array) -> Array:
        block = path.startswith(tuple(f"{tower}/blocks/" for tower in _TOWERS))
        if block and path.startswith(c.gathered_by_block):
            return x
        # they travel in the numbers that they are multiplied in; being float32 again, their gradients are added up so
        return gather_leaves(x, axes[path], dtype=c.dtype if block else "float32").astype(x.dtype)

    params = unflatten_dict({path: whole(path, x) for path, x in weights.items()}, sep="/")
    return lambda: nnx.merge(c.graph, params)
