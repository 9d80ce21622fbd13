"""Settings for the compilers of machines that are not here, taken back after each test that needs them."""

import os
from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from biomedclip_jax.planning.devices import prepare


@pytest.fixture
def prepared() -> Iterator[None]:
    """The settings for libtpu, taken back for the tests of others."""
    before, cached = dict(os.environ), jax.config.jax_enable_compilation_cache
    prepare()
    yield
    os.environ.clear()
    os.environ.update(before)
    jax.config.update("jax_enable_compilation_cache", cached)
    compilation_cache.reset_cache()


@pytest.fixture
def fast_compiler(prepared: None) -> Iterator[None]:
    """As fast as the compilers can."""
    before = jax.config.jax_optimization_level
    jax.config.update("jax_optimization_level", "O0")
    yield
    jax.config.update("jax_optimization_level", before)
