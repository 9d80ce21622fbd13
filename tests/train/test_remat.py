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

DEPTH, ROWS = 6, 512
MODEL = dataclasses.replace(
    tiny.MODEL,
    image=dataclasses.replace(tiny.MODEL.image, depth=DEPTH),
    text=dataclasses.replace(tiny.MODEL.text, depth=DEPTH),
)


@functools.cache
def temporaries(remat: Remat, unroll: int) -> int:
    """Bytes that an update on one device needs besides its arguments."""
    stage = Stage(ROWS, steps=1)
    config = TrainConfig(
        name="test",
        data=DataConfig(train="train.csv"),
        stages=(stage,),
        model=MODEL,
        preprocess=PreprocessConfig(image_size=16),
        compute=ComputeConfig(remat=remat, unroll=unroll),
    )
    mesh, optimizer = make_mesh(jax.devices()[:1]), optimizer_for(config)
    step = make_step(config, 0, mesh, optimizer, learning_rate(config.optimizer, config.stages, (1,)))
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
