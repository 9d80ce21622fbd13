"""What is to be computed again in the backward pass is not kept, however the loop over the blocks is unrolled."""

import dataclasses
import functools

import jax
import pytest
from helpers import tiny

from biomedclip_jax.config import ComputeConfig, DataConfig, PreprocessConfig, Remat, Stage, TrainConfig
from biomedclip_jax.sharding import make_mesh, put_batch
from biomedclip_jax.train.optimizer import learning_rate
from biomedclip_jax.train.state import abstract_state, optimizer_for
from biomedclip_jax.train.step import make_step
from biomedclip_jax.train.text_buckets import Bucket, Buckets

DEPTH, ROWS = 6, 512
MODEL = dataclasses.replace(
    tiny.MODEL,
    image=dataclasses.replace(tiny.MODEL.image, depth=DEPTH),
    text=dataclasses.replace(tiny.MODEL.text, depth=DEPTH),
)


@functools.cache
def temporaries(remat: Remat, unroll: int, microbatch: int | None = None, buckets: Buckets = ()) -> int:
    """Bytes that an update on one device needs besides its arguments."""
    stage = Stage(ROWS, steps=1, microbatch=microbatch)
    config = TrainConfig(
        name="test",
        data=DataConfig(train="train.csv"),
        stages=(stage,),
        model=MODEL,
        preprocess=PreprocessConfig(image_size=16),
        compute=ComputeConfig(remat=remat, unroll=unroll),
    )
    mesh, optimizer = make_mesh(jax.devices()[:1]), optimizer_for(config)
    step = make_step(config, 0, mesh, optimizer, learning_rate(config.optimizer, config.stages, (1,)), buckets)
    state = abstract_state(config, 16, optimizer, mesh)
    memory = step.lower(state, put_batch(tiny.batch(ROWS), mesh)).compile().memory_analysis()  # type: ignore[attr-defined]
    return memory.temp_size_in_bytes


@pytest.mark.parametrize("unroll", [2, 4, DEPTH])
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_unrolled_blocks_keep_no_more_than_rolled_ones(remat: Remat, unroll: int) -> None:
    """In turns of 4 there is one whole turn, which XLA unrolls, and two blocks are left over."""
    rolled = temporaries(remat, 1)
    everything = temporaries("none", unroll) - rolled
    assert everything > 0.5 * rolled, "what is kept without remat would show"
    assert temporaries(remat, unroll) - rolled < everything / 8


def test_buckets_are_not_in_memory_together() -> None:
    """Of a stage with microbatches, whose captions may be computed in groups that are each no larger than one of them."""
    length, rows = MODEL.text.context_length, ROWS // 4
    parts = temporaries("none", 1, rows, (Bucket(ROWS, length, 4),))
    one, two = (tuple(Bucket(rows, length - i, n) for i in reversed(range(4))) for n in (1, 2))
    assert temporaries("none", 1, rows, one) > 2 * parts, "why a bucket has two parts"
    assert temporaries("none", 1, rows, two) < 1.2 * parts
