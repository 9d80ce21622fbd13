"""What ends a run before its time: SIGTERM, which means save and go, and a watchdog over a run that stands still.

The signal only raises a flag, for which the loop asks between steps. The watchdog ends the process with exit code
124 and says who holds the run up, instead of waiting for ever.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NamedTuple, Self

from biomedclip_jax.train.multihost import hosts

# what schedulers send before they end a job; SIGUSR1 for sites whose own scripts send that
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_STDERR = 2  # the descriptor: progress bars and tests replace the object


class Watchdog:
    """Ends this process when neither a step nor another phase has begun or ended for `limit_seconds`.

    The loop says where it is; each of these calls costs no more than an assignment and starts the time anew:
    `step_begun(n)` before step n is handed to the device, `step_done(n)` when its result has been read,
    `busy(what)` before anything else that takes long (compiling, saving, evaluation), for which the same limit
    holds.

    With several processes, a second thread tells the others every `interval_seconds` how far this one is, and looks
    whether one of them has left. The message then names the process that the others wait for.
    """

    def __init__(self, limit_seconds: float, interval_seconds: float = 5):
        self._limit = limit_seconds
        self._interval = min(interval_seconds, limit_seconds / 12)
        self._mark = (time.monotonic(), 0, "starting")  # one tuple: the threads see all of it or nothing
        self._closed = threading.Event()
        self._peers = _Peers(self._interval) if hosts.count() > 1 else None
        threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]
        if self._peers is not None:
            threads.append(threading.Thread(target=self._report, args=(self._peers,), name="watchdog-report", daemon=True))
        self._threads = threads
        for thread in threads:
            thread.start()

    def step_begun(self, step: int) -> None:
        """Note that a step, counted from 1, is about to be handed to the device."""
        self._mark = (time.monotonic(), step, "in the step")

    def step_done(self, step: int) -> None:
        """Note that the result of a step, counted from 1, has been read."""
        self._mark = (time.monotonic(), max(step, self._mark[1]), "between steps")

    def busy(self, what: str) -> None:
        """Note that something other than a step begins. what: such as "compiling" or "saving", for messages."""
        self._mark = (time.monotonic(), self._mark[1], what)

    def close(self) -> None:
        """End the watch of this process; the others are not told."""
        self._closed.set()
        self._threads[0].join()  # the other one may hang in a call to a process that is gone

    def _watch(self) -> None:
        pause = min(1, self._limit / 10)
        while not self._closed.wait(pause):
            # if something holds Python's lock this thread cannot run, and faulthandler's own ends the process (exit
            # code 1)
            faulthandler.dump_traceback_later(self._limit + 10, exit=True, file=_STDERR)
            since, step, phase = self._mark
            seconds = time.monotonic() - since
            if seconds > self._limit:
                self._end(self._verdict(step, phase, seconds))
        faulthandler.cancel_dump_traceback_later()

    def _verdict(self, step: int, phase: str, seconds: float) -> str:
        line = f"watchdog: {hosts.name(hosts.process())} has been at step {step} ({phase}) for {seconds:.0f} s"
        return f"{line}, limit {self._limit:g} s" + (f"; {self._peers.blame(step)}" if self._peers is not None else "")

    def _report(self, peers: "_Peers") -> None:
        beat = 0
        while not self._closed.wait(self._interval):
            since, step, phase = self._mark
            late = time.monotonic() - since > self._limit / 2
            beat += 1
            try:
                hosts.announce(f"{beat} {step} {phase}")
                end = hosts.ended()
                # process 0 looks always, the others only when something seems wrong: they may be thousands
                if late or hosts.process() == 0:
                    peers.see(hosts.announced())
                peers.answered()
            except Exception:  # the coordination service is gone: JAX is about to end this process, too
                continue
            if end is not None and not self._closed.is_set():
                code, reason = end
                self._end(f"watchdog: {reason}; so {hosts.name(hosts.process())} leaves, too", code)

    def _end(self, line: str, code: int = hosts.LOST) -> None:
        os.write(_STDERR, f"{line}; exit code {code}\n".encode())
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        sys.stdout.flush()
        hosts.quit_now(code, line.removeprefix("watchdog: "), wait_seconds=max(1, 3 * self._interval))


class _Heard(NamedTuple):
    """What another process announced last, and when that was new to us."""

    text: str
    at: float

    @property
    def step(self) -> int:
        return int(self.text.split(" ", 2)[1])

    @property
    def phase(self) -> str:
        return self.text.split(" ", 2)[2]


class _Peers:
    """What this process knows of the others."""

    def __init__(self, interval: float):
        self._interval = interval
        self._heard: dict[int, _Heard] = {}
        self._looked = 0
        self._answered = time.monotonic()

    def see(self, announced: dict[int, str]) -> None:
        now, known = time.monotonic(), self._heard
        self._heard = {
            number: known[number] if number in known and known[number].text == text else _Heard(text, now)
            for number, text in announced.items()
        }
        self._looked += 1

    def answered(self) -> None:
        """The coordination service has just done what it was asked to."""
        self._answered = time.monotonic()

    def blame(self, own_step: int) -> str:
        """Which process the others seem to wait for, in words."""
        now, heard, long = time.monotonic(), self._heard, 3 * self._interval
        if hosts.process() != 0 and now - self._answered > long:
            return f"{hosts.name(0)}, which coordinates, has not answered for {now - self._answered:.0f} s"
        others = [number for number in range(hosts.count()) if number != hosts.process()]
        silent = [number for number in others if number not in heard or now - heard[number].at > long]
        if silent and self._looked > 3:
            told = []
            for number in silent:
                last = heard.get(number)
                when = f", last heard of {now - last.at:.0f} s ago at step {last.step}" if last is not None else ""
                told.append(hosts.name(number) + when)
            return f"not heard of: {'; '.join(told)}"
        steps = {number: heard[number].step for number in others if number in heard} | {hosts.process(): own_step}
        first = min(steps.values())
        if first == max(steps.values()):
            return f"all processes are at step {first}"
        behind = [
            "it" if number == hosts.process() else f"{hosts.name(number)} at step {first} ({heard[number].phase})"
            for number in sorted(steps)
            if steps[number] == first
        ]
        return f"the others wait for {', '.join(behind)}"


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
