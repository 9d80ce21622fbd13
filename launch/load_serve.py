#!/usr/bin/env python3
"""Good and bad requests for a running `biomedclip serve`, and what came of them: statuses, times, the server's memory.

    launch/load_serve.py http://127.0.0.1:8000 --images DIR --minutes 60 --out load.json

Needs nothing but Python. Every good request is asked many times over and must be answered as it was at first, when nobody
else asked: rows that batches mix up would be seen. Every bad one must get the status that it deserves. OUT is written once a
minute. Exit code 1 if any answer was not the expected one; 429 (come back later) is counted apart. DIR holds JPEG, PNG or
DICOM files, of which the first 60 are sent.
"""

import argparse
import http.client
import json
import os
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

KINDS = (".jpg", ".jpeg", ".png", ".dcm")
LABELS = ["chest X-ray", "brain MRI", "abdominal CT", "ultrasound", "histology", "fundus photograph", "pie chart"]
TEXTS = ["a chest X-ray with pleural effusion", "axial CT of the abdomen", "cells", "no finding", "an MRI of the knee " * 20]
CLOSE = 1e-4  # between two answers to one request, in batches of other sizes
UNFINISHED = (
    b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
)
Sent = tuple[str, str, bytes | Iterator[bytes], dict[str, str]]  # method, path, body, headers


