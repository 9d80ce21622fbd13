"""Stands before the application: who may come in, how large a request may be, and how long a client may take to send it.

A request goes on only when all of it is here, so that a slow client takes up no more than its connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from json import dumps, loads
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from python_multipart.multipart import parse_options_header

from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve.settings import Settings, is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

COOKIE = "biomedclip"
LOGIN = "/login"
HEALTH = ("/health", "/health/live", "/health/ready")
PAGE = "/page"
# of what Gradio would answer, what the page asks for: the rest runs ffmpeg, calls other servers, changes components
_PAGE_POSTS = tuple(f"{PAGE}/gradio_api/{name}" for name in ("upload", "queue/join", "cancel", "reset"))
_JOIN = f"{PAGE}/gradio_api/queue/join"
_OPEN = (*HEALTH, LOGIN)  # without a token
_LOOKS = ("GET", "HEAD", "OPTIONS")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),
    # nothing on the page is fetched from, or sent to, anybody else
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; form-action 'self'",
    ),
]


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, list(headers)


_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_LATER = [(b"retry-after", b"1")]


class Guard:
    """An ASGI application around another one.

    paths: the addresses with their methods, which are counted by their own names; others are "page" or "other".
    uploads: the folder of the files that the page may speak of.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings,
        metrics: Metrics,
        paths: Mapping[str, Iterable[str]],
        uploads: Path | None = None,
    ):
        self._application = application
        self._settings = settings
        self._limits = settings.limits
        self._metrics = metrics
        self._paths = {*paths, LOGIN}
        self._forms = {path for path, methods in paths.items() if "post" in methods}
        self._bytes = 0
        self._inside = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self._uploads = uploads
        self.stopping = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:  # no websocket is served
            await send({"type": "websocket.close", "code": 1008})

    def stop(self) -> None:
        """Say from now on that the server stops, and end what would never end: the page's wait for news."""
        self.stopping = True
        for task in self._streams:
            task.cancel()

    async def _request(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        began, status, whole = time.monotonic(), 0, False

        async def sent(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [pair for pair in message.get("headers", ()) if not pair[0].lower().startswith(b"access-control-")]
                message["headers"] = [*given, *_HEADERS]
            else:
                whole = not message.get("more_body", False)
            await send(message)

        self._metrics.inside.inc()
        body: bytes | None = None
        try:
            try:
                self._check(scope)
                body = await self._body(scope, receive)
                _check_form(scope, body)
                if scope["path"] == _JOIN:
                    _check_files(body, self._uploads)
                await self._pass_on(scope, _replayed(body, receive), sent)
            except Refused as refused:
                await _answer(sent, refused, close=body is None and _has_body(scope))
            if status and not whole:  # a stream that was ended
                await sent({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._count_bytes(-len(body or b""))
            self._metrics.inside.dec()
            self._metrics.answered(self._shown(scope["path"]), status, time.monotonic() - began)

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(PAGE) or "heartbeat" not in scope["path"]:
            await self._application(scope, receive, send)
            return
        task = asyncio.ensure_future(self._application(scope, receive, send))  # type: ignore[arg-type]
        self._streams.add(task)
        try:
            await task
        except asyncio.CancelledError:
            if not self.stopping:
                task.cancel()
                raise
        finally:
            self._streams.discard(task)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        """Who asks. Refused without a token, from a page of somebody else, and by a name that is not this machine's."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        own_page = host != "" and (origin or "").partition("://")[2] == host
        if origin is not None and scope["method"] not in _LOOKS and not own_page:
            raise Refused(403, f"a page of {origin[:100]} asks, and this server answers its own page and programs only")
        self._check_token(scope, headers, host)
        if scope["path"].startswith(PAGE) and not _asked_by_page(scope):
            raise Refused(404, "Not Found")
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and scope["path"] in self._forms and kind not in _FORMS:
            raise Refused(415, f"Content-Type {kind[:100]!r}: expected a form, multipart/form-data (as of `curl -F`)")

    def _check_token(self, scope: MutableMapping[str, Any], headers: dict[bytes, str], host: str) -> None:
        if self._settings.token is None:
            if host and not is_loopback(_name_of(host)):
                raise Refused(
                    403, "this server has no token and answers to localhost and 127.0.0.1 only; start it with a token"
                )
            return
        if scope["path"] in _OPEN or self._shown_token(headers):
            return
        if scope["method"] == "GET" and "text/html" in headers.get(b"accept", ""):
            raise Refused(303, "a token is needed", [(b"location", LOGIN.encode())])
        raise Refused(
            401,
            "a token is needed: the header 'Authorization: Bearer TOKEN', with the server's token",
            [(b"www-authenticate", b"Bearer")],
        )

    def _shown_token(self, headers: dict[bytes, str]) -> bool:
        kind, _, token = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._settings.admits(token.strip())
        pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", "").split(";"))
        return any(name == COOKIE and self._settings.admits_cookie(value) for name, _, value in pairs)

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """All of the body, which counts as inside from here on. Refused when it is too large, or comes too slowly."""
        limits = self._limits
        try:
            length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        except ValueError:
            raise Refused(400, "Content-Length: expected a number") from None
        if length > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(limits.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the client left")
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    if size + len(chunk) > limits.body_bytes:
                        raise _too_large(limits.body_bytes)
                    if self._bytes + len(chunk) > limits.bodies_bytes:
                        raise Refused(429, "too many requests are inside; try again in a second", _LATER)
                    size += len(chunk)
                    self._count_bytes(len(chunk))
                    chunks.append(chunk)
        except BaseException as error:
            self._count_bytes(-size)
            chunks.clear()  # the error knows this frame
            if isinstance(error, TimeoutError):
                raise Refused(408, f"the request did not come within {limits.body_seconds:g} s") from None
            raise
        return b"".join(chunks)

    def _count_bytes(self, count: int) -> None:
        self._bytes += count
        self._metrics.body_bytes.set(self._bytes)

    def _shown(self, path: str) -> str:
        if path in self._paths:
            return path
        return "page" if path.startswith(PAGE) else "other"


def _name_of(host: str) -> str:
    """The name or address in a Host header, "" for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


def _asked_by_page(scope: MutableMapping[str, Any]) -> bool:
    if scope["method"] in _LOOKS:
        return "proxy=" not in scope["path"] and "://" not in scope["path"]
    return scope["path"] in _PAGE_POSTS


def _check_form(scope: MutableMapping[str, Any], body: bytes) -> None:
    """Refused for a form in parts whose end is missing: the last part would be passed over; and for another encoding.

    Starlette takes any encoding that Python has, of which some (punycode) take seconds for a few kilobytes.
    """
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    name, options = parse_options_header(kind)
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8"):
        raise Refused(415, f"charset {charset[:100].decode('latin-1')!r}: expected utf-8")
    boundary = options.get(b"boundary")
    if name == b"multipart/form-data" and boundary and b"--%s--" % boundary not in body[-len(boundary) - 200 :]:
        raise Refused(400, "the form has no end; is a part of it missing?")


def _check_files(body: bytes, uploads: Path | None) -> None:
    """Refused for a file that is no upload of the page.

    Gradio, mounted into an application, reads any path of this machine, and fetches any address, that it is told.
    """

    def seen(pairs: list[tuple[str, Any]]) -> None:
        for name, value in pairs:
            if name == "path" and not (isinstance(value, str) and uploads is not None and _lies_in(value, uploads)):
                raise Refused(403, "expected a file that was uploaded here")

    try:
        loads(body, object_pairs_hook=seen)
    except (ValueError, RecursionError):
        raise Refused(400, "expected JSON") from None


def _lies_in(name: str, folder: Path) -> bool:
    """Whether a path is one of a folder's folders' files: Gradio makes a folder for each upload."""
    return folder.resolve() in Path(name).resolve().parents[1:]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one piece; after that whatever comes, such as the client's leave."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _too_large(most: int) -> Refused:
    return Refused(413, f"a request of more than {most:,} bytes; send fewer or smaller files")


def _has_body(scope: MutableMapping[str, Any]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])


async def _answer(send: Send, refused: Refused, close: bool) -> None:
    """close: say that the connection ends with this, as the rest of the request will not be read."""
    body = dumps({"detail": refused.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refused.headers]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
