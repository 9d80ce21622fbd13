"""Threads that answer requests, and how many may wait for one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Busy(Exception):
    """As many requests work or wait as may; the message is for the client, who should come back."""


class TooSlow(Exception):
    """An answer took longer than it may; the message is for the client."""


class Seats:
    """So many requests at once, each on a thread of its own while it works; all others are `Busy`.

    seconds: for one answer. A request that is `TooSlow` keeps its seat until its thread is done, as nothing can stop it.
    threads: that work at once, by default as many as there are seats.
    """

    def __init__(self, count: int, seconds: float, threads: int | None = None):
        self._count = count
        self._seconds = seconds
        self._taken = 0
        self._pool = ThreadPoolExecutor(threads or count, "request")

    @property
    def taken(self) -> int:
        """Seats that are taken."""
        return self._taken

    async def answer(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """What the function returns, called on a thread."""
        if self._taken >= self._count:
            raise Busy(f"{self._count} requests are being answered or wait already; try again in a second")
        self._taken += 1
        try:
            work = asyncio.wrap_future(self._pool.submit(function, *arguments, **named))
        except BaseException:
            self._taken -= 1
            raise
        work.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._seconds)
        except TimeoutError:
            if work.done() and not work.cancelled():  # the function's own
                raise
            raise TooSlow(f"no answer within {self._seconds:g} s; ask for less at once, or later") from None

    def turn(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """What the function returns on one of these threads, for a caller on another, who waits and takes no seat."""
        return self._pool.submit(function, *arguments, **named).result()

    def close(self) -> None:
        """Wait for the threads that still work."""
        self._pool.shutdown()

    def _left(self, work: "asyncio.Future[_T]") -> None:
        self._taken -= 1
        if not work.cancelled():
            work.exception()  # of one that nobody waits for any more, so that asyncio does not complain