def form(fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A multipart body; each file goes into the field `images`, or into the one that its name begins with: "image:x.png"."""
    boundary = "----load"
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    for name, content in files:
        field, _, name = name.rpartition(":")
        parts.append(f'{head}"{field or "images"}"; filename="{name}"\r\n'.encode())
        parts.append(b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few kilobytes to a megabyte that unpacks to `side` x `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, rows = zlib.compressobj(9), b""
    for _ in range(side):
        rows += packer.compress(bytes(side + 1))
    rows += packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Load:
    """The requests, and what came of them so far."""

    def __init__(self, address: str, token: str | None, images: list[tuple[str, bytes]], seed: int):
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.token = token
        self.images = images
        self.bomb = bomb()
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.unexpected: list[str] = []
        self.first: dict[str, object] = {}
        self.later = 0
        self.minutes: list[dict[str, float]] = []
        self.good, self.slow = self._good(), self._slow_ones()
        self.bad = self._bad()

    def ask(self, sent: Sent, timeout: float = 120) -> tuple[int, bytes]:
        """Status and body of an answer."""
        method, path, body, headers = sent
        if self.token:
            headers = headers | {"Authorization": f"Bearer {self.token}"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def schema(self) -> set[str]:
        """The addresses that the server has."""
        return set(json.loads(self.ask(("GET", "/openapi.json", b"", {}))[1])["paths"])

    def _post(self, path: str, fields: list[tuple[str, str]], files: list[tuple[str, bytes]]) -> Sent:
        body, headers = form(fields, files)
        return "POST", path, body, headers

    def _good(self) -> dict[str, list[Sent]]:
        one = [[image] for image in self.images[:40]]
        many = [self.images[i : i + 5] for i in range(0, len(self.images) - 5, 5)]
        labels = [("labels", label) for label in LABELS]
        few = [("labels", label) for label in LABELS[:2]]
        found = {
            "classify 1 image": [self._post("/classify", labels, each) for each in one],
            "classify 5 images": [self._post("/classify", [*few, ("top", "1")], each) for each in many],
            "classify, several labels": [self._post("/classify", [*few, ("multi_label", "true")], each) for each in one[:10]],
            "embed 1 image": [self._post("/embed", [], each) for each in one],
            "embed texts": [self._post("/embed", [("texts", text) for text in TEXTS[:n]], []) for n in range(1, 6)],
            "health": [("GET", "/health/ready", b"", {})],
        }
        there = self.schema()
        if "/heatmap" in there:
            found["heatmap"] = [
                self._post("/heatmap", [("phrase", LABELS[0])], [("image:" + n, c)]) for n, c in self.images[:3]
            ]
        if "/search" in there and self.ask(self._post("/search", [("text", "x")], []))[0] == 200:
            found["search text"] = [self._post("/search", [("text", text)], []) for text in TEXTS[:4]]
            found["search image"] = [self._post("/search", [], [("image:" + n, c)]) for n, c in self.images[:5]]
        return found

    def _bad(self) -> dict[str, tuple[int, Sent]]:
        image = self.images[0]
        labels = [("labels", label) for label in LABELS[:2]]
        half = (image[0], image[1][: len(image[1]) // 2])
        return {
            "not an image": (422, self._post("/classify", labels, [("a.png", b"no image" * 50)])),
            "half an image": (422, self._post("/classify", labels, [half])),
            "an empty file": (422, self._post("/embed", [], [("a.png", b"")])),
            "a bomb": (422, self._post("/embed", [], [("bomb.png", self.bomb)])),
            "one label": (422, self._post("/classify", labels[:1], [image])),
            "no label": (422, self._post("/classify", [], [image])),
            "a misspelt field": (422, self._post("/classify", [*labels, ("tempalte", "{}")], [image])),
            "a template without {}": (422, self._post("/classify", [*labels, ("template", "x")], [image])),
            "too many images": (422, self._post("/embed", [], [image] * 17)),
            "far too many images": (400, self._post("/embed", [], [("a.png", b"x")] * 200)),
            "too many labels": (400, self._post("/classify", [("labels", str(i)) for i in range(2000)], [image])),
            "a long text": (422, self._post("/embed", [("texts", "x" * 5000)], [])),
            "odd characters": (200, self._post("/embed", [("texts", "\u0000\uffff 胸部X線 🫁")], [])),
            "broken multipart": (400, ("POST", "/embed", b"rubbish", {"Content-Type": "multipart/form-data; boundary=x"})),
            "half multipart": (400, ("POST", "/embed", form([], [image])[0][:500], form([], [])[1])),
            "JSON": (415, ("POST", "/classify", b'{"labels": [', {"Content-Type": "application/json"})),
            "no such address": (404, ("GET", "/nothing", b"", {})),
            "wrong method": (405, ("GET", "/classify", b"", {})),
            "40 MB": (413, self._post("/embed", [], [("a.png", bytes(40_000_000))])),
            "page of others": (403, (*self._post("/embed", [("texts", "x")], [])[:3], {"Origin": "http://elsewhere.example"})),
        }

    def _slow_ones(self) -> dict[str, Callable[[], str]]:
        huge = self._post("/embed", [], [("a.png", bytes(100_000_000))])
        return {
            "leaves in the middle": lambda: self._raw(UNFINISHED, 0),
            "never ends its head": lambda: self._raw(b"GET /health HTTP/1.1\r\nHost: loc", 40),
            "never ends its body": lambda: self._raw(UNFINISHED, 60),
            "no HTTP": lambda: self._raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 8, 40),
            "100 MB": lambda: str(self.ask(huge)[0]),
            "100 MB in chunks": lambda: str(self.ask((*huge[:2], iter([bytes(1_000_000)] * 100), huge[3]))[0]),
        }

    def _raw(self, content: bytes, patience: float) -> str:
        """The status of what comes within `patience` seconds; "closed", or "open" where the server still waits."""
        with socket.create_connection((self.host, self.port), timeout=20) as connection:
            connection.sendall(content)
            if not patience:
                return "closed"
            connection.settimeout(patience)
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                return "open"
            except ConnectionError:
                return "closed"
            return answer.split(b" ")[1].decode() if answer else "closed"

    def note(self, kind: str, status: str, wanted: tuple[str, ...], seconds: float | None = None, more: str = "") -> None:
        """Count an answer."""
        with self.lock:
            self.statuses[kind][status] += 1
            if status == "429":
                self.later += 1
            elif status not in wanted or more:
                self.unexpected.append(f"{time.strftime('%H:%M:%S')} {kind}: {status}, not {' or '.join(wanted)} {more}"[:400])
            if seconds is not None and status in wanted:
                self.seconds[kind].append(seconds)

    def one(self) -> None:
        """One good or bad request, drawn."""
        draw = self.random.random()
        if draw < 0.72:
            kind = self.random.choice(list(self.good))
            number = self.random.randrange(len(self.good[kind]))
            self._timed(kind, self.good[kind][number], 200, f"{kind} {number}")
        else:
            kind = self.random.choice(list(self.bad))
            status, sent = self.bad[kind]
            self._timed(f"bad: {kind}", sent, status, None)

    def _timed(self, kind: str, sent: Sent, wanted: int, name: str | None) -> None:
        began = time.monotonic()
        try:
            status, body = self.ask(sent)
        except (OSError, http.client.HTTPException) as error:
            self.note(kind, type(error).__name__, (str(wanted),), more=repr(error))
            return
        seconds, more = time.monotonic() - began, ""
        if status == 200 and name is not None:
            answer = json.loads(body)
            with self.lock:
                first = self.first.setdefault(name, answer)
            if not alike(first, answer):
                more = "another answer than at first"
        elif status >= 400 and status != wanted:
            more = body[:200].decode(errors="replace")
        self.note(kind, str(status), (str(wanted),), seconds, more)

    def watch(self) -> None:
        """Note the server's memory, open files and processor time."""
        lines = self.ask(("GET", "/metrics", b"", {}))[1].decode().splitlines()
        found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line and line[0] != "#")}
        self.minutes.append(
            {
                "time": round(time.time()),
                "resident_mb": round(found["process_resident_memory_bytes"] / 1e6, 1),
                "open_files": found["process_open_fds"],
                "cpu_seconds": round(found["process_cpu_seconds_total"], 1),
                "inside": found["biomedclip_requests_inside"],
            }
        )

    def report(self) -> dict[str, object]:
        """All of it."""
        with self.lock:
            answers = {kind: dict(counts) for kind, counts in sorted(self.statuses.items())}
            times = {
                kind: {"n": len(own), **percentiles(own), "most": round(max(own), 4)}
                for kind, own in sorted(self.seconds.items())
            }
            all_good = [each for kind in self.good for each in self.seconds[kind] if kind != "health"]
            every = [(status, n) for counts in self.statuses.values() for status, n in counts.items()]
            return {
                "answers": sum(n for _, n in every),
                "server_errors": sum(n for status, n in every if status[0] == "5"),
                "unexpected": list(self.unexpected),
                "told_to_come_back": self.later,
                "good_seconds": percentiles(all_good),
                "seconds": times,
                "statuses": answers,
                "minutes": list(self.minutes),
            }


