"""A collection on a Qdrant server that holds an index: the connection, what the index says of itself, who writes it.

A row is a point: its number is the row's position, its payload what is known of the image (`payload_key` names a
column there), `first` the state that brought it and `gone`, if it is there, the first state without it. One more point
says, as `index.json` does in a folder, which state counts: whoever is killed before that leaves the old state.
"""

import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.search._folder import Manifest, manifest_of, manifest_text
from biomedclip_jax.search.filters import number_of

FIRST, GONE, KEY = "first", "gone", "key"  # of a point: states, and what tells its row from every other
GRAPH = {"kind": "HNSW", "m": 16, "ef": 256}  # for an approximate search
_MANIFEST_POINT = 2**53 - 1  # a number that JSON keeps
_SECONDS = 120  # for one answer
_AT_ONCE = 256  # vectors in an answer
_PAGE = 5_000  # points in an answer without vectors
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,50}")


def is_address(where: Path | str) -> bool:
    """Whether an index is on a server: http://HOST:6333/COLLECTION."""
    return str(where).startswith(("http://", "https://"))


class Server:
    """A collection of a server. collection: its name. lock: for `support.owner.owned`."""

    def __init__(self, address: str):
        """UserError for an address of another form, and without qdrant-client. Nothing is asked yet."""
        self.address = address
        url, self.collection = _parts(address)
        self._client = _connect(url)
        self.lock = _Lock(self, url)

    def ask(self, what: str, collection: str | None = None, **given: Any) -> Any:
        """Call a method of `QdrantClient` on the collection, or on another one. UserError where no answer comes of it."""
        from qdrant_client.http.exceptions import ApiException

        try:
            return getattr(self._client, what)(collection_name=collection or self.collection, **given)
        except (ApiException, ValueError) as error:  # ValueError: what cannot be put into a request
            raise _said(self.address, error) from error

    def scroll(self, where: Any, payload: Sequence[str] = ()) -> Iterator[Any]:
        """The points that a filter leaves, rising, with these parts of their payloads and without vectors."""
        start = None
        while True:
            given = {"scroll_filter": where, "limit": _PAGE, "offset": start, "with_payload": list(payload) or False}
            points, start = self.ask("scroll", **given)
            yield from points
            if start is None:
                return

    def retrieve(self, numbers: Sequence[int], payload: Sequence[str] = (), *, vectors: bool = False) -> dict[int, Any]:
        """Points by their numbers, with these parts of their payloads. UserError where one is not there any more."""
        found: dict[int, Any] = {}
        for start in range(0, len(numbers), _AT_ONCE):
            part = [int(each) for each in numbers[start : start + _AT_ONCE]]
            points = self.ask("retrieve", ids=part, with_payload=list(payload) or False, with_vectors=vectors)
            found |= {point.id: point for point in points}
        if any(int(each) not in found for each in numbers):
            raise UserError(f"{self.address}: was brought up to date meanwhile; do it again")
        return found

    def vectors(self, numbers: Sequence[int], width: int) -> np.ndarray:
        """The vectors of points, float32 [n, width]; otherwise as `retrieve`."""
        found = self.retrieve(numbers, vectors=True)
        return np.array([found[int(each)].vector for each in numbers], np.float32).reshape(-1, width)

    def read_manifest(self) -> Manifest | None:
        """What the index says of itself, with state 0 where none was finished yet; None where there is no collection, or
        an empty one. UserError for a collection that holds something else.
        """
        if not self.ask("collection_exists"):
            return None
        found = self.ask("retrieve", ids=[_MANIFEST_POINT], with_payload=True, with_vectors=False)
        if not found:
            if self.ask("count", exact=True).count:
                raise UserError(f"{self.address}: holds points that `biomedclip index` has not made; choose another collection")
            return None
        try:
            return manifest_of(found[0].payload["manifest"], self.address)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.address}: not what `biomedclip index` writes ({error}); choose another collection"
            ) from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Make a state the one that counts."""
        from qdrant_client import models

        vector, payload = [0.0] * manifest.model.width, {"manifest": manifest_text(manifest)}
        self.ask("upsert", points=[models.PointStruct(id=_MANIFEST_POINT, vector=vector, payload=payload)], wait=True)


class _Lock:
    """Who writes a collection: a collection beside it, of one point, which only one process can create."""

    def __init__(self, server: Server, url: str):
        self.root, self.name, self._server = url, f"{server.collection}-writer", server

    def create(self, name: str, content: bytes) -> bool:
        """Whether it was not there, and is now."""
        from qdrant_client import models

        one = models.VectorParams(size=1, distance=models.Distance.DOT)
        try:
            self._server.ask("create_collection", name, vectors_config=one)
        except UserError:
            if self._server.ask("collection_exists", name):
                return False
            raise
        self.write_json(name, json.loads(content))
        return True

    def read_json(self, name: str) -> Any:
        """What it holds. FileNotFoundError where it is not there."""
        if not self._server.ask("collection_exists", name):
            raise FileNotFoundError(name)
        found = self._server.ask("retrieve", name, ids=[0], with_payload=True)
        return found[0].payload if found else {}

    def write_json(self, name: str, value: Any) -> None:
        """Let it hold something else."""
        from qdrant_client import models

        self._server.ask("upsert", name, points=[models.PointStruct(id=0, vector=[1.0], payload=value)], wait=True)

    def remove(self, name: str) -> None:
        """Remove it."""
        self._server.ask("delete_collection", name)


def payload_key(column: str) -> str:
    """What a column is called in a payload: names there must have no dots and brackets."""
    if _PLAIN.fullmatch(column):
        return f"c_{column}"
    if column[:1] == " " and _PLAIN.fullmatch(column[1:]):
        return f"h_{column[1:]}"
    return f"x_{hashlib.blake2b(column.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def number_key(column: str) -> str:
    """Where the number is that a column's text is."""
    return f"n{payload_key(column)}"


