"""The rows of the next state of an index on a server, and the vectors that are there already.

Points of the next state are written as they come, and no search sees them before `finish` says that it counts: after a
kill they are known vectors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError
from biomedclip_jax.search._folder import CONTENT, SEEN, IndexedModel, Manifest, state_name
from biomedclip_jax.search._pass import digest
from biomedclip_jax.search._server import (
    FIRST,
    GONE,
    KEY,
    Server,
    from_text,
    number_key,
    payload_key,
    payload_of,
)
from biomedclip_jax.search._server_index import conditions

_AT_ONCE = 64  # points in a request
_LONG = ("image", "caption", "citation")  # columns that are no part of the server's indices


class ServerRows:
    """Both what is known and what takes the rows. count: how many rows the new state has."""

    def __init__(self, server: Server, before: Manifest | None, manifest: Manifest):
        """manifest: of the new state, whose number is the one behind that of `before`. UserError for a collection that was
        made for vectors of another kind.
        """
        self._server, self._manifest, self._state = server, manifest, manifest.number
        self._columns: dict[str, bool] = {}  # in order, and whether there are numbers
        self._points: dict[str, int] = {}  # content -> a point with its vector
        self._keys: dict[str, int] = {}  # key of a row -> its point
        self._marks: dict[tuple[str, str], str] = {}  # a file, and what was seen of it -> its content
        self._new: dict[str, np.ndarray] = {}  # vectors that no point has yet
        self._waiting: list[tuple[int, str, dict[str, Any]]] = []
        self._old: set[int] = set()  # points of the state before
        self._kept: set[int] = set()
        self._next = self.count = 0
        self.before: set[str] = set()
        unlike = before is not None and not before.number and _kind(before.model) != _kind(manifest.model)
        if unlike:
            server.ask("delete_collection")
        if before is None or unlike:
            self._create()
        else:
            self._remember(before)

    def _create(self) -> None:
        from qdrant_client import models

        width = self._manifest.model.width
        self._made = not self._server.ask("collection_exists")
        if self._made:
            one = models.VectorParams(size=width, distance=models.Distance.DOT)
            self._server.ask("create_collection", vectors_config=one, hnsw_config=models.HnswConfigDiff(m=0))
        else:
            there = self._server.ask("get_collection").config.params.vectors
            if getattr(there, "size", None) != width or there.distance != models.Distance.DOT:
                raise UserError(
                    f"{self._server.address}: is there already, for vectors of another kind; expected one unnamed vector of "
                    f"size {width} and distance Dot, or no collection"
                )
        self._server.write_manifest(replace(self._manifest, state=state_name(0)))

    def _remember(self, before: Manifest) -> None:
        from qdrant_client import models

        self._made = False
        late = models.Filter(must=[models.FieldCondition(key=GONE, range=models.Range(gt=before.number))])
        self._server.ask("delete_payload", keys=[GONE], points=late, wait=True)  # of one that was killed
        self._delete_gone(before.number)
        rows = models.Filter(must=[models.FieldCondition(key=FIRST, range=models.Range(gte=0))])
        for point in self._server.scroll(rows, [FIRST, KEY, *map(payload_key, ("image", SEEN, CONTENT))]):
            found = point.payload
            content = found[payload_key(CONTENT)]
            self._points.setdefault(content, point.id)
            self._keys[found[KEY]] = point.id
            self._next = max(self._next, point.id + 1)
            if mark := found.get(payload_key(SEEN)):
                self._marks[from_text(found[payload_key("image")]), mark] = content
            if found[FIRST] <= before.number:
                self._old.add(point.id)
                self.before.add(content)

    def content_of(self, image: str, mark: str) -> str | None:
        """The content of a file that has not changed since it was indexed; None where that is not known."""
        return self._marks.get((image, mark)) if mark else None

    def __contains__(self, content: str) -> bool:
        return content in self._points or content in self._new

    def add(self, contents: Sequence[str], vectors: np.ndarray) -> None:
        """Note vectors, float32 [n, E]; they survive a kill when `save` returns."""
        self._new |= dict(zip(contents, vectors, strict=True))

    def add_row(self, cells: Mapping[str, str], content: str) -> None:
        """A row in the order of the data; the vector of its content is known."""
        payload, key = payload_of(cells), digest(cells).hex()
        for name, text in cells.items():
            self._columns[name] = self._columns.get(name, False) or (bool(text) and number_key(name) in payload)
        self.count += 1
        if (there := self._keys.get(key)) is not None:
            self._kept.add(there)
            return
        self._keys[key] = self._next
        self._kept.add(self._next)
        self._waiting.append((self._next, content, payload | {FIRST: self._state, KEY: key}))
        self._next += 1

    def save(self) -> None:
        """Write the points that are in memory."""
        from qdrant_client import models

        for start in range(0, len(self._waiting), _AT_ONCE):
            part = self._waiting[start : start + _AT_ONCE]
            there = sorted({self._points[content] for _, content, _ in part if content not in self._new})
            known = dict(zip(there, self._server.vectors(there, self._manifest.model.width), strict=True))
            points = []
            for number, content, payload in part:
                vector = self._new[content] if content in self._new else known[self._points[content]]
                points.append(models.PointStruct(id=number, vector=vector.tolist(), payload=payload))
            self._server.ask("upsert", points=points, wait=True)
        for number, content, _ in self._waiting:
            self._points.setdefault(content, number)
        self._waiting.clear()
        self._new.clear()

    def give_up(self) -> None:
        """After an error: a collection that has no row, and had none, is removed."""
        if self._made and not self.count:
            self._server.ask("delete_collection")

    def finish(self, count: int, rejects: int) -> None:
        """Let the new state count, and remove what is in it no more. UserError where the server has other rows."""
        from qdrant_client import models

        unused = [point for point in self._keys.values() if point not in self._kept and point not in self._old]
        for part in _portions(unused):
            self._server.ask("delete", points_selector=part, wait=True)
        for part in _portions(sorted(self._old - self._kept)):
            self._server.ask("set_payload", payload={GONE: self._state}, points=part, wait=True)
        self._make_indices()
        found = self._server.ask("count", count_filter=conditions(self._state, []), exact=True).count
        if found != count:
            raise UserError(
                f"{self._server.address}: holds {found:,} images of the new state, expected {count:,}; was something else "
                "written to it? Run it again"
            )
        graph = self._manifest.approximate
        self._server.ask("update_collection", hnsw_config=models.HnswConfigDiff(m=graph["m"] if graph else 0))
        columns = tuple(self._columns)
        self._server.write_manifest(replace(self._manifest, count=count, rejects=rejects, columns=columns))
        self._delete_gone(self._state)

    def _make_indices(self) -> None:
        """Let the server find rows by what columns say, without reading all of them."""
        from qdrant_client import models

        for name in (FIRST, GONE):
            self._server.ask("create_payload_index", field_name=name, field_schema=models.PayloadSchemaType.INTEGER, wait=False)
        for name, numbers in self._columns.items():
            if name.startswith(" ") or name in _LONG:
                continue
            texts = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, on_disk=True)
            self._server.ask("create_payload_index", field_name=payload_key(name), field_schema=texts, wait=False)
            if numbers:
                kind = models.PayloadSchemaType.FLOAT
                self._server.ask("create_payload_index", field_name=number_key(name), field_schema=kind, wait=False)

    def _delete_gone(self, state: int) -> None:
        from qdrant_client import models

        gone = models.Filter(must=[models.FieldCondition(key=GONE, range=models.Range(lte=state))])
        self._server.ask("delete", points_selector=gone, wait=True)


def _kind(model: IndexedModel) -> tuple[str, ...]:
    """What vectors must have in common."""
    return model.fingerprint, model.preprocessing, model.dtype


def _portions(points: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(points), 1_000):
        yield points[start : start + 1_000]
