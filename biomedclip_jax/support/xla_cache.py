"""JAX's persistent compilation cache, on by default: the second start of a command compiles nothing."""

import os
from pathlib import Path

import jax


def enable_compilation_cache(shared: Path | None = None) -> None:
    """Keep compiled programs in `$XDG_CACHE_HOME/biomedclip_jax/xla` (usually `~/.cache`).

    shared: a folder that all processes see, where there are several. Only the first of them writes programs, and a pod
    that starts again may have new disks: programs are kept there then, and all processes find them.

    A folder that the user chose (`JAX_COMPILATION_CACHE_DIR`) stays; `JAX_ENABLE_COMPILATION_CACHE=false` turns it
    off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "biomedclip_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(shared if shared and jax.process_count() > 1 else cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
