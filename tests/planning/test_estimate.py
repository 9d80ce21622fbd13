"""Bounds by hand. Numbers of a topology that is easy to reckon with."""

import dataclasses

import numpy as np
import pytest
from helpers import tiny

from biomedclip_jax.config import ComputeConfig, DataConfig, PreprocessConfig, Stage, TrainConfig
from biomedclip_jax.planning._classes import PREFETCH
from biomedclip_jax.planning._collectives import Collective
from biomedclip_jax.planning._compiling import Compiled
from biomedclip_jax.planning._estimate import Estimate, estimate, recomputed, sequence_lengths, transfer_seconds
from biomedclip_jax.planning._floor import Share, shares, with_operations
from biomedclip_jax.planning._hlo import Instruction
from biomedclip_jax.planning._products import Operations
from biomedclip_jax.planning._program import Program
from biomedclip_jax.planning._report import _table_row
from biomedclip_jax.planning._topology import Chip, Topology, parse_topology
from biomedclip_jax.planning._traffic import Executed, Traffic
from biomedclip_jax.train.flops import Work, flops_per_pair
from biomedclip_jax.train.text_buckets import Bucket

COPY = Instruction("copy.1", "f32[10]{0}", "copy", ("x",), "  %copy.1 = f32[10]{0} copy(%x)")
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
    work = Executed(COPY, (COPY,), times=5, bytes=1000, in_place=0, operations=Operations(1e5), asynchronous=False)
    slow = dataclasses.replace(work, times=1, operations=Operations(0, 1e7))
    compiled = Compiled(1.0, 1000, None, 1500, 0, True, Program((moves,), 0, 0, Traffic((work, slow))))
    found = estimate(config, 0, topology, (), None, compiled)
    flops = flops_per_pair(tiny.MODEL, stage)
    assert found.model_flops == found.padded_flops == flops and found.hardware_flops == pytest.approx(flops * 4 / 3)
    seconds = 5 * 1000 / 1e9 + 1e7 / 1e11  # a thousand bytes take longer than these operations, but not if they are precise
    assert found.total == Share(6, 6000, 5e5 + 1e7, pytest.approx(seconds), pytest.approx(5 * 1000 / 1e9))
    assert found.network == 3 * 700 / 50 and found.sent == 3 * 700


def test_expectation_is_below_the_floor_and_the_limit_is_named() -> None:
    shares = {"a": Share(1, 10, 0, 0.2, 0.2), "b": Share(1, 10, 5, 0.1, 0.0)}
    found = Estimate(1, 1, 1, shares, network=0.05, sent=0, batch_size=100)
    assert found.limit == "memory" and found.bound_pairs == pytest.approx(100 / 0.3)
    assert found.expected_pairs == pytest.approx(100 / (0.3 / 0.75 + 0.05))
    slow = dataclasses.replace(found, network=0.4)
    assert slow.limit == "network" and slow.bound_pairs == pytest.approx(100 / 0.4)
    assert dataclasses.replace(found, shares={"b": shares["b"]}).limit == "compute"


def test_copies_beside_others_take_only_what_is_left_of_the_memory() -> None:
    busy = Executed(COPY, (COPY,), times=1, bytes=0, in_place=0, operations=Operations(1e12), asynchronous=False)
    beside = dataclasses.replace(busy, bytes=int(3e8), operations=Operations(), asynchronous=True)
    assert shares(Traffic((busy, beside)), GPU, ())[PREFETCH].seconds == 0
    late = shares(Traffic((busy, dataclasses.replace(beside, times=4))), GPU, ())[PREFETCH]
    assert late.seconds == late.memory_seconds == pytest.approx(0.2) and late.bytes == 12e8


def test_kernels_that_do_not_tell_do_at_least_what_is_missing() -> None:
    waiting = Share(2, 100, 0.0, 0.2, 0.2)
    assert with_operations(waiting, 1e11, GPU) == dataclasses.replace(waiting, flops=1e11)
    assert with_operations(waiting, 5e11, GPU) == Share(2, 100, 5e11, 0.5, 0.0)


def test_lengths_are_those_that_are_computed() -> None:
    sizes = PreprocessConfig(image_size=16)
    config = TrainConfig(name="x", data=DataConfig(train="x"), stages=(Stage(64, steps=1),), model=tiny.MODEL, preprocess=sizes)
    patches = tiny.MODEL.vit.patches + tiny.MODEL.vit.prefix_tokens
    assert sequence_lengths(config, 0, (), None) == {patches, tiny.MODEL.text.context_length}
    assert sequence_lengths(config, 0, (Bucket(8, 5, 1), Bucket(8, 7, 1)), None) == {patches, 5, 7}
    assert sequence_lengths(config, 0, (), (14, 6)) == {patches, 6}


def test_the_columns_of_a_huge_step_stay_apart() -> None:
    share = Share(launches=1, bytes=int(133_098.7 * 2**30), flops=65_761.45e12, seconds=74.3268, memory_seconds=1.0)
    assert _table_row("products", share, share).split() == ["74,326.8", "100%", "133,098.7", "65,761.45", "products"]
