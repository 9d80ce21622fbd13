"""Real programs whose traffic and operations are known on paper."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from helpers import tiny
from helpers.compilers import cuda, tpu
from jax import Array, lax
from jax.sharding import SingleDeviceSharding

from biomedclip_jax.config import ComputeConfig, DataConfig, PreprocessConfig, Stage, TrainConfig
from biomedclip_jax.planning import _classes as classes
from biomedclip_jax.planning._estimate import sequence_lengths
from biomedclip_jax.planning._program import read_program
from biomedclip_jax.planning._topology import parse_topology
from biomedclip_jax.planning._traffic import Traffic
from biomedclip_jax.planning.devices import describe_devices
from biomedclip_jax.planning.lower import lower_step
from biomedclip_jax.train.flops import flops_per_pair

MIB = 1 << 20
FOUR, SIXTEEN = 4 * MIB, 64 * MIB  # of float32 numbers, [1024, 1024] and [4096, 4096]


def count(function: Callable[..., Array], topology: str, *shapes: tuple[int, ...], dtype=jnp.float32) -> Traffic:
    device = SingleDeviceSharding(describe_devices(parse_topology(topology))[0])
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=device) for shape in shapes]
    text = jax.jit(function).lower(*arguments).compile(compiler_options=OPTIONS.get(topology)).as_text()
    assert text is not None
    return read_program(text).traffic


OPTIONS = {"a100:1x1": {"xla_gpu_enable_triton_gemm": False}}
TARGETS = [pytest.param("a100:1x1", marks=cuda), pytest.param("v5e:2x2", marks=tpu)]


@pytest.mark.parametrize("topology", TARGETS)
def test_two_operands_and_a_result(topology: str, fast_compiler: None) -> None:
    assert count(lambda x, y: 2 * x + y, topology, (1024, 1024), (1024, 1024)).bytes == 3 * FOUR


def decay(state: Array, rows: Array) -> Array:
    """Twelve rows of a stack, each added to half the state."""
    return lax.scan(lambda state, row: (0.5 * state + row, None), state, rows)[0]


@cuda
def test_a_scan_reads_one_row_of_a_stack_a_turn(prepared: None) -> None:
    found = count(decay, "a100:1x1", (4096, 4096), (12, 4096, 4096))
    copied, turns = 2 * SIXTEEN, 12 * 3 * SIXTEEN  # the argument is copied, because it is not given away
    assert copied + turns <= found.bytes < copied + turns + 1024


@tpu
def test_a_scans_state_stays_on_the_chip(prepared: None) -> None:
    found = count(decay, "v5e:2x2", (4096, 4096), (12, 4096, 4096))
    turns = 12 * SIXTEEN
    assert 2 * SIXTEEN + turns <= found.bytes < 2 * SIXTEEN + turns + 16 * 1024
    beside = sum(e.times * e.bytes for e in found.executed if e.asynchronous and e.bytes > MIB)
    assert beside == 2 * SIXTEEN, "the state comes to the chip and goes back"


@pytest.mark.parametrize(
    ("topology", "moved"), [pytest.param("a100:1x1", 98, marks=cuda), pytest.param("v5e:2x2", 14, marks=tpu)]
)
def test_a_scan_keeps_what_its_backward_pass_needs(topology: str, moved: int, prepared: None) -> None:
    def stack(x: Array, weights: Array) -> Array:
        return lax.scan(lambda x, _: (jnp.tanh(x @ weights), x), x, None, length=12)[1]

    found = count(stack, topology, (4096, 4096), (4096, 4096), dtype=jnp.bfloat16)
    assert sum(e.times * e.operations.rounded for e in found.executed) == 12 * 2 * 4096**3
    kept = sum(e.times * e.in_place for e in found.executed)
    assert kept == 12 * 32 * MIB
    # GPU: zeros 12; product 3, tanh 2 and keeping 2 a turn; a copy 2. TPU: the operands come to the chip, 12 are kept
    assert moved * 32 * MIB <= found.bytes < (moved + 0.01) * 32 * MIB


def test_a_training_step_has_the_operations_of_the_analytic_count_and_every_class(prepared: None) -> None:
    sizes = {"width": 64, "heads": 2, "mlp_width": 256}
    model = dataclasses.replace(
        tiny.MODEL,
        image=dataclasses.replace(tiny.MODEL.image, patch_size=4, **sizes),
        text=dataclasses.replace(tiny.MODEL.text, context_length=24, positions=24, **sizes),
    )
    config = TrainConfig(
        name="counted",
        data=DataConfig(train="x"),
        stages=(Stage(8, steps=1),),
        model=model,
        preprocess=PreprocessConfig(image_size=16),
        compute=ComputeConfig(dtype="bfloat16", remat="none"),
    )
    text = lower_step(config, 0, jax.devices()[:1], (), 640).compile().as_text()
    assert text is not None
    found = read_program(text).traffic
    operations = sum(e.times * (e.operations.rounded + e.operations.precise) for e in found.executed)
    assert operations == pytest.approx(8 * flops_per_pair(model, config.stages[0]), rel=0.01)
    lengths = sequence_lengths(config, 0, (), None)
    seen = {classes.class_of(executed, lengths) for executed in found.executed}
    assert seen == set(classes.CLASSES) - {classes.KERNELS, classes.PREFETCH}
    assert not found.unknown_loops and not found.unknown_calls and not found.silent_kernels
