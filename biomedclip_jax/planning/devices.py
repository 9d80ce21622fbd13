"""Devices that are described and not attached. The only file that knows libtpu and the CUDA plugin."""

import contextlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.planning._topology import Topology, cuda_target
from biomedclip_jax.support.terminal import quiet_stderr

_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # these two only stop libtpu from complaining
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at the same time
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's own
}


def prepare() -> None:
    """Settings, most to be made before JAX is imported: JAX itself stays on the CPU, libtpu and XLA keep quiet, no cache."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in _TPU.items():
        os.environ.setdefault(name, value)
    with quiet_stderr():
        import jax  # the CUDA plugin says here that it finds no driver
        from jax.experimental.compilation_cache import compilation_cache
    # JAX cannot load a program for other devices from its cache, and looks at this setting only once
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()


def describe_devices(topology: Topology) -> list[Any]:
    """The devices of a topology, for `jax.make_mesh` and compiling; nothing can run on them.

    UserError if the compiler for them is not installed, or does not know this size.
    """
    _check_installed(topology)
    with quiet_stderr():
        import jax
        from jax.experimental import topologies

        jax.devices("cpu")
        try:
            if topology.chip.platform == "cuda":
                hosts, gpus = topology.shape
                found = topologies.get_topology_desc(
                    platform="cuda", topology=f"1x{hosts}x{gpus}", target_config=cuda_target(topology.chip)
                )
            else:
                # a v4 chip is two devices unless its cores are told to work as one
                options = {"chip_config_name": "megacore"} if topology.name.startswith("v4:") else {}
                found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
        except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
            raise UserError(f"--topology {topology.name}: the compiler does not know it: {first_line(error)}") from error
    return list(found.devices)


@contextlib.contextmanager
def host_memory_known(devices: Sequence[Any], sharding: Any) -> Iterator[None]:
    """Within it, arguments with this sharding are lowered as lying in the host's memory, for described GPUs, too.

    These name no memories, so JAX drops the kind "pinned_host" without a word, though XLA compiles it for them. What JAX
    asks of a sharding while it lowers is therefore answered here. None, and devices that name memories: nothing changes.
    """
    if sharding is None or devices[0].addressable_memories():
        yield
        return
    from jax._src.interpreters import mlir, pxla  # a later JAX may name these otherwise; then a test fails

    def kind(asked: Any) -> str | None:
        return None if asked is None else "pinned_host" if asked == sharding else "device"

    with (
        mock.patch.object(pxla, "are_all_shardings_default_mem_kind", lambda _: False),
        mock.patch.object(mlir, "_get_mem_kind", kind),
    ):
        yield


def _check_installed(topology: Topology) -> None:
    tpu = topology.chip.platform == "tpu"
    if importlib.util.find_spec("libtpu" if tpu else "jax_cuda12_plugin") is None:
        what, package = ("libtpu", "jax[tpu]") if tpu else ("JAX's CUDA 12 plugin", "jax[cuda12-local]")
        version = importlib.metadata.version("jax")
        raise UserError(
            f"--topology {topology.name}: compiling for it needs {what} (no {'TPU' if tpu else 'GPU, no driver'}): "
            f"pip install '{package}=={version}'"
        )
