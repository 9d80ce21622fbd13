"""A local S3 with articles, and an HTTP proxy before it that does what networks do: real faults on the wire."""

import contextlib
import hashlib
import http.client
import io
import json
import logging
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

BUCKET = "pmc-oa-opendata"


@dataclass
class FaultyS3:
    """faults: pattern of the path, kind (503, truncated, wrong, reset, closed), how often. requests: path, headers."""

    endpoint: str
    client: Any  # of boto3, to change what is there
    faults: list[list[Any]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    delay: float = 0.0  # seconds before each answer
    _before: dict[str, bytes | None] = field(default_factory=dict)

    def fail(self, pattern: str, kind: str, times: int = 1) -> None:
        self.faults.append([re.compile(pattern), kind, times])

    def put(self, objects: dict[str, bytes]) -> None:
        """For the time of a test: `restore` takes it back."""
        for key, data in objects.items():
            if key not in self._before:
                there = self.client.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", ())
                found = any(item["Key"] == key for item in there)
                self._before[key] = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() if found else None
            self.client.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")

    def restore(self) -> None:
        """As it was at first."""
        for key, data in self._before.items():
            if data is None:
                self.client.delete_object(Bucket=BUCKET, Key=key)
            else:
                self.client.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")
        self._before.clear()
        self.faults.clear()
        self.requests.clear()
        self.delay = 0.0

    def asked(self, pattern: str = "") -> list[str]:
        """Keys (listings are "?...") that were asked for since the last `requests.clear()`."""
        paths = [path.removeprefix(f"/{BUCKET}").removeprefix("/") for path, _ in self.requests]
        return [path for path in paths if re.search(pattern, path)]

    def fault(self, path: str) -> str | None:
        for fault in self.faults:
            if fault[2] > 0 and fault[0].search(path):
                fault[2] -= 1
                return fault[1]
        return None


def _handler(shared: FaultyS3, port: int) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path)
            shared.requests.append((path, dict(self.headers)))
            time.sleep(shared.delay)
            kind = shared.fault(path)
            if kind == "closed":  # without a word
                self._reset()
                return
            if kind == "503":
                self._answer(503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
                return
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", self.path, headers={"Host": f"127.0.0.1:{port}"})
            answer = connection.getresponse()
            body = answer.read()
            headers = {
                k: v for k, v in answer.getheaders() if k.lower() not in ("content-length", "connection", "date", "server")
            }
            connection.close()
            if kind == "wrong":  # as many bytes, and a header that fits the right ones
                body = bytes([body[0] ^ 1]) + body[1:]
            self._answer(answer.status, headers, body, cut=kind in ("truncated", "reset"), reset=kind == "reset")

        def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False, reset: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.close_connection = True
                if reset:
                    time.sleep(0.02)  # or what is on its way would be thrown away
                    self._reset()

        def _reset(self) -> None:
            """End the connection with RST, not FIN."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client was killed
                super().handle()

    return Proxy


@contextlib.contextmanager
def faulty_s3(articles: Path) -> Iterator[FaultyS3]:
    """articles: a folder in the cloud's layout; the bucket gets all that is in it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    shared = FaultyS3("", client)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(shared, port))
    proxy.daemon_threads = True
    shared.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        client.create_bucket(Bucket=BUCKET)
        for path in sorted(articles.rglob("*")):
            if path.is_file():
                client.put_object(
                    Bucket=BUCKET, Key=path.relative_to(articles).as_posix(), Body=path.read_bytes(), ACL="public-read"
                )
        yield shared
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
        client.close()
        moto.stop()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def small_article(number: int, version: int, license_code: str = "CC BY", **facts: object) -> dict[str, bytes]:
    """Key -> bytes of an article with one picture, for the cloud's layout."""
    from PIL import Image

    article = f"PMC{number}.{version}"
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, version, 0)).save(picture, "PNG")
    xml = (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta><article-id pub-id-type="pmcid">PMC{number}'
        f'</article-id></article-meta></front><body><fig id="f1"><caption><p>Version {version}.</p></caption>'
        f'<graphic xlink:href="f1.png"/></fig></body></article>'
    ).encode()
    address = f"s3://{BUCKET}/{article}"
    metadata = {
        "pmcid": f"PMC{number}",
        "version": version,
        "pmid": number + 1,
        "is_pmc_openaccess": True,
        "is_manuscript": False,
        "license_code": license_code,
        "xml_url": f"{address}/{article}.xml?md5={md5(xml)}",
        "media_urls": [f"{address}/f1.png?md5={md5(picture.getvalue())}"],
        **facts,
    }
    data = json.dumps(metadata).encode()
    return {
        f"{article}/f1.png": picture.getvalue(),
        f"{article}/{article}.xml": xml,
        f"{article}/{article}.json": data,
        f"metadata/{article}.json": data,
    }
