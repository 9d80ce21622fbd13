"""The kernels of fused attention compile for real GPUs, and the step of a run there uses them."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.compilers import cuda
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from biomedclip_jax.config import AttentionForm, ComputeConfig, DataConfig, PreprocessConfig, Stage, TrainConfig
from biomedclip_jax.models._fused_attention import fused_attention
from biomedclip_jax.planning._compiling import _OPTIONS
from biomedclip_jax.planning._program import read_program
from biomedclip_jax.planning._topology import parse_topology
from biomedclip_jax.planning.devices import describe_devices
from biomedclip_jax.planning.lower import lower_step

pytestmark = cuda
KERNEL = "__gpu$xla.gpu.triton"


def step_text(form: AttentionForm, dtype: Any) -> str:
    """The compiled text of a step with two heads of 16 numbers, 24 tokens of text and 37 of images, 4 pairs a device."""
    image = dataclasses.replace(tiny.MODEL.image, image_size=48, heads=2)  # type: ignore[type-var]
    text = dataclasses.replace(tiny.MODEL.text, context_length=24, positions=24, heads=2)  # type: ignore[type-var]
    config = TrainConfig(
        name="test",
        data=DataConfig(train="train.csv"),
        stages=(Stage(8, steps=1),),
        model=dataclasses.replace(tiny.MODEL, image=image, text=text),
        preprocess=PreprocessConfig(image_size=48),
        compute=ComputeConfig(dtype=dtype, remat="dots", attention=form),
    )
    topology = parse_topology("a100:1x2")
    lowered = lower_step(config, 0, describe_devices(topology), (), 64)
    return lowered.compile(compiler_options=_OPTIONS["cuda"]).as_text() or ""


def score_arrays(text: str) -> int:
    return len(re.findall(r"\[4,2,(?:24,24|37,37)\]", text))


def test_a_step_on_gpus_uses_them_in_bfloat16(fast_compiler: None) -> None:
    fused = step_text("auto", "bfloat16")
    assert fused.count(KERNEL) == 4, "forward and backward of two towers; the backward pass does not repeat the forward's"
    assert score_arrays(fused) == 0
    plain = step_text("plain", "bfloat16")
    assert plain.count(KERNEL) == 0 and score_arrays(plain) > 0


def test_a_step_on_gpus_is_plain_in_float32_where_nothing_is_said(fast_compiler: None) -> None:
    assert step_text("auto", "float32").count(KERNEL) == 0


# of BiomedCLIP's towers; with other dropout and heads, where masks are 32 bits wide; the most that shared memory must hold
@pytest.mark.parametrize(
    ("tokens", "heads", "width", "dtype"),
    [(197, 12, 64, "bfloat16"), (256, 20, 64, "bfloat16"), (77, 8, 128, "bfloat16"), (50, 2, 128, "float32")],
)
@pytest.mark.parametrize("name", ["a100:1x1", "h100:1x1", "h200:1x1"])
def test_each_size_compiles(name: str, tokens: int, heads: int, width: int, dtype: str, fast_compiler: None) -> None:
    mesh = Mesh(np.array(describe_devices(parse_topology(name))), ("data",))

    def of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    def gradient(qkv: jax.Array, seen: jax.Array, keep: jax.Array) -> jax.Array:
        return jax.grad(lambda qkv: fused_attention(qkv, seen, keep, 0.9).astype(jnp.float32).sum())(qkv)

    word = "uint16" if heads <= 16 else "uint32"
    shapes = (of((2, tokens, 3, heads, width), dtype), of((2, tokens), "bool"), of((2, tokens, tokens), word))
    text = jax.jit(gradient).lower(*shapes).compile(compiler_options=_OPTIONS["cuda"]).as_text() or ""
    assert text.count(KERNEL) == 2
    traffic = read_program(text).traffic
    work = [e.operations for e in traffic.executed if KERNEL in e.instruction.line]
    products = [(o.precise if dtype == "float32" else o.rounded) / (2 * 2 * heads * tokens**2 * width) for o in work]
    assert products == [2, 7] and traffic.silent_kernels == 0
