"""Work done side by side: tasks on threads or processes with their results in order, and host and device at the same
time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:  # worker processes that only read data must not wait for JAX
    import jax

Task = TypeVar("Task")
Result = TypeVar("Result")


def core_count() -> int:
    """The number of processor cores that this process may use: in a container or a Slurm task fewer than the machine
    has.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(pool: Executor, do: Callable[[Task], Result], tasks: Iterable[Task], at_once: int) -> Iterator[Result]:
    """Yield `do(task)` for each task in the order of `tasks`, with at most `at_once` results computed or waiting at a
    time.

    An exception of `do` is raised where its result would have been yielded; tasks that have not begun are then
    cancelled.
    """
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


def read_ahead(function: Callable[[Any], Any], items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """Yield `function(item)` for each item in order, computed on threads at most `ahead` items early.

    A UserError that `function` raises is yielded as a value, so that one bad item does not end the rest.
    """

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        yield from in_order(pool, attempt, items, ahead + 1)


class Running:
    """Stores a batch's embeddings only after the next batch was started, so that the device computes while the host
    works.
    """

    def __init__(self, embeddings: np.ndarray):
        """embeddings: [n, E], filled row by row by `add` and `finish`."""
        self._embeddings = embeddings
        self._waiting: tuple[jax.Array, np.ndarray] | None = None

    def add(self, result: "jax.Array", rows: np.ndarray) -> None:
        """Note a batch that was just started: `result` [>= len(rows), E] belongs into these rows; more are padding."""
        before, self._waiting = self._waiting, (result, rows)
        self._store(before)

    def finish(self) -> None:
        """Wait for the last batch and store it."""
        self._store(self._waiting)

    def _store(self, waiting: "tuple[jax.Array, np.ndarray] | None") -> None:
        if waiting is not None:
            result, rows = waiting
            self._embeddings[rows] = np.asarray(result)[: len(rows)]
