"""Several processes on this machine that form one run, as a launcher would start them."""

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@dataclasses.dataclass
class Ended:
    """A process that has ended: its exit code (negative: the signal) and all that it wrote."""

    code: int
    output: str


class Processes:
    """`count` processes of one run, or only the `numbers` given, each with one CPU device; all are ended on leaving."""

    def __init__(self, command: list[str], count: int, numbers: Iterable[int] | None = None, port: int | None = None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        environment |= {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port or free_port()}",
            "JAX_NUM_PROCESSES": str(count),
        }
        self._outputs: dict[int, IO[bytes]] = {}
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(count) if numbers is None else numbers:
            self._outputs[number] = output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            self.running[number] = subprocess.Popen(
                [sys.executable, "-u", *command],
                env=environment | {"JAX_PROCESS_ID": str(number)},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def output(self, number: int) -> str:
        stream = self._outputs[number]
        return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0).decode(errors="replace")

    def wait_for(self, number: int, text: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while text not in self.output(number):
            assert time.monotonic() < until and self.running[number].poll() is None, self.output(number)
            time.sleep(0.05)

    def ends(self, numbers: Iterable[int] | None = None, seconds: float = 60) -> list[Ended]:
        """Wait for these processes (all, if not given); it is a failure if they go on for more than `seconds`."""
        until = time.monotonic() + seconds
        chosen = self.running if numbers is None else numbers
        for number in chosen:
            try:
                self.running[number].wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"process {number} goes on after {seconds} s: {self.output(number)}") from None
        return [Ended(self.running[number].returncode, self.output(number)) for number in chosen]

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        for output in self._outputs.values():
            output.close()
