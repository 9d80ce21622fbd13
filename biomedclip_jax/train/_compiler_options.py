"""The platform of the devices that a training step is compiled for, and what XLA is told there."""

from typing import Any

from jax.sharding import Mesh

_OPTIONS: dict[str, dict[str, Any]] = {
    # Barriers part what the backward pass computes again from the forward pass. XLA for CPU takes them out and then merges
    # equal computations, so that remat would save nothing where blocks are unrolled; code can be made of barriers, too.
    "cpu": {"xla_disable_hlo_passes": "cse_barrier_expander"},
    # The gradient of the word embeddings is a scatter, which adds in any order: it is sorted first, so that a run can be
    # repeated bit for bit. JAX calls this platform "gpu" whoever made it.
    # XLA leaves out zeros for what a scan stacks, all of which it has proved to be written over; and numbers that are bfloat16
    # here are that in memory, too, where it would keep some of them as float32.
    "gpu": {
        "xla_gpu_exclude_nondeterministic_ops": True,
        "xla_gpu_enable_dus_accumulator_zero_init_elimination": True,
        "xla_allow_excess_precision": False,
    },
    # libtpu 0.0.42 overflows its stack when it fuses the two products around attention dropout
    "tpu": {"xla_tpu_dot_dot_fusion": False},
}


def step_options(mesh: Mesh) -> dict[str, Any] | None:
    """`compiler_options` of `jax.jit` for a training step on these devices."""
    return _OPTIONS.get(mesh.devices.flat[0].platform)


def platform(mesh: Mesh) -> str:
    """The platform of these devices as JAX names it, but "rocm" for AMD's GPUs, which JAX calls "gpu" as it does NVIDIA's."""
    device = mesh.devices.flat[0]
    version = getattr(getattr(device, "client", None), "platform_version", "")  # described devices may have no client
    return "rocm" if device.platform == "gpu" and "rocm" in version.lower() else device.platform
