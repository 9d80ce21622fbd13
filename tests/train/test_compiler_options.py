"""What XLA is told reaches it, and does what it is there for."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.compilers import cuda
from helpers.tiny_step import ROWS, Way
from jax.sharding import SingleDeviceSharding

from biomedclip_jax.config import ComputeConfig
from biomedclip_jax.planning._topology import parse_topology
from biomedclip_jax.planning.devices import describe_devices
from biomedclip_jax.sharding import put_batch
from biomedclip_jax.train import step
from biomedclip_jax.train._compiler_options import platform, step_options
from biomedclip_jax.train.state import abstract_state, optimizer_for


def mesh_of(*devices: Any) -> Any:
    return SimpleNamespace(devices=np.array(devices))


def gpu(version: str) -> Any:
    return SimpleNamespace(platform="gpu", client=SimpleNamespace(platform_version=version))


def test_the_platform_is_told_apart_by_who_made_the_gpu() -> None:
    versions = ("cuda 12090", "PJRT C API\nrocm 60400")
    assert [platform(mesh_of(gpu(version))) for version in versions] == ["gpu", "rocm"]
    assert platform(mesh_of(jax.devices()[0])) == "cpu"
    assert platform(mesh_of(SimpleNamespace(platform="gpu"))) == "gpu", "described devices"


def test_the_kernel_made_for_cuda_is_not_chosen_elsewhere() -> None:
    half = ComputeConfig(dtype="bfloat16")
    assert [half.on(name).attention for name in ("gpu", "rocm", "tpu", "cpu")] == ["fused", "plain", "plain", "plain"]


@pytest.mark.parametrize("version", ["cuda 12090", "rocm 60400"])
def test_gpus_are_told_to_add_in_a_fixed_order(version: str) -> None:
    options = step_options(mesh_of(gpu(version)))
    assert options is not None and options["xla_gpu_exclude_nondeterministic_ops"] is True


def test_a_step_is_compiled_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen by one that no compiler knows."""
    monkeypatch.setattr(step, "step_options", lambda mesh: {"xla_no_such_option": True})
    config, mesh = Way().config(), Way().mesh()
    optimizer = optimizer_for(config)
    run = step.make_step(config, 0, mesh, optimizer, lambda _: jnp.float32(1))
    lowered = run.lower(abstract_state(config, 16, optimizer, mesh), put_batch(tiny.batch(ROWS), mesh))  # type: ignore[attr-defined]
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        lowered.compile()


@cuda
def test_gradients_of_a_table_are_sorted_before_they_are_added_up_on_a_gpu() -> None:
    device = describe_devices(parse_topology("a100:1x1"))[0]
    table, rows = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
        for shape, dtype in (((1000, 64), jnp.float32), ((4096,), jnp.int32))
    )

    def program(options: dict[str, Any] | None) -> str:
        gradient = jax.jit(jax.grad(lambda table, rows: jnp.sin(table[rows]).sum()), compiler_options=options)
        text = gradient.lower(table, rows).compile().as_text()
        assert text is not None
        return text

    assert " sort(" in program(step_options(mesh_of(device)))
    assert " sort(" not in program(None), "the control: then each thread adds when it comes"
