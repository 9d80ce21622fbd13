"""Rows of several requests, gathered into one batch: whatever waits when the device is free runs together.

Nobody waits for a batch to fill up: alone, a row starts at once, and while the device works, rows gather.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Program:
    """What runs on the device: [size, ...] -> [size, E], for each of a few sizes, which were compiled beforehand."""

    run: Callable[[np.ndarray], np.ndarray]
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        assert self.sizes and list(self.sizes) == sorted(set(self.sizes))

    def size_of(self, waiting: int) -> int:
        """The largest size that so many rows fill; the smallest, where they fill none."""
        return max((size for size in self.sizes if size <= waiting), default=self.sizes[0])


@dataclass
class _Waiting:
    since: float
    row: np.ndarray
    answer: "Future[np.ndarray]"


Seen = Callable[[Hashable, int, float], object]  # of a batch: its program, how many rows, seconds


class Batches:
    """One device and the rows that wait for it. The program whose row waits longest has its turn.

    seen: called after each batch with the program's key, its rows and how long it took, in seconds.
    """

    def __init__(self, programs: Mapping[Hashable, Program], seen: Seen):
        self._programs = programs
        self._seen = seen
        self._rows: dict[Hashable, deque[_Waiting]] = {key: deque() for key in programs}
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def put(self, key: Hashable, row: np.ndarray) -> "Future[np.ndarray]":
        """What a program makes of a row [...]: [E], as a future. A future that is cancelled in time is not computed."""
        answer: Future[np.ndarray] = Future()
        with self._changed:
            if not self._open:
                raise RuntimeError("closed")
            self._rows[key].append(_Waiting(time.monotonic(), row, answer))
            self._changed.notify()
        return answer

    @property
    def waiting(self) -> int:
        """Rows that no batch has taken yet."""
        return sum(map(len, self._rows.values()))

    def close(self) -> None:
        """Take no more rows; returns when those that wait have their answers."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            key, taken = found
            program = self._programs[key]
            began = time.monotonic()
            try:
                rows = np.stack([each.row for each in taken])
                size = program.size_of(len(taken))
                if len(rows) < size:
                    rows = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
                results = program.run(rows)
            except BaseException as error:  # of these rows; those that come after are not harmed
                for each in taken:
                    each.answer.set_exception(error)
                continue
            for each, result in zip(taken, results, strict=False):  # what fills a batch up has no answer
                each.answer.set_result(result)
            self._seen(key, len(taken), time.monotonic() - began)

    def _next(self) -> tuple[Hashable, list[_Waiting]] | None:
        """The next batch, when there is one; None when all is done and nothing will come."""
        with self._changed:
            while True:
                key = min((key for key, rows in self._rows.items() if rows), key=self._since, default=None)
                if key is not None:
                    rows = self._rows[key]
                    size = self._programs[key].size_of(len(rows))
                    taken = [rows.popleft() for _ in range(min(size, len(rows)))]
                    taken = [each for each in taken if each.answer.set_running_or_notify_cancel()]
                    if taken:
                        return key, taken
                elif self._open:
                    self._changed.wait()
                else:
                    return None

    def _since(self, key: Hashable) -> float:
        return self._rows[key][0].since
