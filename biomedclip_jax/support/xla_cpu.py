"""Which library multiplies matrices on CPU."""

import functools
import warnings
from collections.abc import Callable
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


class Program:
    """A function of parameters and a batch, compiled for few inputs and for many.

    On CPU the one for many is faster (`cpu_options`), but is compiled at each start.
    """

    def __init__(self, function: Callable[[dict[str, Any], jax.Array], jax.Array]):
        self._few = jax.jit(function)
        options = cpu_options(jax.default_backend())
        self._many = self._few if options is None else jax.jit(function, compiler_options=options)

    def of(self, many: bool) -> Callable[[dict[str, Any], Any], jax.Array]:
        """The jitted function, for many inputs or few."""
        return self._many if many else self._few
