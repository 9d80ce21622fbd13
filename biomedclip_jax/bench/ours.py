"""Our side of the bench, and how it builds the step that `biomedclip train` would run. Imports jax, flax and optax only."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from biomedclip_jax.bench._alternate import Counted, Facts, Work, resident_peak, serve
from biomedclip_jax.bench.task import Task, caption_lengths, make_batch
from biomedclip_jax.config import PairLoss, reads_padding
from biomedclip_jax.data.images.normalise import normalised
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.losses import local_loss
from biomedclip_jax.models import abstract_model
from biomedclip_jax.sharding import BATCH, make_mesh, placed, put_batch, rows
from biomedclip_jax.support.xla_cpu import cpu_options
from biomedclip_jax.train.flops import flops_per_pair, peak_flops
from biomedclip_jax.train.microbatches import put_training_batch
from biomedclip_jax.train.optimizer import learning_rate
from biomedclip_jax.train.profile import FOLDER
from biomedclip_jax.train.state import new_state, optimizer_for, parameter_count, starting_params
from biomedclip_jax.train.step import make_step
from biomedclip_jax.train.text_buckets import Buckets, plan_buckets

_SAMPLE = 4_096  # captions whose lengths decide the text buckets, as in training

Built = tuple[Any, tuple[Any, ...]]  # a jitted function and what it is called with


def text_buckets(task: Task, devices: int) -> Buckets:
    """The groups of captions that a training run would choose for captions of these lengths."""
    longest = task.config.model.text.context_length
    if reads_padding(task.config.model.text):
        return ()
    lengths = caption_lengths(task.lengths, longest, _SAMPLE, seed=1)
    return plan_buckets(lengths, longest, task.stage, devices, task.config.compute.text_buckets)


def build_step(task: Task, mesh: Mesh) -> Built:
    """(state, batch) -> (state, metrics), with the state donated."""
    config = task.config
    optimizer = optimizer_for(config)
    rate = learning_rate(config.optimizer, config.stages, [1_000_000])
    step = make_step(config, 0, mesh, optimizer, rate, text_buckets(task, mesh.size))
    state = new_state(config, task.image_size, optimizer, mesh)
    return step, (state, put_training_batch(make_batch(task, task.stage.batch_size), mesh, config.compute))


def build_forward(task: Task, mesh: Mesh) -> Built:
    """(params, images, tokens) -> unit embeddings, as in evaluation: no dropout, all patches, padded captions."""
    config = task.config
    compute = replace(config.compute, attention="plain")
    graph, shapes = abstract_model(config.model_in(task.stage), compute, adaptation=config.adaptation, inference=True)

    def forward(params: dict[str, Any], images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, params)
        return model.encode_image(images), model.encode_text(tokens)

    params = starting_params(config, task.image_size, placed(shapes, mesh))
    made = make_batch(task, task.forward_rows)
    batch = put_batch(made | {"images": normalised(made["images"], config.preprocess)}, mesh)
    return jax.jit(forward, compiler_options=cpu_options(jax.default_backend())), (params, batch["images"], batch["tokens"])


def build_loss(task: Task, mesh: Mesh) -> Built:
    """(image, text) -> the loss's gradient, of embeddings that are there already."""
    shape = (task.stage.batch_size, task.config.model.embed_width)
    drawn = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    image, text = (jax.device_put(x / np.linalg.norm(x, axis=1, keepdims=True), rows(mesh)) for x in drawn)
    scale = {"logit_scale": jnp.float32(np.log(100)), "logit_bias": jnp.float32(-10)}

    loss = task.stage.loss
    assert isinstance(loss, PairLoss), "`make_task` refuses losses of labels"

    def share(image: jax.Array, text: jax.Array) -> jax.Array:
        here = jax.tree.map(lambda x: jax.lax.pcast(x, mesh.axis_names, to="varying"), scale)
        same = jnp.zeros((len(text), 2), jnp.uint32) if loss.equal_captions == "positives" else None
        return local_loss(loss, image, text, here, ids=same)

    gradient = jax.shard_map(jax.grad(share, (0, 1)), mesh=mesh, in_specs=BATCH, out_specs=BATCH)
    return jax.jit(gradient), (image, text)


def build(task: Task) -> Work:
    """Everything that the task names, compiled."""
    config = task.config
    mesh = make_mesh(fsdp=config.sharding.fsdp)
    compile_seconds, temporary_bytes, calls = {}, {}, {}
    for name, make in (("step", build_step), ("forward", build_forward), ("loss", build_loss)):
        if name in task.what:
            function, arguments = make(task, mesh)
            start = time.perf_counter()
            compiled = function.lower(*arguments).compile()
            compile_seconds[name] = time.perf_counter() - start
            temporary_bytes[name] = compiled.memory_analysis().temp_size_in_bytes
            calls[name] = _call(compiled, arguments, donates=name == "step")
    if task.profile is not None:
        trace(calls, task.profile)
    buckets = text_buckets(task, mesh.size)
    model = config.model_in(task.stage)
    platform = jax.default_backend()
    counted = Counted(
        temporary_bytes=temporary_bytes,
        captions=[[bucket.rows, bucket.length] for bucket in buckets],
        flops_per_pair=flops_per_pair(model, task.stage, buckets, adaptation=config.adaptation),
        padded_flops_per_pair=flops_per_pair(model, task.stage, adaptation=config.adaptation),
        peak_flops=peak_flops() if config.compute.dtype == "bfloat16" else None,
    )
    facts = Facts(
        platform=platform,
        devices=f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        versions={name: version(name) for name in ("jax", "flax", "optax")},
        parameters=parameter_count(config.model, adaptation=config.adaptation),
        compile_seconds=compile_seconds,
        counted=counted,
    )

    def peak_bytes() -> int:
        if platform == "cpu":
            return resident_peak()
        return max((device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices())

    return Work(facts, calls, peak_bytes)


def trace(calls: Mapping[str, Callable[[], None]], count: int) -> None:
    """Write a trace of `count` runs of each call into the folder `profile`, after two that are not in it.

    Raises UserError where it cannot be written.
    """
    for call in calls.values():
        call()
        call()
    try:
        with jax.profiler.trace(FOLDER):
            for name, call in calls.items():
                for number in range(count):
                    with jax.profiler.StepTraceAnnotation(name, step_num=number):
                        call()
    except (OSError, RuntimeError) as error:
        raise UserError(f"--profile: {FOLDER}: cannot be written ({first_line(error)}); call it from another folder") from error


def _call(compiled: Any, arguments: tuple[Any, ...], *, donates: bool) -> Callable[[], None]:
    """donates: the first argument is used up, and the first result takes its place."""

    def call() -> None:
        nonlocal arguments
        result = jax.block_until_ready(compiled(*arguments))
        if donates:
            arguments = (result[0], *arguments[1:])

    return call


if __name__ == "__main__":
    serve(build)
