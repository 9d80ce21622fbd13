"""Many tasks at once, their results in order, a bounded number of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

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
