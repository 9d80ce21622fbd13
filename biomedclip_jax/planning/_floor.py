"""The least time of a step on a chip, from what its instructions move and compute; by class of instruction."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from biomedclip_jax.planning._classes import CLASSES, COLLECTIVES, PREFETCH, class_of
from biomedclip_jax.planning._topology import Chip
from biomedclip_jax.planning._traffic import Executed, Traffic


@dataclass(frozen=True)
class Share:
    """What the instructions of a class do in a step on one device.

    launches: how many are executed. bytes: that they move in HBM. flops: of their products. seconds: the least time.
    memory_seconds: of it in those that take longer for their bytes than for their products.
    """

    launches: int = 0
    bytes: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    memory_seconds: float = 0.0

    def __add__(self, other: "Share") -> "Share":
        return Share(
            self.launches + other.launches,
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.memory_seconds + other.memory_seconds,
        )


def shares(traffic: Traffic, chip: Chip, lengths: Collection[int]) -> dict[str, Share]:
    """Class -> its share of a step, the longest first. lengths: tokens of the sequences that the step computes.

    Instructions run one after another, each at least as long as the chip needs for its bytes and for its products.
    Asynchronous copies run beside others: together they take only what their bytes add to a step that waits for memory
    all the time. Collectives are reckoned as network.
    """
    found: dict[str, Share] = {}
    for executed in traffic.executed:
        name = class_of(executed, lengths)
        found[name] = found.get(name, Share()) + _share(executed, chip, name)
    if PREFETCH in found:
        total = sum((share for name, share in found.items() if name != COLLECTIVES), Share())
        late = max(0.0, total.bytes / chip.memory_bandwidth - total.seconds)
        found[PREFETCH] = replace(found[PREFETCH], seconds=late, memory_seconds=late)
    return dict(sorted(found.items(), key=lambda item: (-item[1].seconds, CLASSES.index(item[0]))))


def _share(executed: Executed, chip: Chip, name: str) -> Share:
    times, work = executed.times, executed.operations
    share = Share(times, times * executed.bytes, times * (work.rounded + work.precise))
    if name in (PREFETCH, COLLECTIVES):
        return share
    memory = times * executed.bytes / chip.memory_bandwidth
    compute = times * (work.rounded / chip.flops + work.precise / chip.float32_flops)
    return replace(share, seconds=max(memory, compute), memory_seconds=memory if memory >= compute else 0.0)


def with_operations(share: Share, flops: float, chip: Chip) -> Share:
    """A share with operations that its instructions do not tell."""
    seconds = max(share.seconds, flops / chip.flops)
    waiting = share.memory_seconds if seconds == share.seconds else 0.0
    return replace(share, flops=share.flops + flops, seconds=seconds, memory_seconds=waiting)
