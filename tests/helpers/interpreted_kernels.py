"""Pallas kernels run step by step in JAX, on the CPU and inside `jax.shard_map`."""

import functools
from typing import Any

import pytest
from jax import lax
from jax._src import config
from jax._src.pallas import hlo_interpreter
from jax.experimental import pallas

from biomedclip_jax.config import ComputeConfig


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused attention may be used on CPUs, too."""
    interpret = hlo_interpreter.pallas_call_hlo_interpret

    def without_mesh(*arrays: Any, **how: Any) -> Any:
        # jax 0.10's interpreter knows nothing of values that vary over a mesh: a checked shard_map would refuse its steps
        with config._check_vma(False):
            return interpret(*(lax.max(x, x) for x in arrays), **how)

    monkeypatch.setattr(hlo_interpreter, "pallas_call_hlo_interpret", without_mesh)
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(pallas.pallas_call, interpret=True))
    monkeypatch.setattr(ComputeConfig, "on", lambda self, platform: self)
