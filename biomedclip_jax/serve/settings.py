"""What a server may be asked for, and who may ask: checked before anything is loaded."""

import hashlib
import hmac
import importlib.util
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from biomedclip_jax.errors import UserError

TOKEN_VARIABLE = "BIOMEDCLIP_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """What one request may be, and how many there may be.

    body_bytes: of one request, all files together. bodies_bytes: of all requests that are inside at once.
    pixels: of one image, width times height, read from its head before it is decoded.
    images: in one request. texts: labels or texts in one request. characters: of one text.
    requests: that work, or wait for their turn to; more are told to come back (429). maps: the same, of heat maps.
    connections: open at once. head_seconds, body_seconds: for a client to send its request's head, and the rest of it.
    answer_seconds: for the answer (503 after it).
    """

    body_bytes: int = 32 << 20
    bodies_bytes: int = 256 << 20
    pixels: int = 50_000_000
    images: int = 16
    texts: int = 256
    characters: int = 4_000
    requests: int = 64
    maps: int = 4
    connections: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"{name} = {value}: expected a number above 0")
        if self.body_bytes > self.bodies_bytes:
            raise UserError(f"body_bytes = {self.body_bytes}: one request may not be larger than all ({self.bodies_bytes})")


@dataclass(frozen=True)
class Settings:
    """Where a server listens and whom it answers.

    host, port: 0 takes a free port. token: what a client has to show; None: everybody on this machine is answered.
    batch_size: images that the device works on at once, at most.
    UserError for a host that others can reach, without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    batch_size: int = 16
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UserError(f"--port {self.port}: expected a number from 0 to 65535")
        if self.token is None and not is_loopback(self.host):
            raise UserError(
                f"--host {self.host}: others can reach it, and would need no token; give --token-file FILE or the variable "
                f"{TOKEN_VARIABLE}, or leave --host out for this machine alone (127.0.0.1)"
            )

    def admits(self, token: str) -> bool:
        """Whether a token is the right one; takes as long for any wrong one."""
        return self.token is None or hmac.compare_digest(_digest(token), _digest(self.token))

    @property
    def cookie(self) -> str:
        """What a browser shows in place of the token, once it was typed in."""
        return hmac.new((self.token or "").encode(), b"biomedclip serve: page", hashlib.sha256).hexdigest()

    def admits_cookie(self, cookie: str) -> bool:
        """As `admits`, of `cookie`."""
        return self.token is None or hmac.compare_digest(_digest(cookie), _digest(self.cookie))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host. A name other than localhost counts as reached by others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(given: str | None, file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token of --token, of --token-file, or of the variable BIOMEDCLIP_TOKEN where neither is given; None without.

    UserError for two of them at once, and for one that is short or has signs that a header cannot carry.
    """
    if given is not None and file is not None:
        raise UserError(f"--token and --token-file {file}: give one of the two")
    where, token = "--token", given
    if file is not None:
        where = f"--token-file {file}"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    elif given is None:
        where, token = TOKEN_VARIABLE, environment.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"{where}: expected {_SHORTEST_TOKEN} characters or more, ASCII without blanks, that nobody can guess, as of "
            "`openssl rand -hex 32`"
        )
    return token


def check_installed() -> None:
    """UserError where the packages of the extra are not installed."""
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"serving needs {name}: pip install 'biomedclip_jax[serve]'")
