"""One update: a pure function (state, batch) -> (state, metrics), compiled for a mesh.

State is a plain dict of arrays: params, opt (see `optimizer.py`), step, and with `OptimizerConfig.ema` the moving average.
The towers run in `jax.shard_map`; parameters are made device-varying before they are differentiated, so that no gradient is
summed inside a loop and one `psum` at the end is the only reduction (the compiled program has no collective in a loop; with
invariant parameters it has three all-reduces there). The optimizer works outside, in the same jit.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.layout import flatten, nest
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.prompts import Layout, prompt_embeddings
from biomedclip_jax.objective import class_loss, local_loss
from biomedclip_jax.sharding import (
    BATCH,
    as_varying,
    gather_leaves,
    replicated,
    rows,
    shard_axes,
    shard_specs,
    state_shardings,
    sum_over_devices,
)
from biomedclip_jax.train.accumulate import encode_in_microbatches
from biomedclip_jax.train.optimizer import Optimizer, averaged
from biomedclip_jax.train.selection import Flat, trained_by
from biomedclip_jax.train.text_buckets import Buckets, sort_captions

State = dict[str, Any]
# images [B, S, S, 3], tokens [B, N], index [B]: the example's place in the run; labels bool [B, C] where a stage learns of them
Batch = dict[str, Array]

MAX_LOGIT_SCALE = math.log(100)
_NUMBERS = ("logit_scale", "logit_bias")


def example_keys(seed: int, index: Array) -> Array:
    """One random key an example [B]: a function of the seed and the example's place in the run alone."""
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


def state_of(params: dict[str, Any], config: TrainConfig, optimizer: Optimizer) -> State:
    """The state before the first update."""
    flat = flatten(params)
    state: State = {"params": params, "opt": optimizer.init(flat), "step": jnp.int32(0)}
    if config.optimizer.ema is not None:
        state["ema"] = {path: flat[path] for path in optimizer.all_trained()}
    return state


def check_stage(stage: Stage, devices: int) -> None:
    """UserError if the stage's batch cannot be split evenly over the devices and microbatches."""
    if stage.batch_size % (devices * stage.microbatches):
        raise UserError(
            f"Stage.batch_size = {stage.batch_size}: expected a multiple of {devices} devices x "
            f"{stage.microbatches} microbatches = {devices * stage.microbatches}"
        )
    here = stage.batch_size // devices
    if stage.negatives is not None and here % stage.negatives and stage.negatives % here:
        raise UserError(
            f"Stage.negatives = {stage.negatives}: expected a divisor or a multiple of a device's share of the batch, "
            f"{stage.batch_size} / {devices} = {here}"
        )


