"""How fast a running `biomedclip serve` answers: `python docs/measure_serve.py http://127.0.0.1:8000 IMAGES`.

/classify of one image and two labels, 30 times one after the other; then 16 clients at once for a minute. Prints the
median, the 95th percentile, images a second and the memory of the server.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

address, folder = urlsplit(sys.argv[1]), Path(sys.argv[2])
images = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")][:60]
LABELS = "".join(f'--b\r\nContent-Disposition: form-data; name="labels"\r\n\r\n{label}\r\n' for label in ("chest X-ray", "CT"))
FILE = '--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'


def ask(method: str, path: str, body: bytes = b"") -> bytes:
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
    connection.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=b"} if body else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return content


def classify(number: int) -> float:
    began = time.perf_counter()
    body = (LABELS + FILE).encode() + images[number % len(images)] + b"\r\n--b--\r\n"
    assert "probabilities" in json.loads(ask("POST", "/classify", body))["images"][0]
    return time.perf_counter() - began


def memory() -> str:
    lines = ask("GET", "/metrics").decode().splitlines()
    return f"{float(next(each for each in lines if each.startswith('process_resident_memory_bytes ')).split()[1]) / 1e6:.0f} MB"


print(f"resident memory at first: {memory()}")
alone = sorted(classify(number) for number in range(30))
print(f"one after the other: p50 {1e3 * alone[15]:.0f} ms, p95 {1e3 * alone[28]:.0f} ms")
together: list[float] = []
end = time.perf_counter() + 60


def client(number: int) -> None:
    while time.perf_counter() < end:
        together.append(classify(number))


began = time.perf_counter()
threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
rate, together = len(together) / (time.perf_counter() - began), sorted(together)
print(f"16 at once: {rate:.2f} images a second, p50 {together[len(together) // 2]:.2f} s, memory at the end: {memory()}")
