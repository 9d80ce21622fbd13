"""Bounds by hand. Numbers of a topology that is easy to reckon with."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny

from biomedclip_jax.config import ComputeConfig, DataConfig, PreprocessConfig, Stage, TrainConfig
from biomedclip_jax.planning._compiling import Compiled
from biomedclip_jax.planning._estimate import Estimate, estimate, loss_flops, recomputed, transfer_seconds
from biomedclip_jax.planning._hlo import Collective, Program
from biomedclip_jax.planning._topology import Chip, Topology, parse_topology
from biomedclip_jax.train.flops import Work, flops_per_pair

GPU = Chip("G", "cuda", 1e12, 1e11, 1 << 30, 1e9, 100.0, host_network=50.0)


def along(groups: list[list[int]], size: int = 100) -> Collective:
    return Collective("all-gather", size, np.array(groups), times=1, loop=False)


def test_gpus_share_the_network_of_their_host() -> None:
    topology = Topology("g:2x4", GPU, (2, 4))
    inside = along([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert transfer_seconds(inside, topology) == 3 * 100 / 100
    assert transfer_seconds(along([list(range(8))]), topology) == 7 * 100 / 50
    fast = dataclasses.replace(topology, chip=dataclasses.replace(GPU, host_network=1e3))
    assert transfer_seconds(along([list(range(8))]), fast) == 7 * 100 / 100


def test_tpus_send_on_all_links() -> None:
    gather = Collective("all-reduce", 1_000_000, np.arange(256)[None], times=1, loop=False)
    assert transfer_seconds(gather, parse_topology("v5e:16x16")) == pytest.approx(2 * 255 / 256 * 1e6 / (4 * 50e9))
    assert transfer_seconds(gather, parse_topology("v5e:1x1")) > 0


@pytest.mark.parametrize(
    ("microbatch", "remat", "again"), [(None, "dots", 0), (32, "none", 1), (None, "full", 1), (32, "full", 2)]
)
def test_recomputation(microbatch: int | None, remat, again: int) -> None:
    stage, compute = Stage(64, steps=1, microbatch=microbatch), ComputeConfig(remat=remat)
    assert recomputed([Work(10, 20), Work(100, 200)], stage, compute) == again * 110
    frozen = again - (remat == "full")  # remat is about the backward pass, which a frozen tower has not
    assert recomputed([Work(10, 20), Work(100, 0)], stage, compute) == again * 10 + frozen * 100


def test_bounds_of_a_stage() -> None:
    stage = Stage(64, steps=1, microbatch=32)
    config = TrainConfig(
        name="x",
        data=DataConfig(train="x"),
        stages=(stage,),
        model=tiny.MODEL,
        preprocess=PreprocessConfig(image_size=16),
    )
    topology = Topology("g:2x4", GPU, (2, 4))
    moves = dataclasses.replace(along([list(range(8))]), times=3)
    compiled = Compiled(1.0, 1000, None, 1500, 0, True, Program((moves,), 0, 0))
    found = estimate(config, 0, topology, (), None, compiled)
    flops = flops_per_pair(tiny.MODEL, stage)
    assert found.model_flops == found.padded_flops == flops and found.hardware_flops == pytest.approx(flops * 4 / 3)
    loss = 8 * 16 * 64 * 16 / 1e11  # 8 rows here: 16 operations for each of 64 columns and 16 numbers
    assert loss_flops(64, 16) == 16 * 64 * 16
    assert found.compute == pytest.approx(8 * flops * 4 / 3 / 1e12 + loss)
    assert found.memory == 2 * (1000 + 2 * 500) / 1e9
    assert found.network == 3 * 700 / 50 and found.sent == 3 * 700


def test_expectation_is_below_the_bound_and_the_limit_is_named() -> None:
    found = Estimate(1, 1, 1, compute=0.1, memory=0.2, network=0.05, sent=0, batch_size=100)
    assert found.limit == "memory" and found.bound_pairs == 500
    assert found.expected_pairs == pytest.approx(100 / (0.1 / 0.4 + 0.05))
    assert dataclasses.replace(found, network=0.3).limit == "network"
