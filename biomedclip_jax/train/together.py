"""What the processes of a run do as one: only the first speaks and writes, and all agree before they act on what one saw."""

import jax
import numpy as np


def is_first() -> bool:
    """Whether this process does what is done once: prints, and writes what is not written by all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """A line on the screen, once a run."""
    if is_first():
        print(text, flush=True)


def all_agree(fine: bool) -> bool:
    """Whether every process says so. All have to ask at the same point."""
    if jax.process_count() == 1:
        return fine
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.all(np.asarray(process_allgather(np.asarray(fine)))))
