"""The work of the verb: verdicts, the search for what fits, and real programs compiled for machines that are not here."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.compilers import cuda, tpu

from biomedclip_jax.config import (
    Adaptation,
    Classification,
    ComputeConfig,
    DataConfig,
    GPTConfig,
    LoRAConfig,
    PreprocessConfig,
    ShardingConfig,
    Stage,
    TrainConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.planning import _topology as topology
from biomedclip_jax.planning import plan as planning
from biomedclip_jax.planning._compiling import _OPTIONS, Compiled, compile_step, memory_needed
from biomedclip_jax.planning._hlo import Instruction
from biomedclip_jax.planning._products import Operations
from biomedclip_jax.planning._program import Program
from biomedclip_jax.planning._topology import GIB, parse_topology
from biomedclip_jax.planning._traffic import Executed, Traffic
from biomedclip_jax.planning.devices import describe_devices
from biomedclip_jax.planning.lower import assumed_buckets, assumed_lengths, lower_step
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train.state import parameter_count

MODEL = dataclasses.replace(
    tiny.MODEL,
    image=dataclasses.replace(tiny.MODEL.image, depth=1),
    text=dataclasses.replace(tiny.MODEL.text, depth=1, dropout=0.0, attention_dropout=0.0),
)

COPY = Instruction("copy.1", "f32[10]{0}", "copy", ("x",), "  %copy.1 = f32[10]{0} copy(%x)")
TRAFFIC = Traffic((Executed(COPY, (COPY,), times=1, bytes=1_000_000, in_place=0, operations=Operations(), asynchronous=False),))


def config(*stages: Stage, **fields) -> TrainConfig:
    defaults = {"model": MODEL, "preprocess": PreprocessConfig(image_size=16), "compute": ComputeConfig(dtype="bfloat16")}
    return TrainConfig(name="tiny", data=DataConfig(train="x", label_column="label"), stages=stages, **defaults | fields)


# --- verdict and search, with a compiler that answers at once -------------------------------------------------------


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[TrainConfig], float]], list[TrainConfig]]:
    """Puts another in place of lowering and compiling: GiB that a config needs, as a function of it. Gives what was tried."""

    def install(needs: Callable[[TrainConfig], float]) -> list[TrainConfig]:
        tried: list[TrainConfig] = []

        def compile_step(config: TrainConfig, topology: topology.Topology) -> Compiled:
            tried.append(config)
            needed = int(needs(config) * GIB)
            peak = needed - GIB // 2
            fits = needed <= topology.chip.memory
            refused = topology.chip.platform == "tpu" and not fits  # there is no program then
            program = None if refused else Program((), 1, 0, TRAFFIC)
            return Compiled(1.0, GIB, peak - GIB, peak, GIB // 2, fits, program)

        monkeypatch.setattr(planning, "describe_devices", lambda topology: [None] * topology.devices)
        monkeypatch.setattr(planning, "lower_step", lambda config, *_: config)
        monkeypatch.setattr(planning, "compile_step", compile_step)
        return tried

    return install


def part(config: TrainConfig) -> int:
    return config.stages[0].microbatch or config.stages[0].batch_size


def test_a_run_that_fits_is_compiled_once_a_stage(compiler, tmp_path: Path) -> None:
    tried = compiler(lambda config: 10)
    lines: list[str] = []
    stages = Stage(64, epochs=2), Stage(128, steps=10)
    planned = planning.plan(config(*stages), "v5e:2x2", pairs=640, json_file=tmp_path / "plan.json", say=lines.append)
    assert len(tried) == 2 and [p.compiled.fits for p in planned] == [True, True]
    record = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["estimate"]["steps"] for stage in record["stages"]] == [20, 10]
    expected = record["stages"][0]["estimate"]
    assert expected["expected_hours"] == pytest.approx(20 * 64 / expected["expected_pairs_per_second"] / 3600)
    text = "\n".join(lines)
    for word in (
        "10.00 GiB of 15.75 GiB",
        "fits",
        "least time",
        "at most",
        "75% of the data",
        "estimates, nothing here is measured",
    ):
        assert word in text
    assert len(planning.plan(config(*stages), "v5e:2x2", stage=1, say=lines.append)) == 1


def test_smaller_microbatches_are_tried_first(compiler, tmp_path: Path) -> None:
    tried = compiler(lambda config: part(config) / 16)
    with pytest.raises(UserError, match=r"needs 64\.00 GiB a device and TPU v5e has 15\.75 GiB; it fits") as error:
        planning.plan(config(Stage(1024, steps=1)), "v5e:2x2", json_file=tmp_path / "plan.json", say=lambda line: None)
    assert str(error.value).endswith("it fits with stages.0.microbatch = 128")
    assert [part(c) for c in tried] == [1024, 512, 256, 128]
    stage = json.loads((tmp_path / "plan.json").read_text())["stages"][0]
    assert stage["would_fit"] == "stages.0.microbatch = 128"
    recomputed = stage["estimate"]["hardware_flops"] / stage["estimate"]["model_flops"]
    assert recomputed == pytest.approx(4 / 3), "the estimate is that of the change, which accumulates"


def test_the_next_batch_needs_room_too(compiler) -> None:
    """15.5 GiB of program fit into 15.75, but not with the batch that waits."""
    compiler(lambda config: 16)
    lines: list[str] = []
    with pytest.raises(UserError, match=r"needs 16\.00 GiB a device"):
        planning.plan(config(Stage(64, steps=1)), "v5e:2x2", say=lines.append)
    found = [line.split() for line in lines]
    assert ["peak", "a", "device", "15.50", "GiB"] in found and ["next", "batch,", "in", "flight", "0.50", "GiB"] in found


def test_then_images_wait_on_the_host(compiler) -> None:
    """Where two batches of them are a part of the memory that counts: here 5.9 GiB each."""
    tried = compiler(lambda config: 16 if config.compute.images_in == "device" else 10)
    large = dataclasses.replace(MODEL, image=dataclasses.replace(MODEL.image, image_size=512))
    stage = config(Stage(32_768, steps=1), model=large, preprocess=PreprocessConfig(image_size=512))
    with pytest.raises(UserError, match=r"it fits with stages\.0\.microbatch = 2048, compute\.images_in = host$"):
        planning.plan(stage, "v5e:2x2", say=lambda line: None)
    assert [(part(c), c.compute.images_in) for c in tried[-2:]] == [(2048, "device"), (2048, "host")]


def test_then_remat_then_sharding(compiler) -> None:
    tried = compiler(lambda config: 40 / config.sharding.fsdp)
    with pytest.raises(UserError, match=r"microbatch = 4, compute\.remat = full, sharding\.fsdp = 4$"):
        planning.plan(config(Stage(8, steps=1)), "v5e:2x2", say=lambda line: None)
    assert [(part(c), c.compute.remat, c.sharding.fsdp) for c in tried] == [
        (8, "none", 1),
        (4, "none", 1),
        (4, "full", 1),
        (4, "full", 2),
        (4, "full", 4),
    ]


def test_what_never_fits_is_said_after_few_tries(compiler) -> None:
    tried = compiler(lambda config: 1e6)
    with pytest.raises(
        UserError, match=r"stage 0 does not fit.*no smaller microbatch, place of images, remat or fsdp that was tried fits"
    ):
        planning.plan(config(Stage(1 << 16, steps=1)), "h100:1x8", say=lambda line: None)
    assert len(tried) <= 9


def test_what_is_trained_and_learned_of_labels_is_told(compiler, tmp_path: Path) -> None:
    compiler(lambda config: 1)
    lines: list[str] = []
    stages = (
        Stage(64, steps=1, trainable=("text_head", "logit_scale")),
        Stage(64, steps=1, loss=Classification(), trainable=("context",)),
    )
    prompted = config(*stages, adaptation=Adaptation(context=2))
    planned = planning.plan(prompted, "v5e:2x2", say=lines.append, json_file=tmp_path / "plan.json")
    found = "\n".join(lines)
    head, numbers = 32 * 24 + 24 * 16, parameter_count(MODEL, adaptation=prompted.adaptation)
    assert f"{head + 1:,} of {numbers:,}\n" in found and f"logit_scale 1, text_head {head:,}\n" in found
    assert f"{2 * 32} of {numbers:,}\n" in found and "of 14 classes, 8 tokens each (assumed)" in found
    record = json.loads((tmp_path / "plan.json").read_text())["stages"]
    assert [stage["trained_numbers"] for stage in record] == [{"logit_scale": 1, "text_head": head}, {"context": 64}]
    frozen, learned = (p.estimate for p in planned)
    assert frozen is not None and learned is not None and frozen.model_flops > learned.model_flops > 0
    gradient = lower_step(prompted, 1, jax.devices()[:4], (), 640)
    assert "tensor<64x14xi1>" in gradient.as_text(), "which classes an image has, and the step takes it"


def test_wrong_input_is_said_before_anything_is_compiled(compiler) -> None:
    tried = compiler(lambda config: 1)
    with pytest.raises(UserError, match="--stage 2: this config has stages 0 to 0"):
        planning.plan(config(Stage(64, steps=1)), "v5e:2x2", stage=2)
    with pytest.raises(UserError, match="multiple of 256 devices"):
        planning.plan(config(Stage(64, steps=1)), "v5e:16x16")
    assert tried == []


@pytest.mark.parametrize(("name", "says"), [("v5e:2x2", r"pip install 'jax\[tpu\]=="), ("a100:1x8", r"'jax\[cuda12-local\]==")])
def test_a_missing_compiler_is_named_with_its_install(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=says):
        planning.plan(config(Stage(64, steps=1)), name, say=lambda line: None)


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (18.42G) exceeds", 18.42),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU permanent error. Ran out of memory in memory space hbm. Used 2.50T of 15.75G",
            2560,
        ),
        ("INTERNAL: Mosaic failed", None),
    ],
)
def test_the_compilers_refusal_is_read(message: str, gib: float | None) -> None:
    assert memory_needed(message) == (gib and pytest.approx(gib * GIB))


def test_assumed_captions_are_those_that_were_measured() -> None:
    lengths = assumed_lengths(100_000)
    assert np.median(lengths) == pytest.approx(123, abs=1) and np.quantile(lengths, 0.9) == pytest.approx(321, abs=2)
    assert 150 < lengths.mean() < 170  # measured: 159
    assert 0.15 < np.mean(lengths > 256) < 0.2 and 0.65 < np.mean(lengths > 77) < 0.75  # measured: 0.19 and 0.70
    assert assumed_lengths(77).max() == 77
    assert assumed_buckets(config(Stage(64, steps=1), compute=ComputeConfig(text_buckets=1)), 0, 4) == ()


# --- real compilers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("v5e:2x2", marks=tpu), pytest.param("a100:2x2", marks=cuda)])
def test_a_real_step_is_compiled(name: str, fast_compiler: None) -> None:
    (planned,) = planning.plan(config(Stage(64, steps=1, microbatch=32)), name, pairs=640, say=lambda line: None)
    compiled = planned.compiled
    assert compiled.fits and compiled.program is not None and planned.estimate is not None
    numbers = parameter_count(MODEL)
    state = 3 * 4 * numbers  # parameters and Adam's two moments, float32, whole on each device
    counters = 2 * 4  # of the run and of Adam
    batch = 16 * (16 * 16 * 3 + 8 * 4 + 4)  # images, tokens and the signal; without dropout nobody reads the index
    exact = state + counters + batch
    assert compiled.arguments is not None
    assert compiled.arguments == exact if "a100" in name else exact <= compiled.arguments < 4 * exact  # TPUs pad small arrays
    assert compiled.in_flight == batch + 16 * 4, "the whole batch after it, which a run puts there meanwhile"
    counted = compiled.program.counted
    assert compiled.program.loops and not any(c.loop for c in counted)
    reduced = sum(c.bytes for c in counted if c.kind == "all-reduce")
    embeddings = 2 * 64 * 16 * 4
    assert 4 * numbers <= reduced <= 4 * numbers + embeddings + 1024, "the gradient, once"
    assert {"all-gather", "all-reduce"} <= {c.kind for c in counted}
    assert all(sorted(c.groups.flat) == list(range(4)) for c in counted)


@pytest.mark.parametrize("name", [pytest.param("v5e:2x2", marks=tpu), pytest.param("a100:2x2", marks=cuda)])
def test_images_that_wait_on_the_host_are_no_memory_of_the_device(name: str, prepared: None) -> None:
    """Only one microbatch of them at a time, and perhaps the one after it."""
    size, pairs = 64, 4 * 64 * 16
    model = dataclasses.replace(MODEL, image=dataclasses.replace(MODEL.image, image_size=size, patch_size=16))
    needed = {}
    for place in ("device", "host"):
        made = config(
            Stage(pairs, steps=1, microbatch=pairs // 64),
            model=model,
            preprocess=PreprocessConfig(image_size=size),
            compute=ComputeConfig(dtype="bfloat16", images_in=place),
        )
        topo = parse_topology(name)
        step = lower_step(made, 0, describe_devices(topo), (), 10_000)
        memory: Any = step.compile(compiler_options=_OPTIONS[topo.chip.platform]).memory_analysis()
        images = pairs // 4 * size * size * 3
        needed[place] = compile_step(step, topo).needed
        assert memory.host_argument_size_in_bytes == (images if place == "host" else 0)
        assert memory.host_temp_size_in_bytes == 0, "no copy in another form"
    assert needed["host"] < needed["device"] - 1.5 * images, "neither that of the step nor the one in flight"


@tpu
def test_sharded_parameters_are_gathered_in_the_loops(fast_compiler: None) -> None:
    twice = dataclasses.replace(MODEL, image=dataclasses.replace(MODEL.image, depth=2))  # one block would be no loop
    sharded = config(Stage(64, steps=1), model=twice, sharding=ShardingConfig(fsdp=2))
    (planned,) = planning.plan(sharded, "v5e:2x2", say=lambda line: None)
    assert planned.compiled.program is not None
    inside = [c for c in planned.compiled.program.counted if c.loop]
    assert "all-gather" in {c.kind for c in inside}
    assert all(c.groups.shape == (2, 2) and c.times == 2 for c in inside)


@cuda
def test_a_frozen_tower_is_stored_once_and_rounded(fast_compiler: None) -> None:
    """As CLEFT's language model: one copy in bfloat16 for four devices, of which a step puts one block at a time together."""
    text = GPTConfig(vocab_size=50, context_length=8, positions=8, width=256, depth=8, heads=4, mlp_width=1024, pad_id=0)
    model = dataclasses.replace(MODEL, text=text, text_head="linear")
    frozen = config(
        Stage(16, steps=1, trainable=("image", "*lora*", "*_head", "logit_scale")),
        model=model,
        adaptation=Adaptation(text=LoRAConfig()),
        compute=ComputeConfig(dtype="bfloat16", frozen_dtype="bfloat16", remat="full"),
        sharding=ShardingConfig(fsdp=4),
    )
    (planned,) = planning.plan(frozen, "a100:1x4", say=lambda line: None)
    compiled = planned.compiled
    matrices = 8 * 12 * 256**2
    assert compiled.fits and compiled.arguments is not None and compiled.temporaries is not None
    rest = 3 * 4 * (parameter_count(model) - matrices)  # at most: all the others trained, and whole on each device
    assert 2 * matrices / 4 < compiled.arguments < 2 * matrices / 4 + rest
    assert compiled.temporaries < 2 * matrices, "neither the whole tower nor a float32 copy of it at any time"


