"""The library that multiplies on CPU: used there and nowhere else, and no condition for anything."""

import platform

import jax
import numpy as np
import pytest

from biomedclip_jax.support import xla_cpu


@pytest.mark.skipif(platform.machine() != "x86_64", reason="XLA for other processors has no oneDNN")
def test_onednn_multiplies_on_cpu() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 96, 96)).astype(np.float32)
    product = jax.jit(jax.numpy.matmul, compiler_options=xla_cpu.cpu_options("cpu"))
    assert "onednn" in (product.lower(a, b).compile().as_text() or "")
    assert np.abs(product(a, b) - a @ b).max() <= 1e-4


def test_other_platforms_and_unknown_options_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert xla_cpu.cpu_options("gpu") is None
    monkeypatch.setattr(xla_cpu, "_ONEDNN", {"xla_cpu_no_such_option": True})
    xla_cpu.cpu_options.cache_clear()
    assert xla_cpu.cpu_options("cpu") is None
    xla_cpu.cpu_options.cache_clear()