def alike(first: object, second: object) -> bool:
    """Whether two answers are one, but for the last digits of their numbers."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(alike(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(alike, first, second))
    if isinstance(first, float) and isinstance(second, float | int):
        return abs(first - second) <= CLOSE
    return first == second


def percentiles(values: list[float]) -> dict[str, float]:
    """Of each q the smallest value that q % of all do not exceed."""
    ordered = sorted(values)
    return {f"p{q}": round(ordered[max(0, -(-len(values) * q // 100) - 1)], 4) for q in (50, 95, 99)} if values else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG, PNG or DICOM files")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=8, help="requests in a second (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in KINDS)[:60]
    if len(files) < 11:
        parser.error(f"--images {arguments.images}: {len(files)} images; expected 11 or more")
    images = [(path.name, path.read_bytes()) for path in files]
    load = Load(arguments.address, os.environ.get("BIOMEDCLIP_TOKEN"), images, arguments.seed)
    for kind, own in load.good.items():
        for number, sent in enumerate(own):  # alone, so that nothing else is in their batch
            load._timed(kind, sent, 200, f"{kind} {number}")
    load.seconds.clear()
    end = time.monotonic() + 60 * arguments.minutes
    began = time.strftime("%Y-%m-%d %H:%M:%S")

    def client(number: int) -> None:
        own = random.Random(arguments.seed + number)
        while time.monotonic() < end:
            time.sleep(own.expovariate(arguments.rate / arguments.clients))
            load.one()

    def slow() -> None:
        wanted = {
            "leaves in the middle": ("closed",),
            "never ends its head": ("closed",),
            "never ends its body": ("408",),
            "no HTTP": ("400", "closed"),
            "100 MB": ("413",),
            "100 MB in chunks": ("413",),
        }
        while time.monotonic() < end:
            for kind, ask in load.slow.items():
                try:
                    status, more = ask(), ""
                except (OSError, http.client.HTTPException) as error:
                    status, more = type(error).__name__, repr(error)
                load.note(f"slow: {kind}", status, wanted[kind], more=more)
                time.sleep(5)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(arguments.clients)]
    threads += [threading.Thread(target=slow) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.watch()
        report = {"command": " ".join(sys.argv), "began": began, "now": time.strftime("%Y-%m-%d %H:%M:%S"), **load.report()}
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1))
        partial.replace(arguments.out)
        stop = time.monotonic() + 60
        while time.monotonic() < stop and any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
    load.watch()
    report = {"command": " ".join(sys.argv), "began": began, "ended": time.strftime("%Y-%m-%d %H:%M:%S"), **load.report()}
    arguments.out.write_text(json.dumps(report, indent=1))
    print(json.dumps({key: value for key, value in report.items() if key not in ("statuses", "minutes")}, indent=1))
    return 1 if load.unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
