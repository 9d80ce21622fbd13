"""A Qdrant server for tests: the part of its REST interface that we use, over Qdrant's own engine (qdrant-edge), which keeps
vectors and payloads, filters and compares as it does in the server.

    python tests/helpers/qdrant_server.py PORT   # for trying by hand; what it holds is gone with it
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge

Json = dict[str, Any]


class Refused(Exception):
    """An answer that is none: status and message."""


class Engine:
    """Collections by name, each a shard of the engine."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._shards: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self.made = 0
        self.calls: list[str] = []

    def answer(self, method: str, parts: list[str], body: Json) -> Any:
        """What the server says to a request. parts: the path behind /collections/."""
        name, rest = parts[0], "/".join(parts[1:])
        self.calls.append(f"{method} {rest}")
        if rest == "exists":
            return {"exists": name in self._shards}
        if (method, rest) == ("PUT", ""):
            return self._create(name, body)
        if name not in self._shards:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        if (method, rest) == ("DELETE", ""):
            self._shards.pop(name).close()
            return True
        if (method, rest) == ("PATCH", ""):
            return True
        if (method, rest) == ("GET", ""):
            return self._about(name)
        answers: dict[tuple[str, str], Callable[[Any, Json], Any]] = {
            ("PUT", "index"): _make_index,
            ("PUT", "points"): _upsert,
            ("POST", "points"): _retrieve,
            ("POST", "points/scroll"): _scroll,
            ("POST", "points/query"): _query,
            ("POST", "points/count"): _count,
            ("POST", "points/delete"): _delete,
            ("POST", "points/payload"): _set_payload,
            ("POST", "points/payload/delete"): _delete_payload,
        }
        return answers[method, rest](self._shards[name], body)

    def _create(self, name: str, body: Json) -> bool:
        if name in self._shards:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        assert body["vectors"]["distance"] == "Dot"
        size = body["vectors"]["size"]
        self.made += 1
        one = edge.EdgeVectorParams(size=size, distance=edge.Distance.Dot)
        folder = self._folder / f"{self.made}"
        folder.mkdir(parents=True)
        self._shards[name] = edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=one))
        self._sizes[name] = size
        return True

    def _about(self, name: str) -> Json:
        vectors = {"size": self._sizes[name], "distance": "Dot"}
        hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
        optimizers = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1_000, "default_segment_number": 0}
        optimizers |= {"flush_interval_sec": 5}
        config = {"params": {"vectors": vectors}, "hnsw_config": hnsw, "optimizer_config": optimizers}
        return {"status": "green", "optimizer_status": "ok", "segments_count": 1, "config": config, "payload_schema": {}}


def _filter(body: Json | None) -> Any:
    if body is None:
        return None
    assert set(body) <= {"must", "must_not"}
    parts = {key: [_condition(each) for each in body[key]] for key in ("must", "must_not") if body.get(key)}
    return edge.Filter(**parts)


def _condition(body: Json) -> Any:
    if "is_empty" in body:
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "range" in body:
        limits = {key: float(value) for key, value in body["range"].items() if value is not None}
        return edge.FieldCondition(body["key"], range=edge.RangeFloat(**limits))
    return edge.FieldCondition(body["key"], match=edge.MatchValue(body["match"]["value"]))


def _record(point: Any) -> Json:
    return {"id": point.id, "payload": point.payload, "vector": point.vector}


def _wanted(body: Json) -> tuple[Any, bool]:
    return body.get("with_payload") or False, bool(body.get("with_vector"))


def _make_index(shard: Any, body: Json) -> Json:
    schema = body["field_schema"]
    kind = schema["type"] if isinstance(schema, dict) else schema
    shard.update(edge.UpdateOperation.create_field_index(body["field_name"], getattr(edge.PayloadSchemaType, kind.title())))
    return _done()


def _upsert(shard: Any, body: Json) -> Json:
    points = [edge.Point(each["id"], each["vector"], each["payload"]) for each in body["points"]]
    shard.update(edge.UpdateOperation.upsert_points(points))
    return _done()


def _retrieve(shard: Any, body: Json) -> list[Json]:
    payload, vector = _wanted(body)
    return [_record(point) for point in shard.retrieve(body["ids"], payload, vector)]


def _scroll(shard: Any, body: Json) -> Json:
    payload, vector = _wanted(body)
    given = edge.ScrollRequest(body.get("offset"), body.get("limit"), _filter(body.get("filter")), payload, vector)
    points, offset = shard.scroll(given)
    return {"points": [_record(point) for point in points], "next_page_offset": offset}


def _query(shard: Any, body: Json) -> Json:
    payload, vector = _wanted(body)
    params = body.get("params") or {}
    how = edge.SearchParams(hnsw_ef=params.get("hnsw_ef"), exact=bool(params.get("exact")))
    request = edge.QueryRequest(
        limit=body["limit"],
        query=edge.Query.Nearest(body["query"]["nearest"]),
        with_vector=vector,
        with_payload=payload,
        filter=_filter(body.get("filter")),
        params=how,
    )
    points = [_record(point) | {"score": point.score, "version": point.version} for point in shard.query(request)]
    return {"points": points}


def _count(shard: Any, body: Json) -> Json:
    return {"count": shard.count(edge.CountRequest(exact=True, filter=_filter(body.get("filter"))))}


def _delete(shard: Any, body: Json) -> Json:
    if "points" in body:
        shard.update(edge.UpdateOperation.delete_points(body["points"]))
    else:
        shard.update(edge.UpdateOperation.delete_points_by_filter(_filter(body["filter"])))
    return _done()


def _set_payload(shard: Any, body: Json) -> Json:
    shard.update(edge.UpdateOperation.set_payload(body["points"], body["payload"]))
    return _done()


def _delete_payload(shard: Any, body: Json) -> Json:
    shard.update(edge.UpdateOperation.delete_payload_by_filter(_filter(body["filter"]), body["keys"]))
    return _done()


def _done() -> Json:
    return {"operation_id": 0, "status": "completed"}


class QdrantServer:
    """A server that runs. url: where. engine: what answers. key: without it nobody is answered. fail: asked before each
    request with its method and path, it may raise `Refused`, or wait.
    """

    def __init__(self, folder: Path, port: int = 0):
        self.engine = Engine(folder)
        self.key: str | None = None
        self.fail: Callable[[str, str], object] = lambda method, path: None
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                path = urlsplit(self.path).path
                status, answer = 200, {"time": 0.0, "status": "ok"}
                try:
                    outer.fail(self.command, path)
                    if outer.key is not None and self.headers.get("api-key") != outer.key:
                        raise Refused(401, "Must provide an API key or an Authorization bearer token")
                    parts = [unquote(part) for part in path.removeprefix("/collections/").split("/")]
                    with lock:
                        answer["result"] = outer.engine.answer(self.command, parts, body)
                except Refused as refused:
                    status, said = refused.args
                    answer["status"] = {"error": said}
                except Exception as error:  # what the engine does not take
                    status, answer["status"] = 400, {"error": f"{type(error).__name__}: {error}"}
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):  # a client that did not wait
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.serve = self._http.serve_forever

    def close(self) -> None:
        """Stop it."""
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[QdrantServer]:
    """A server for the block, which keeps its files in a folder."""
    server = QdrantServer(folder)
    thread = threading.Thread(target=server.serve, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    print(os.getpid(), folder, flush=True)
    try:
        QdrantServer(folder, int(sys.argv[1])).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
