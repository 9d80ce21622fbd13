"""Host and device at work at the same time: batches made ready on threads, results stored while the next ones are computed.

How many processors there are for us.

Many tasks at once, their results in order, a bounded number of them in memory.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

from biomedclip_jax.errors import UserError


class Running:
    """The batch that the device works on while the host makes the next one ready; its rows are stored after that."""

    def __init__(self, embeddings: np.ndarray):
        self._embeddings = embeddings
        self._waiting: tuple[jax.Array, np.ndarray] | None = None

    def add(self, result: jax.Array, places: np.ndarray) -> None:
        """result: what has just been started, one row for each of `places`, and perhaps more."""
        before, self._waiting = self._waiting, (result, places)
        self._store(before)

    def finish(self) -> None:
        """Wait for the last."""
        self._store(self._waiting)

    def _store(self, waiting: tuple[jax.Array, np.ndarray] | None) -> None:
        if waiting is not None:
            result, places = waiting
            self._embeddings[places] = np.asarray(result)[: len(places)]


def read_ahead(function: Callable[[Any], Any], items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """function(item) for each item, in order, worked out on threads at most `ahead` items early; a UserError is a value."""

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        yield from in_order(pool, attempt, items, ahead + 1)


def core_count() -> int:
    """Processors that this process may use: of a container or a Slurm task fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(pool: Executor, do: Callable[[Task], Result], tasks: Iterable[Task], at_once: int) -> Iterator[Result]:
    """`do(task)` of each, in the order of `tasks`, of which at most `at_once` are taken ahead of what was given back."""
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(do, task))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
