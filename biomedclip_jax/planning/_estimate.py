"""What a step costs at least, and what may be expected, from its compiled program and data-sheet numbers; nothing is run.

The floor is the sum over the instructions of the program, each as long as the chip needs at least for its bytes or
for its products (`_traffic.py`, `_floor.py`). The expectation adds two assumptions, stated in the report: instructions
reach `ASSUMED_EFFICIENCY` of what the data sheet says, and the network is not hidden behind them (the gradient's
reduction comes after the last of them).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.config import ComputeConfig, Stage, TrainConfig
from biomedclip_jax.models.vit import kept_patches
from biomedclip_jax.planning._classes import KERNELS
from biomedclip_jax.planning._collectives import Collective
from biomedclip_jax.planning._compiling import Compiled
from biomedclip_jax.planning._floor import Share, shares, with_operations
from biomedclip_jax.planning._topology import Topology
from biomedclip_jax.train.flops import Prompts, Work, flops_per_pair, tower_work
from biomedclip_jax.train.text_buckets import Buckets

ASSUMED_EFFICIENCY = 0.75  # of peak: large products in bfloat16 reach 65 to 85 %, kernels that stream memory 80 to 90 %


@dataclass(frozen=True)
class Estimate:
    """Seconds, FLOPs and bytes of one step.

    model_flops, hardware_flops: of a pair, without and with recomputation, loss not included.
    padded_flops: model_flops if captions were padded. shares: class of instruction -> its share of a step on one device,
    the longest first. network: bound in seconds. sent: bytes that one device sends.
    bucketed: whether captions are sorted into buckets.
    uncertain: what the count of instructions cannot know, in words.
    """

    model_flops: float
    padded_flops: float
    hardware_flops: float
    shares: dict[str, Share]
    network: float
    sent: float
    batch_size: int
    bucketed: bool = False
    uncertain: tuple[str, ...] = ()

    @property
    def total(self) -> Share:
        """All instructions of a step on one device. Its seconds are the floor, without the network."""
        return sum(self.shares.values(), Share())

    @property
    def limit(self) -> str:
        """What a step waits for longest, at its floor: "compute", "memory" or "network"."""
        total = self.total
        waits = {"compute": total.seconds - total.memory_seconds, "memory": total.memory_seconds, "network": self.network}
        return max(waits, key=waits.__getitem__)

    @property
    def bound_pairs(self) -> float:
        """Pairs a second that cannot be exceeded, with the network hidden."""
        return self.batch_size / max(self.total.seconds, self.network)

    @property
    def expected_pairs(self) -> float:
        """Pairs a second under the assumptions of this file."""
        return self.batch_size / (self.total.seconds / ASSUMED_EFFICIENCY + self.network)


def recomputed(work: Iterable[Work], stage: Stage, compute: ComputeConfig) -> float:
    """Operations of a pair done a second time, at most.

    These are the forward passes when a batch is accumulated, and, with remat "full", once more those of towers with
    a backward pass. remat "dots" computes the attention scores again, which is left out (1 to 5 % of a forward).
    """
    return sum(w.forward * ((stage.microbatches > 1) + (compute.remat == "full" and w.backward > 0)) for w in work)


def estimate(
    config: TrainConfig,
    number: int,
    topology: Topology,
    buckets: Buckets,
    prompts: Prompts | None,
    compiled: Compiled,
) -> Estimate:
    """The estimate of stage `number`, from its operations and from what the compiler says of its step.

    prompts: of a stage that learns from labels, as for `flops_per_pair`; None for others. compiled: a step that compiled.
    """
    assert compiled.program is not None
    stage = config.stages[number]
    model = config.model_in(stage)
    work = tower_work(model, stage, buckets, prompts, config.adaptation).values()
    flops = sum(w.forward + w.backward for w in work)
    hardware = flops + recomputed(work, stage, config.compute)
    traffic = compiled.program.traffic
    found = shares(traffic, topology.chip, sequence_lengths(config, number, buckets, prompts))
    if KERNELS in found and traffic.silent_kernels:  # they do at least what the model needs and no other product does
        missing = max(0.0, flops * stage.batch_size / topology.devices - sum(share.flops for share in found.values()))
        found[KERNELS] = with_operations(found[KERNELS], missing, topology.chip)
    return Estimate(
        model_flops=flops,
        padded_flops=flops_per_pair(model, stage, prompts=prompts, adaptation=config.adaptation),
        hardware_flops=hardware,
        shares=found,
        network=sum(c.times * transfer_seconds(c, topology) for c in compiled.program.counted),
        sent=sum(c.times * c.sent for c in compiled.program.counted),
        batch_size=stage.batch_size,
        bucketed=bool(buckets),
        uncertain=tuple(traffic.doubts),
    )


def sequence_lengths(config: TrainConfig, number: int, buckets: Buckets, prompts: Prompts | None) -> set[int]:
    """Tokens of the sequences that the towers of a stage compute."""
    model, stage = config.model_in(config.stages[number]), config.stages[number]
    images = kept_patches(model.vit.patches, stage.patch_keep) + model.vit.prefix_tokens
    if prompts is not None:
        return {images, prompts[1]}
    if buckets:
        return {images, *(bucket.length for bucket in buckets)}
    return {images, model.text.context_length if model.answering is None else model.answering.question_length}


def transfer_seconds(collective: Collective, topology: Topology) -> float:
    """The least time of a collective in seconds.

    A TPU sends on all its links; what leaves a GPU's host shares the host's network. Among the GPUs of several
    hosts as many rings as GPUs a host run at once, each crossing to the next host once: a host then sends as many
    bytes as one device.
    """
    chip = topology.chip
    if chip.platform == "tpu":
        return collective.sent / (max(topology.links, 1) * chip.link)
    hosts = collective.groups // topology.shape[1]
    crosses = bool(np.any(hosts != hosts[:, :1]))
    return max(collective.sent / chip.link, collective.sent / chip.host_network if crosses else 0.0)
