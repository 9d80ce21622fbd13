"""Host and device at work at the same time: batches made ready on threads, results stored while the next ones are computed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

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


def in_order(function: Callable[[Any], Any], items: Sequence[Any], ahead: int) -> Iterator[Any]:
    """function(item) for each item, in order, worked out on threads at most `ahead` items early; a UserError is a value."""

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(attempt, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
