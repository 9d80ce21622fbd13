"""What stays float32: gradients of biases, positions and all else that many rows share, also where the rows are bfloat16;
and every product of float32 numbers, also on chips whose default has fewer digits.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import tiny

from biomedclip_jax.config import (
    UNADAPTED,
    AdaLoRAConfig,
    Adaptation,
    CLIPConfig,
    ClipTextConfig,
    ComputeConfig,
    GPTConfig,
    IA3Config,
    LlamaConfig,
    MeterConfig,
    PrefixConfig,
)
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.layers import linear

SIZES = {"width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
WORDS = {"vocab_size": 50, "context_length": 8}
PADDED = {"pad_id": 0} | WORDS
BFLOAT16 = ComputeConfig(dtype="bfloat16")


def with_towers(image: dict[str, Any], text: Any = tiny.MODEL.text, **heads: Any) -> CLIPConfig:
    return dataclasses.replace(tiny.MODEL, image=dataclasses.replace(tiny.MODEL.image, **image), text=text, **heads)


MODELS: dict[str, tuple[CLIPConfig, Adaptation]] = {
    "patch and head biases": (with_towers({"patch_bias": True}, image_head_bias=True, text_head_bias=True), UNADAPTED),
    "DINOv2 and GPT": (
        with_towers({"layer_scale": True, "registers": 4, "norm_pre": True}, GPTConfig(**SIZES, **PADDED, positions=8)),
        UNADAPTED,
    ),
    "SigLIP": (with_towers({"pool": "map", "class_token": False}, ClipTextConfig(**SIZES, **WORDS)), UNADAPTED),
    "LLaMA": (with_towers({}, LlamaConfig(**SIZES, **PADDED, key_value_heads=2)), UNADAPTED),
    "prefix and IA3": (tiny.MODEL, Adaptation(PrefixConfig(3), IA3Config())),
    "AdaLoRA": (tiny.MODEL, Adaptation(AdaLoRAConfig(4), AdaLoRAConfig(4))),
}


def gradient_text(loss: Callable[..., Any], *arguments: Any) -> str:
    return jax.jit(jax.grad(loss)).lower(*arguments).as_text()


def towers_text(model: CLIPConfig, compute: ComputeConfig, adaptation: Adaptation = UNADAPTED) -> str:
    """The program, as every compiler gets it, of the gradient through both towers, with patch drop and dropout."""
    graph, shapes = abstract_model(model, compute, adaptation=adaptation)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tiny.batch(6).items()}

    def loss(params: Any, batch: Any) -> Any:
        clip = nnx.merge(graph, params)
        keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 6)
        return jnp.square(clip.encode_image(batch["images"], keys, 0.5) - clip.encode_text(batch["tokens"], keys)).sum()

    return gradient_text(loss, shapes, batch)


def answers_text(compute: ComputeConfig) -> str:
    """The same of what METER answers."""
    meter = MeterConfig(answers=("yes", "no"), question_length=8, layers=1, width=32, heads=4, mlp_width=48)
    graph, shapes = abstract_model(dataclasses.replace(tiny.MODEL, answering=meter), compute)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tiny.batch(6).items()}

    def loss(params: Any, batch: Any) -> Any:
        clip = nnx.merge(graph, params)
        return jnp.square(clip.answering.scores(clip, batch["images"], batch["tokens"])).sum()

    return gradient_text(loss, shapes, batch)


# --- sums of gradients ----------------------------------------------------------------------------------------------


def narrow_sums(text: str) -> list[str]:
    """The sums in a program whose result is bfloat16."""
    sums = [line.strip() for line in text.splitlines() if "applies stablehlo.add across" in line]
    assert sums, "no sum at all in this text: it is now written in another way"
    return [line for line in sums if re.search(r"-> tensor<[\dx]*bf16>", line)]


def test_a_bias_as_nnx_has_it_would_be_found() -> None:
    def loss(params: Any, x: Any) -> Any:
        return jnp.square(nnx.merge(graph, params)(x).astype(jnp.float32)).sum()

    x = jnp.zeros((4, 5, 8), jnp.bfloat16)
    graph, params = nnx.split(nnx.Linear(8, 16, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert len(narrow_sums(gradient_text(loss, params, x))) == 1
    graph, params = nnx.split(linear(8, 16, BFLOAT16, nnx.Rngs(0)))
    assert narrow_sums(gradient_text(loss, params, x)) == []


@pytest.mark.parametrize(("model", "adaptation"), MODELS.values(), ids=MODELS)
def test_no_gradient_is_summed_in_bfloat16(model: CLIPConfig, adaptation: Adaptation) -> None:
    assert narrow_sums(towers_text(model, BFLOAT16, adaptation)) == []


def test_no_gradient_of_answers_is_summed_in_bfloat16() -> None:
    assert narrow_sums(answers_text(BFLOAT16)) == []


# --- products -------------------------------------------------------------------------------------------------------


def precisions(text: str) -> Counter[str]:
    """How many products of a program ask for which precision."""
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    found = (re.search(r"precision = \[(\w+), (\w+)\]", line) for line in lines)
    return Counter("/".join(sorted(set(match.groups()))) if match else "DEFAULT" for match in found)


def test_a_product_without_a_precision_would_be_found() -> None:
    x = jnp.zeros((4, 4))
    assert precisions(jax.jit(jnp.matmul).lower(x, x).as_text()) == {"DEFAULT": 1}


@pytest.mark.parametrize(("model", "adaptation"), MODELS.values(), ids=MODELS)
def test_every_product_of_float32_has_all_its_digits(model: CLIPConfig, adaptation: Adaptation) -> None:
    assert precisions(towers_text(model, ComputeConfig(), adaptation)).keys() == {"HIGHEST"}
    assert precisions(towers_text(model, BFLOAT16, adaptation)).keys() == {"DEFAULT"}


def test_every_product_of_answers_in_float32_has_all_its_digits() -> None:
    assert precisions(answers_text(ComputeConfig())).keys() == {"HIGHEST"}
