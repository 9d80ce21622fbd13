"""A real server on a real socket: clients that hang, the orderly end, and the disk."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import ROOT
from helpers.served import client, image_file, listening, served, server, write_model

from biomedclip_jax.serve._app import keep_uploads_in_memory
from biomedclip_jax.serve._metrics import Metrics
from biomedclip_jax.serve._model import ServedModel
from biomedclip_jax.serve.settings import Limits, Settings

LIMITS = Limits(body_bytes=3_000_000, bodies_bytes=9_000_000, head_seconds=0.5, body_seconds=0.5, connections=4)
HEAD = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> ServedModel:
    return served(folder, Metrics())


@pytest.fixture(scope="module")
def port(clip: ServedModel) -> Iterator[int]:
    with listening(server(clip, Settings(port=0, limits=LIMITS))) as found:
        yield found


@pytest.fixture(scope="module")
def patient_port(clip: ServedModel) -> Iterator[int]:
    """A server with the limits on time that a server has, so that a slow machine makes no difference."""
    limits = Limits(body_bytes=100_000, bodies_bytes=200_000)
    with listening(server(clip, Settings(port=0, limits=limits))) as found:
        yield found


def said(port: int, content: bytes, patience: float = 20) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(content)
        found = b""
        while part := connection.recv(65_536):
            found += part
        return found


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_head_that_never_ends_is_not_waited_for(port: int) -> None:
    assert said(port, b"GET /health HTTP/1.1\r\nHo") == b""
    assert said(port, b"") == b""
    assert said(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal").count(b"200 OK") == 1
    assert health(port) == 200


def test_a_body_that_never_ends_gets_an_answer(port: int) -> None:
    assert said(port, HEAD + b"Content-Length: 99\r\n\r\nabc").startswith(b"HTTP/1.1 408 ")
    assert health(port) == 200


MUCH = bytes(60_000_000)
MULTIPART = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("kind", "in_chunks", "status"),
    [(MULTIPART, False, 413), (MULTIPART, True, 413), ("application/json", False, 415), ("application/json", True, 415)],
)
def test_who_sends_all_before_reading_reads_why_it_is_refused(
    patient_port: int, kind: str, in_chunks: bool, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", patient_port, timeout=60)
    body = (MUCH[i : i + 1_000_000] for i in range(0, len(MUCH), 1_000_000)) if in_chunks else MUCH
    connection.request("POST", "/embed", body, {"Content-Type": kind})
    answer = connection.getresponse()
    assert answer.status == status and answer.read().startswith(b'{"detail": ') and answer.headers["connection"] == "close"
    connection.close()


@pytest.mark.parametrize("asked", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"], ["--http1.0"]])
def test_curl_reads_why_it_is_refused(patient_port: int, asked: list[str], tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on this machine")
    (tmp_path / "a.png").write_bytes(MUCH)
    command = [curl, "-sS", *asked, "-F", f"images=@{tmp_path}/a.png", f"http://127.0.0.1:{patient_port}/embed"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"") and b"a request of more than 100,000 bytes" in done.stdout


def test_who_asks_before_sending_much_is_not_asked_to_send_it(port: int) -> None:
    answer = said(port, HEAD + b"Expect: 100-continue\r\nContent-Length: 4000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"Content-Length: 4000000\r\n\r\n", b"413"),
        (HEAD + b"Content-Length: 99999\r\n\r\n", b"408"),
        (HEAD.replace(b"multipart/form-data", b"text/plain") + b"Content-Length: 4000000\r\n\r\n", b"415"),
        (HEAD.replace(b"localhost", b"elsewhere") + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n", b"403"),
        (HEAD.replace(b"POST /embed", b"GET /health") + b"Content-Length: 99999\r\n\r\n", b"408"),
        (b"no HTTP\r\n\r\n", b"400"),
    ],
)
def test_who_goes_on_sending_bit_by_bit_loses_the_connection(port: int, head: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head)
        answer, deadline = b"", time.monotonic() + 20
        connection.settimeout(0.02)
        try:
            while time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    answer += connection.recv(65_536)
                connection.sendall(b"x")
                time.sleep(0.02)
            pytest.fail("the connection is still open")
        except ConnectionError:
            assert answer.split()[1] == status


def test_no_http_at_all(port: int) -> None:
    assert said(port, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert said(port, HEAD + b"Content-Length: abc\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert health(port) == 200


def test_connections_beyond_the_most_are_told_to_come_back(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(LIMITS.connections)]
    answer = said(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1" in answer
    for each in held:
        each.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if health(port) == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail("no connection is free again")


def test_no_part_of_an_upload_is_written_to_a_file(clip: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_is_made(*_: object, **__: object) -> None:
        raise AssertionError("a file on the disk")

    monkeypatch.setattr("starlette.formparsers.MultiPartParser.spool_max_size", 1024 * 1024)
    keep_uploads_in_memory(LIMITS.body_bytes)
    monkeypatch.setattr("tempfile.TemporaryFile", none_is_made)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", none_is_made)
    content = image_file(1, "BMP", (900, 900))
    assert len(content) > 2_000_000
    answer = client(server(clip, Settings(limits=LIMITS))).post("/embed", files=[("images", ("a.bmp", content))])
    assert answer.status_code == 200, answer.text


def test_a_signal_ends_it_when_those_inside_have_their_answers(folder: Path) -> None:
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment.pop("BIOMEDCLIP_TOKEN", None)
    command = [sys.executable, "-m", "biomedclip_jax.cli", "serve", str(folder), "--port", "0", "--batch-size", "2"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "ready at" in line)
        port = int(line.split("127.0.0.1:")[1].split(",")[0].split("/")[0])
        body = b'--x\r\nContent-Disposition: form-data; name="texts"\r\n\r\nchest ray\r\n--x--\r\n'
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:30])
            time.sleep(0.3)  # it is inside
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:  # nobody else comes in
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                except OSError:
                    break
                time.sleep(0.05)
            connection.sendall(body[30:])
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"embedding"' in answer
        assert process.wait(30) == 0
        assert process.stderr.read().strip().endswith("stopped")
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