def loss_and_gradient(
    config: TrainConfig, stage: Stage, mesh: Mesh, buckets: Buckets = (), prompts: Layout | None = None
) -> Callable[[dict[str, Any], Batch], tuple[Array, Flat]]:
    """(params, batch) -> (loss, gradient {path: array}) of the whole batch, for the parameters that the stage trains.

    The loss is replicated, gradients lie as their parameters do. buckets: see `text_buckets.py`. prompts: of the classes, where
    the stage learns of labels.
    """
    assert stage.prompted == (prompts is not None)
    model_config = config.model_in(stage)
    text_pad = model_config.text.pad_id
    shapes = abstract_model(model_config)[1]
    axes = shard_axes(shapes, mesh)
    trained = trained_by(stage, flatten(shapes))
    gathers = [
        functools.partial(gather_leaves, axes=axes[tower]["blocks"], first=1, dtype=config.compute.dtype)
        if config.sharding.gather == "layer" and any(axis >= 0 for axis in jax.tree.leaves(axes[tower]["blocks"]))
        else None
        for tower in ("image", "text")
    ]
    graph, _ = abstract_model(model_config, config.compute, *gathers)

    def whole(params: dict[str, Any]) -> dict[str, Any]:
        """All leaves put together, except blocks that are gathered one by one where they are used."""
        kept = {t: params[t]["blocks"] for t, gather in zip(("image", "text"), gathers, strict=True) if gather is not None}
        rest = {name: {k: v for k, v in x.items() if k != "blocks"} if name in kept else x for name, x in params.items()}
        rest_axes = {name: {k: v for k, v in x.items() if k != "blocks"} if name in kept else x for name, x in axes.items()}
        full = gather_leaves(rest, rest_axes)
        return full | {tower: full[tower] | {"blocks": blocks} for tower, blocks in kept.items()}

    def on_device(params: dict[str, Any], batch: Batch) -> tuple[Array, Flat]:
        flat = flatten(as_varying(params, axes))

        def model(moving: Flat) -> Callable[[], Any]:
            weights = whole(nest(flat | moving))
            return lambda: nnx.merge(graph, weights)  # inside the trace of each microbatch

        def encode_images(moving: Flat) -> Array:
            clip = model(moving)

            def encode(part: Batch) -> Array:
                return clip().encode_image(part["images"], example_keys(config.seed, part["index"]), stage.patch_keep)

            return encode_in_microbatches(encode, {k: batch[k] for k in ("images", "index")}, stage.microbatches)

        def share(moving: Flat, image: Array, buckets: Buckets) -> Array:
            """This device's share of the loss, from its image embeddings and the captions of the buckets or its own."""
            clip = model(moving)

            def encode(part: Batch) -> Array:
                return clip().encode_text(part["tokens"], example_keys(config.seed, part["index"]))

            numbers = {name: leaf for name, leaf in (flat | moving).items() if name in _NUMBERS}
            if prompts is not None:
                return share_of_labels(clip, image, numbers, prompts)
            if not buckets:
                text = encode_in_microbatches(encode, {k: batch[k] for k in ("tokens", "index")}, stage.microbatches)
                return local_loss(stage.objective, image, text, numbers, negatives=stage.negatives)
            parts, start = [], 0
            for bucket in buckets:
                rows = slice(start, start + bucket.rows)
                part = {"tokens": captions["tokens"][rows, : bucket.length], "index": captions["index"][rows]}
                parts.append(encode_in_microbatches(encode, part, bucket.microbatches))
                start += bucket.rows
            return local_loss(stage.objective, image, jnp.concatenate(parts), numbers, captions["rows"])

        def share_of_labels(clip: Callable[[], Any], image: Array, numbers: Flat, prompts: Layout) -> Array:
            """The same from labels: each device encodes all classes, or the prompts of its own images."""
            if stage.compares_classes:
                classes = prompt_embeddings(clip(), *prompts)
                return class_loss(stage.objective, image, classes, batch["labels"], numbers["logit_scale"]) / mesh.size

            def encode(part: Batch) -> Array:
                return prompt_embeddings(clip(), *(jnp.asarray(each)[part["label"]] for each in prompts))

            text = encode_in_microbatches(encode, {"label": batch["labels"].argmax(axis=1)}, stage.microbatches)
            return local_loss(stage.objective, image, text, numbers, negatives=stage.negatives)

        # The image tower's two passes stand around the choice of text shapes, so that only text is compiled for both. The
        # two sides share no parameter.
        image, back = jax.vjp(encode_images, {path: flat[path] for path in trained if path.startswith("image")})
        moving = {path: flat[path] for path in trained if not path.startswith("image")}
        gradient = jax.value_and_grad(share, argnums=(0, 1))
        if not buckets:
            loss, (gradients, into_image) = gradient(moving, image, ())
        else:
            captions, fits = sort_captions(batch, text_pad, buckets, mesh.size)
            loss, (gradients, into_image) = lax.cond(
                fits, lambda *x: gradient(*x, buckets), lambda *x: gradient(*x, ()), moving, image
            )
        gradients |= back(into_image)[0]
        flat_axes = flatten(axes)
        return sum_over_devices(loss, gradients, {path: flat_axes[path] for path in trained})

    specs = shard_specs(shapes, axes)
    flat_specs = flatten(specs)
    out = P(), {path: flat_specs[path] for path in trained}
    return jax.shard_map(on_device, mesh=mesh, in_specs=(specs, BATCH), out_specs=out)


def make_step(
    config: TrainConfig,
    number: int,
    mesh: Mesh,
    optimizer: Optimizer,
    rate: Callable[[Any], Array],
    buckets: Buckets = (),
    prompts: Layout | None = None,
) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """The compiled update of stage `number`. The state that goes in is donated: use the one that comes out.

    rate: step -> learning rate. buckets, prompts: as for `loss_and_gradient`.
    Metrics: loss, grad_norm (before clipping), logit_scale (as exp), learning_rate, and logit_bias where the model has one;
    float32 scalars, of the state that went in. A batch may have `signal`, int32 [B]: its largest value over all hosts is a
    metric, too.
    """
    stage = config.stages[number]
    check_stage(stage, mesh.size)
    gradient = loss_and_gradient(config, stage, mesh, buckets, prompts)
    decay = config.optimizer.ema

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        params = flatten(state["params"])
        now = rate(state["step"])
        loss, gradients = gradient(state["params"], {k: v for k, v in batch.items() if k != "signal"})
        new, opt = optimizer.update(gradients, state["opt"], params, number, now)
        if "logit_scale" in new:
            new["logit_scale"] = jnp.clip(new["logit_scale"], 0, MAX_LOGIT_SCALE)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), "learning_rate": now}
        metrics["logit_scale"] = jnp.exp(params["logit_scale"])
        if "logit_bias" in params:
            metrics["logit_bias"] = params["logit_bias"]
        if "signal" in batch:
            metrics["signal"] = batch["signal"].max()
        after = {"params": nest(params | new), "opt": opt, "step": state["step"] + 1}
        if decay is not None:
            after["ema"] = averaged(state["ema"], new, decay)
        return after, metrics

    shapes = abstract_model(config.model_in(stage))[1]
    lying = state_shardings(jax.eval_shape(lambda params: state_of(params, config, optimizer), shapes), mesh)
    # libtpu 0.0.42 overflows its stack when it fuses the products around attention dropout
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(lying, rows(mesh)),
        out_shardings=(lying, replicated(mesh)),
        compiler_options={"xla_tpu_dot_dot_fusion": False} if on_tpu else None,
    )
