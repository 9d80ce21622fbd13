"""A lowered step compiled for its devices, and what the compiler tells: memory, collectives, or that it does not fit."""

import math
import re
import time
from dataclasses import dataclass

import jax
import numpy as np
from jax.stages import Lowered

from biomedclip_jax.errors import first_line
from biomedclip_jax.planning._program import Program, read_program
from biomedclip_jax.planning._topology import GIB, Topology

# On top of those of the step itself. Without a GPU nothing can be tuned, and the Triton tiles that XLA then assumes
# fail for real models: use cuBLAS instead.
_OPTIONS: dict[str, dict[str, str | bool]] = {"cuda": {"xla_gpu_enable_triton_gemm": False}, "tpu": {}}


@dataclass(frozen=True)
class Compiled:
    """Bytes a device, from the compiler; arguments and temporaries are None where it only says how much is missing.

    peak: of the program alone. in_flight: of the batch that a run puts on the devices while the program works on another.
    """

    seconds: float
    arguments: int | None
    temporaries: int | None
    peak: int
    in_flight: int
    fits: bool
    program: Program | None

    @property
    def needed(self) -> int:
        """What a device must have room for."""
        return self.peak + self.in_flight


def compile_step(lowered: Lowered, topology: Topology) -> Compiled:
    """Compile a step, and compare what it and the batch after it need with the memory that a device has.

    A TPU's compiler refuses a program that is too big, and names the size; for a GPU anything compiles.
    """
    start = time.perf_counter()
    in_flight = _batch_bytes(lowered) // topology.devices
    try:
        compiled = lowered.compile(compiler_options=_OPTIONS[topology.chip.platform])
    except jax.errors.JaxRuntimeError as error:
        needed = memory_needed(str(error))
        if needed is None:
            raise
        return Compiled(time.perf_counter() - start, None, None, needed, in_flight, False, None)
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None, "both compilers tell"
    # what the program needs besides its arguments: results that are written over arguments are not new
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes + fresh
    peak = getattr(memory, "peak_memory_in_bytes", 0) or total
    if topology.chip.platform == "cuda" and peak != total:
        peak -= memory.host_argument_size_in_bytes  # in this one number XLA for GPUs counts what waits on the host, too
    return Compiled(
        seconds,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        peak,
        in_flight,
        peak + in_flight <= topology.chip.memory,
        read_program(text),
    )


def _batch_bytes(lowered: Lowered) -> int:
    """Of the whole batch that a step takes: while it runs, `train._loop` puts the next one, and no more, on the devices.

    Images that wait on the host, which are words of four bytes, are not of it.
    """
    _, batch = lowered.args_info[0]
    here = (x for name, x in batch.items() if name != "images" or x.dtype == np.uint8)
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in here)


def memory_needed(message: str) -> int | None:
    """Bytes that a program wants, from the error of a TPU's compiler; None if the error is about something else."""
    if not message.startswith("RESOURCE_EXHAUSTED"):
        return None
    found = re.search(r"(?:HLO temporaries|[Uu]sed) \(?([\d.]+)([KMGT]?)", first_line(Exception(message)))
    return int(float(found[1]) * GIB / {"": GIB, "K": 1 << 20, "M": 1 << 10, "G": 1, "T": 1 / 1024}[found[2]]) if found else 0
