"""Listens: one process, one event loop, clients that may not keep a connection for nothing, and an orderly end."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from biomedclip_jax.errors import UserError
from biomedclip_jax.serve._guard import Guard
from biomedclip_jax.serve.settings import Limits, Settings

_WHY = b'{"detail": "too many connections; try again in a second"}'
_LINGER_FULL = 0.5  # seconds
_LINGER = 5.0  # seconds, at least
_FULL = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_WHY), _WHY)
)


def bound(settings: Settings) -> socket.socket:
    """A socket at the address, at which nobody is heard yet. UserError where it is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        raise taken(settings, error) from None
    return made


def taken(settings: Settings, error: OSError) -> UserError:
    """What is said of an address that cannot be listened at."""
    reason = error.strerror or error
    return UserError(f"--host {settings.host} --port {settings.port}: cannot be listened at ({reason}); take another port")


class _Transport:
    """A transport whose `close` is somebody else's; all other calls go to the transport itself."""

    def __init__(self, real: asyncio.Transport, close: Callable[[], None]):
        self.real = real
        self.close = close
        self.closes = False

    def is_closing(self) -> bool:
        """Whether nothing more is read from it or written to it."""
        return self.closes or self.real.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP with limits on what it waits for without one: a request's head, and a reader of the answer.

    A connection that is closed before all of a request was read is closed for writing only, and what still comes is
    thrown away, until the time for the body is over, or for a few seconds more. Closed at once, the kernel would tell
    the client "connection reset", and a client that sends all of its request before it reads would see no answer.
    """

    class Patient(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _reader: asyncio.TimerHandle | None = None
        _end: asyncio.TimerHandle | None = None
        _body_until = 0.0
        _full = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
            self._full = len(self.connections) > limits.connections
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            if self._full:
                if self._end is None:
                    self.transport.write(_FULL)
                    self._end = self.loop.call_later(_LINGER_FULL, self._finish)
                return
            if self.transport.is_closing():
                return
            had_no_head = self.conn.their_state is h11.IDLE
            super().data_received(data)
            if had_no_head:
                self._body_until = self.loop.time() + limits.body_seconds
            if self.conn.their_state is h11.IDLE:
                self._wait_for_head()
            elif self._head is not None:
                self._head.cancel()
                self._head = None

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head, self._reader, self._end):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reader = self.loop.call_later(limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._reader is not None:
                self._reader.cancel()
                self._reader = None

        def _wait_for_head(self) -> None:
            if self._head is None:
                self._head = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def _close(self) -> None:
            """What uvicorn calls to close the connection, once or more often."""
            transport: Any = self.transport
            if transport.is_closing():
                return
            all_read = self.conn.their_state not in (h11.SEND_BODY, h11.ERROR) and not self.conn.trailing_data[0]
            if all_read:
                self._finish()
                return
            transport.closes = True
            transport.write_eof()
            self.flow.resume_reading()
            left = max(self._body_until - self.loop.time(), _LINGER)
            self._end = self.loop.call_later(left, self._finish)

        def _finish(self) -> None:
            """Close when the client has what is written already; a client that does not read has its time, too."""
            transport: Any = self.transport
            transport.real.close()
            self._end = self.loop.call_later(limits.body_seconds, transport.abort)

    return Patient


class Listening(uvicorn.Server):
    """uvicorn's server, which tells the guard of a signal at once and takes it for the ordinary end.

    ready: called when clients are heard.
    """

    def __init__(self, guard: Guard, limits: Limits, ready: Callable[[], object] = lambda: None):
        super().__init__(
            uvicorn.Config(
                guard,
                http=protocol(limits),
                ws="none",
                lifespan="on",
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=int(limits.body_seconds + limits.answer_seconds) + 1,
            )
        )
        self._guard = guard
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so: a client that hears of it is heard."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C: no new connections, and those who are inside get their answers; a second Ctrl-C: at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        asyncio.get_running_loop().call_soon_threadsafe(self._guard.stop)
