"""Runs of the same numbers share their compiled updates: most of a tiny run's time is to trace and compile them anew."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.train import _loop as loop

# what an update is made of
PARTS = ("stages", "model", "preprocess", "adaptation", "optimizer", "compute", "sharding", "seed")


@pytest.fixture(autouse=True, scope="module")
def updates_are_shared() -> Iterator[None]:
    make_step, schedule = loop.make_step, functools.cache(loop.learning_rate)
    made: dict[Any, Callable[..., Any]] = {}

    def shared(config: TrainConfig, number: int, mesh: Any, optimizer: Any, rate: Any, buckets: Any, prompts: Any) -> Any:
        key = (*(getattr(config, part) for part in PARTS), number, mesh, rate, buckets)
        if prompts is not None:  # of a vocabulary and names, which the key does not know
            return make_step(config, number, mesh, optimizer, rate, buckets, prompts)
        if key not in made:
            made[key] = make_step(config, number, mesh, optimizer, rate, buckets, prompts)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", shared)
        # the same schedule, not one like it
        patch.setattr(loop, "learning_rate", lambda config, stages, steps: schedule(config, tuple(stages), tuple(steps)))
        yield