def payload_of(cells: Mapping[str, str]) -> dict[str, Any]:
    """The payload of a row: its texts but those that are empty, and of those that are numbers the numbers, too."""
    found: dict[str, Any] = {payload_key(name): to_text(text) for name, text in cells.items() if text}
    numbers = {name: number_of(text) for name, text in cells.items() if not name.startswith(" ")}
    return found | {number_key(name): number for name, number in numbers.items() if number is not None}


def to_text(text: str) -> str:
    """A text as UTF-8 can hold it; different ones stay different."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "\0" + json.dumps(text)
    return "\0" + json.dumps(text) if text.startswith("\0") else text


def from_text(text: str) -> str:
    """What `to_text` was given."""
    return json.loads(text[1:]) if text.startswith("\0") else text


def _parts(address: str) -> tuple[str, str]:
    """The address of the server, and the collection."""
    try:
        parts = urlsplit(address)
        path, _, collection = parts.path.rstrip("/").rpartition("/")
        fine = parts.hostname and collection and not parts.query and not parts.fragment and parts.username is None
        port = parts.port
    except ValueError:
        fine, path, collection, port = False, "", "", None
    if not fine:
        raise UserError(
            f"{address}: expected http://HOST:6333/COLLECTION, a collection on a Qdrant server (its key in QDRANT_API_KEY)"
        )
    host = parts.netloc if port is not None else f"{parts.netloc}:6333"
    return f"{parts.scheme}://{host}{path}", unquote(collection)


def _connect(url: str) -> Any:
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise UserError("an index on a Qdrant server needs qdrant-client: pip install 'biomedclip_jax[qdrant]'") from error
    key = os.environ.get("QDRANT_API_KEY") or None
    if key and url.startswith("http://") and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        print(f"{url}: the key of QDRANT_API_KEY goes over the network as it is; better https://", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of that
        return QdrantClient(url=url, api_key=key, timeout=_SECONDS, check_compatibility=False)


def _said(address: str, error: Exception) -> UserError:
    """An error of the client in one line."""
    import httpx

    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return UserError(f"{address}: the server refuses ({status}): is the variable QDRANT_API_KEY right?")
    if status is not None:
        content = getattr(error, "content", b"")
        try:
            content = json.loads(content)["status"]["error"]
        except (ValueError, KeyError, TypeError):
            content = content[:200].decode("utf-8", "replace")
        return UserError(f"{address}: the server answers {status}: {' '.join(str(content).split())[:500]}")
    source = getattr(error, "source", error)
    if isinstance(source, httpx.TimeoutException):
        return UserError(f"{address}: no answer within {_SECONDS} s; what was there before still counts: run it again")
    if isinstance(source, httpx.HTTPError | OSError):
        return UserError(f"{address}: cannot be reached ({source}); is the server running, and the address right?")
    return UserError(f"{address}: no answer that can be used ({' '.join(str(source).split())[:200]})")