@tpu
def test_a_tpu_program_that_is_too_big_is_a_verdict(fast_compiler: None) -> None:
    lines: list[str] = []
    with pytest.raises(UserError, match=r"stage 0 does not fit: it needs .* a device and TPU v5e has 15\.75 GiB; it fits with"):
        planning.plan(config(Stage(1 << 20, steps=1)), "v5e:2x2", say=lines.append)
    assert any("DOES NOT FIT" in line for line in lines)


@cuda
def test_a_gpu_program_that_is_too_big_is_a_verdict(fast_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(topology.CHIPS["a100"], memory=1 << 18)  # CUDA's compiler itself never refuses
    monkeypatch.setitem(topology.CHIPS, "a100", small)
    with pytest.raises(UserError, match=r"stage 0 does not fit: it needs .* MiB a device and A100-SXM4-80GB has 0\.25 MiB"):
        planning.plan(config(Stage(1, steps=1), compute=ComputeConfig(remat="full")), "a100:1x1", say=lambda line: None)


@tpu
@pytest.mark.parametrize(("name", "fsdp"), [("v4:4x4x4", 8), ("v4:4x4x4", 2), ("v6e:4x4", 8), ("v5e:4x4", 2)])
def test_sharding_may_split_a_side_of_the_torus(prepared: None, name: str, fsdp: int) -> None:
    devices = describe_devices(parse_topology(name))
    assert make_mesh(devices, fsdp).devices.shape == (len(devices) // fsdp, fsdp)


@tpu
def test_a_size_that_the_compiler_does_not_know_is_one_line(prepared: None) -> None:
    with pytest.raises(UserError, match=r"--topology v5e:3x5: the compiler does not know it") as error:
        planning.plan(config(Stage(60, steps=1)), "v5e:3x5", say=lambda line: None)
    assert "\n" not in str(error.value)
