"""Which library multiplies matrices on CPU."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp

# Products on their own: with what stands around them (LIBRARY_FUSION_TYPE_DOT), XLA of jaxlib 0.10.2 ends the process at
# shapes of ours that oneDNN cannot fuse.
_ONEDNN = {
    "xla_cpu_use_onednn": True,
    "xla_cpu_experimental_onednn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}
# JAX says so at each such program, because its compilation cache cannot keep it.
_NOT_KEPT = "Error writing persistent compilation cache .*thunk kind: onednn-fusion"


@functools.cache
def cpu_options(platform: str) -> dict[str, Any] | None:
    """`compiler_options` for a program of a tower on that platform: on CPU oneDNN multiplies, faster than XLA's choice.

    Such a program is compiled anew at each start, because JAX's compilation cache cannot keep it. None for other
    platforms, and where the installed XLA does not know these options. Measured in docs/measurements.md.
    """
    if platform != "cpu" or jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(jnp.negative, compiler_options=_ONEDNN).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except Exception:  # whatever a later XLA says about an option that it has no longer
        return None
    warnings.filterwarnings("ignore", _NOT_KEPT)
    return dict(_ONEDNN)
