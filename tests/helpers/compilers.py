"""Marks of tests that need a compiler for machines that are not here."""

import importlib.util

import pytest

tpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs: pip install 'jax[tpu]'")
cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs: pip install 'jax[cuda12-local]'"
)
