"""How many pairs can be encoded at once: the real update is compiled, and its needs compared with what is free.

Nothing is run for that, so nothing can run out of memory. Two small compilations give what one more pair needs.
"""

import math
import os
from pathlib import Path

import jax

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.planning.lower import lower_step, with_stage

_SHARE = 0.6  # of what is free: evaluation, the loader and other programs want some, too
_PROBES = (1, 2)  # pairs a device that are encoded at once


def fitting_microbatch(config: TrainConfig, pairs: int) -> tuple[int | None, str]:
    """The largest microbatch of stage 0 that fits, None for the whole batch, and a line that says how it was found.

    UserError where one pair a device doesn't fit.
    """
    devices = jax.devices()
    batch, room = config.stages[0].batch_size, _free_bytes()
    a_device = batch // len(devices)
    if room is None or a_device <= _PROBES[-1]:
        return None, f"microbatch: the whole batch of {batch}"
    budget = _SHARE * room
    low, high = (_needed(config, pairs, count * len(devices)) for count in _PROBES)
    each = max(1.0, (high - low) / (_PROBES[1] - _PROBES[0]))
    most = math.floor((budget - low) / each) + _PROBES[0]
    if most < 1:
        raise UserError(
            f"memory: one pair a device needs {_gb(low)}, but {_gb(budget)} can be had ({_SHARE:.0%} of {_gb(room)} free); "
            "close other programs, or take --method lora or probe, which need less"
        )
    fits = max(count for count in range(1, a_device + 1) if a_device % count == 0 and count <= most)
    need = low + each * (fits - _PROBES[0])
    chosen = None if fits == a_device else fits * len(devices)
    return chosen, f"memory: an update needs {_gb(need)} with {fits * len(devices)} pairs at once; {_gb(room)} are free"


def _needed(config: TrainConfig, pairs: int, microbatch: int) -> float:
    """Bytes a device of an update that encodes so many pairs at once: the state, the batch, and what is in between."""
    batch = config.stages[0].batch_size
    if batch % microbatch:  # the batch itself is not what is measured
        config = with_stage(config, 0, batch_size=batch // microbatch * microbatch)
    lowered = lower_step(with_stage(config, 0, microbatch=microbatch), 0, jax.devices(), (), pairs)
    found = lowered.compile().memory_analysis()
    if found is None:
        return 0.0
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return float(kept + found.temp_size_in_bytes)


def _free_bytes() -> int | None:
    """What is free on a device, or in this machine where the device is the processor; None where nobody says."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    free = _free_in_machine()
    return None if free is None else free // len(jax.devices())


def _free_in_machine() -> int | None:
    limit = _container_limit()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (ValueError, OSError):
            return limit
    return found if limit is None else min(found, limit)


def _container_limit() -> int | None:
    """What a container leaves to this process (cgroup v2); None without such a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
