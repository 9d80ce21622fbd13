"""What a step costs at least, and what may be expected, from counted operations and data-sheet numbers; nothing is run.

A bound is a time below which no program can be. The expectation adds two assumptions, stated in the report: the
matrix products run at `ASSUMED_UTILISATION` of their bound, and the network is not hidden behind them (the
gradient's reduction comes after the last of them).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from biomedclip_jax.config import ComputeConfig, Stage, TrainConfig
from biomedclip_jax.planning._compiling import Compiled
from biomedclip_jax.planning._hlo import Collective
from biomedclip_jax.planning._topology import Topology
from biomedclip_jax.train.flops import Prompts, Work, flops_per_pair, tower_work
from biomedclip_jax.train.text_buckets import Buckets

ASSUMED_UTILISATION = 0.4


@dataclass(frozen=True)
class Estimate:
    """Seconds, FLOPs and bytes of one step.

    model_flops, hardware_flops: of a pair, without and with recomputation, loss not included.
    padded_flops: model_flops if captions were padded. compute, memory, network: bounds in seconds. sent: bytes that one
    device sends.
    """

    model_flops: float
    padded_flops: float
    hardware_flops: float
    compute: float
    memory: float
    network: float
    sent: float
    batch_size: int

    @property
    def limit(self) -> str:
        """The name of the largest bound: "compute", "memory" or "network"."""
        bounds = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(bounds, key=bounds.__getitem__)

    @property
    def bound_pairs(self) -> float:
        """Pairs a second that cannot be exceeded, with everything overlapped."""
        return self.batch_size / max(self.compute, self.memory, self.network)

    @property
    def expected_pairs(self) -> float:
        """Pairs a second under the assumptions of this file."""
        return self.batch_size / (max(self.compute / ASSUMED_UTILISATION, self.memory) + self.network)


def recomputed(work: Iterable[Work], stage: Stage, compute: ComputeConfig) -> float:
    """Operations of a pair done a second time, at most.

    These are the forward passes when a batch is accumulated, and, with remat "full", once more those of towers with
    a backward pass. remat "dots" computes the attention scores again, which is left out (1 to 5 % of a forward).
    """
    return sum(w.forward * ((stage.microbatches > 1) + (compute.remat == "full" and w.backward > 0)) for w in work)


def loss_flops(batch_size: int, width: int) -> float:
    """Float32 operations of the blockwise loss a pair: in two directions four products (forward, again, two gradients)."""
    return 2 * 4 * 2.0 * batch_size * width


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
    assert compiled.program is not None and compiled.arguments is not None
    stage, chip = config.stages[number], topology.chip
    model = config.model_in(stage)
    work = tower_work(model, stage, buckets, prompts, config.adaptation).values()
    flops = sum(w.forward + w.backward for w in work)
    hardware = flops + recomputed(work, stage, config.compute)
    here = stage.batch_size / topology.devices
    loss = here * loss_flops(stage.batch_size, model.embed_width) / chip.float32_flops
    return Estimate(
        model_flops=flops,
        padded_flops=flops_per_pair(model, stage, prompts=prompts, adaptation=config.adaptation),
        hardware_flops=hardware,
        compute=here * hardware / chip.flops + loss,
        # the state is read and written; what else is alive at the peak is written and read, in every turn of an
        # accumulation
        memory=2
        * (compiled.arguments + max(compiled.peak - compiled.arguments, 0) * stage.microbatches)
        / chip.memory_bandwidth,
        network=sum(c.times * transfer_seconds(c, topology) for c in compiled.program.counted),
        sent=sum(c.times * c.sent for c in compiled.program.counted),
        batch_size=stage.batch_size,
    )


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
