"""Machines by name, such as `v5e:16x16` or `a100:2x8`, and what the makers say about their chips.

These are data-sheet numbers: limits that no program exceeds, never measurements of ours.
"""

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.errors import UserError

GIB = 1 << 30
_XLA_SHARE = 0.9  # of a GPU's memory: XLA_PYTHON_CLIENT_MEM_FRACTION in launch/local.sh


@dataclass(frozen=True)
class Chip:
    """What data sheets say of a device, in FLOP/s, bytes and bytes/s."""

    name: str
    platform: Literal["tpu", "cuda"]
    flops: float  # bf16 inputs, dense
    float32_flops: float  # matrix products in full float32
    memory: int  # that a program can use
    memory_bandwidth: float
    link: float  # sent at once: over one link to one neighbour (TPU), over all of NVLink (GPU)
    axes: int = 0  # TPU: of the torus
    ring: int = 0  # TPU: a multiple of this many chips in a row is closed to a ring
    host_network: float = 0.0  # GPU: sent at once by a host to others
    device_info: str = ""  # GPU: fields of XLA's GpuTargetConfigProto.gpu_device_info that GPUs differ in

    @property
    def description(self) -> str:
        """Name and usable memory of a chip, as the report says them."""
        return f"{self.name} with {self.memory / GIB:.4g} GiB to use"


# TPU. flops, bandwidths, axes: "System architecture" pages of Cloud TPU (docs.cloud.google.com/tpu/docs/v4, v5e,
# v5p, v6e); they give inter-chip bandwidth a chip over all links and both directions (v5e 400, v5p 1200, v6e 800
# GB/s; v4 six links of 50 GB/s each way). float32_flops: full float32 is six bf16 passes. memory: what libtpu
# 0.0.42 says is available when a program is too big. ring: v5e and v6e close only axes of 16; v4 and v5p cubes of 4
# (optical switches).
#
# GPU. NVIDIA's data sheets: A100 80GB SXM, H100 SXM, H200 SXM. NVLink: 600 GB/s (A100) and 900 GB/s (Hopper) in
# both directions together. float32_flops: outside the tensor cores, which is where "highest" precision computes.
# host_network: assumed to be that of DGX machines, 8 x 200 Gb/s (A100) and 8 x 400 Gb/s (Hopper); many clouds have
# less. memory: bytes that CUDA reports, times the share that launch/local.sh gives to XLA.
CHIPS = {
    "v4": Chip("TPU v4", "tpu", 275e12, 275e12 / 6, int(30.75 * GIB), 1228e9, 50e9, axes=3, ring=4),
    "v5e": Chip("TPU v5e", "tpu", 197e12, 197e12 / 6, int(15.75 * GIB), 819e9, 50e9, axes=2, ring=16),
    "v5p": Chip("TPU v5p", "tpu", 459e12, 459e12 / 6, int(95.74 * GIB), 2765e9, 100e9, axes=3, ring=4),
    "v6e": Chip("TPU v6e", "tpu", 918e12, 918e12 / 6, int(31.25 * GIB), 1638e9, 100e9, axes=2, ring=16),
    "a100": Chip(
        "A100-SXM4-80GB",
        "cuda",
        312e12,
        19.5e12,
        int(85_100_068_864 * _XLA_SHARE),
        2039e9,
        300e9,
        host_network=200e9,
        device_info="""shared_memory_per_core: 167936 shared_memory_per_block_optin: 166912
            core_count: 108 fpus_per_core: 64 memory_bandwidth: 2039040000000 l2_cache_size: 41943040
            clock_rate_ghz: 1.41 device_memory_size: 85100068864 cuda_compute_capability { major: 8 }""",
    ),
    "h100": Chip(
        "H100 80GB HBM3",
        "cuda",
        989e12,
        67e12,
        int(85_100_068_864 * _XLA_SHARE),
        3352e9,
        450e9,
        host_network=400e9,
        device_info="""shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
            core_count: 132 fpus_per_core: 128 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
            clock_rate_ghz: 1.98 device_memory_size: 85100068864 cuda_compute_capability { major: 9 }""",
    ),
    "h200": Chip(
        "H200",
        "cuda",
        989e12,
        67e12,
        int(139.8 * GIB * _XLA_SHARE),
        4800e9,
        450e9,
        host_network=400e9,
        device_info="""shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
            core_count: 132 fpus_per_core: 128 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
            clock_rate_ghz: 1.98 device_memory_size: 150109106995 cuda_compute_capability { major: 9 }""",
    ),
}

# the limits that all these GPUs share, and the libraries of CUDA 12.9 (openxla/xla, backends/gpu/target_config/specs)
_TARGET = """gpu_device_info { %s threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
    shared_memory_per_block: 49152 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
    thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
    registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
    platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 patch: 0 } runtime_version { major: 12 minor: 9 patch: 0 }
    device_description_str: "NVIDIA %s" """

EXAMPLES = "v5e:16x16, v4:4x4x4, v5p:4x4x4, v6e:16x16, a100:2x8 (hosts x GPUs; 80 GB), h100:8x8, h200:1x8"


@dataclass(frozen=True)
class Topology:
    """Chips of one kind, and how they are joined. shape: the torus (TPU), or (hosts, GPUs a host)."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        """Number of chips in the topology."""
        return math.prod(self.shape)

    @property
    def neighbours(self) -> int:
        """Devices that share the fastest links: a host's GPUs; 8 for TPUs, whose links are all alike."""
        return self.shape[1] if self.chip.platform == "cuda" else min(8, self.devices)

    @property
    def links(self) -> int:
        """Links that a TPU can send on at once: two for each axis that is a ring, and one, as at its ends, for any other."""
        return sum(0 if n == 1 else 2 if n % self.chip.ring == 0 else 1 for n in self.shape)


def parse_topology(name: str) -> Topology:
    """The topology that a name such as "v5e:16x16" means. UserError for an unknown one, which lists those that are known."""
    kind, _, sizes = name.lower().partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        near = difflib.get_close_matches(kind, CHIPS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"--topology {name}: unknown kind {kind!r}; {hint}known are {', '.join(CHIPS)}; examples: {EXAMPLES}")
    axes = 2 if chip.platform == "cuda" else chip.axes
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (axes - 1), sizes):
        what = "hosts x GPUs a host" if chip.platform == "cuda" else f"{axes} numbers of chips"
        raise UserError(f"--topology {name}: expected {kind}:{'x'.join('N' * axes)} ({what}); examples: {EXAMPLES}")
    return Topology(f"{kind}:{sizes}", chip, tuple(map(int, sizes.split("x"))))


def cuda_target(chip: Chip) -> str:
    """XLA's `GpuTargetConfigProto` of a GPU, as text."""
    return _TARGET % (chip.device_info, chip.name)
