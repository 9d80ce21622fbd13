"""SIGTERM means: save and go. The signal only raises a flag here; the loop asks for it between steps."""

import contextlib
import signal
import threading
from types import FrameType
from typing import Self

# what schedulers send before they end a job; SIGUSR1 for sites whose own scripts send that
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopListener:
    """While it is open, SIGTERM and SIGUSR1 set `requested`, however often they come, instead of ending the process.

    Python delivers signals to its main thread: opened in another, it hears nothing and changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def close(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            with contextlib.suppress(ValueError):  # closed in another thread, at the end of the process
                # None: a handler that was not installed from Python cannot be put back
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
