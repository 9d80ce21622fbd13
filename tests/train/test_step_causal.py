"""The update with causal text towers: the same loss and gradient on one device and on eight, and what is sent in loops."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.tiny_step import ROWS, Way, assert_same, collectives_in_loops, program, result

from biomedclip_jax.config import GPTConfig, LlamaConfig
from biomedclip_jax.train.text_buckets import Bucket

SIZES = {"vocab_size": 50, "context_length": 8, "positions": 16, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
MODEL = dataclasses.replace(tiny.MODEL, text_head="linear", text_head_bias=True)
GPT = dataclasses.replace(MODEL, text=GPTConfig(**SIZES, pad_id=0, pool="first_eos"))
LLAMA = dataclasses.replace(MODEL, text=LlamaConfig(**SIZES, pad_id=0, key_value_heads=2))
BUCKETS = (Bucket(2, 3, 1), Bucket(6, 7, 2))
WAYS = {
    "GPT, split over 4, recomputed, buckets": Way(fsdp=4, microbatches=2, remat="full", model=GPT, buckets=BUCKETS),
    "LLaMA, split over 8": Way(fsdp=8, model=LLAMA),
}
# numbers of the matrices of one text block; the image tower's are 32·96, 32·32 and 32·64
MATRICES = {GPT: {32 * 96, 32 * 32, 32 * 64}, LLAMA: {32 * 32, 32 * 64}}


def short_captions() -> dict[str, np.ndarray]:
    """A batch of different lengths, none of them full, so that it fits the buckets."""
    batch = tiny.batch(ROWS)
    batch["tokens"][:, 7] = 0
    return batch


@pytest.mark.parametrize("name", WAYS)
def test_eight_devices_are_one(name: str) -> None:
    way = WAYS[name]
    batch = short_captions()
    assert_same(result(way, batch), result(way.plain, batch))


@pytest.mark.parametrize("name", WAYS)
def test_split_weights_alone_are_sent_inside_loops(name: str) -> None:
    way = WAYS[name]
    found = collectives_in_loops(program(way).as_text())
    matrices = MATRICES[way.model] | MATRICES[GPT]
    assert {kind for kind, _ in found} == {"all-gather", "reduce-scatter"}
    assert {n for kind, sizes in found for n in sizes if kind == "all-gather"} == matrices
    assert {n for kind, sizes in found for n in sizes if kind == "reduce-scatter"} == {n // way.fsdp for n in matrices}


def test_every_matrix_of_the_text_blocks_is_split() -> None:
    gpt, llama = (program(way).input_shardings[0][0]["text"]["blocks"] for way in WAYS.values())
    assert sum("fsdp" in sharding.spec for sharding in jax.tree.leaves(gpt)) == 4
    assert sum("fsdp" in sharding.spec for sharding in jax.tree.leaves(llama)) == 5, "its keys and values are too few numbers"
