"""JAX's persistent compilation cache, on by default: the second start of a command compiles nothing."""

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keep compiled programs in `$XDG_CACHE_HOME/biomedclip_jax/xla` (usually `~/.cache`).

    A folder that the user chose (`JAX_COMPILATION_CACHE_DIR`) stays; `JAX_ENABLE_COMPILATION_CACHE=false` turns it
    off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "biomedclip_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
