"""The start-up barrier: process 0 waits for all others and, when some do not come, everyone learns who.

JAX's own start-up (`jax.distributed.initialize`) aborts the process from C++ when a host is late and names nobody.
So the processes meet here first, over plain TCP on the very port that JAX's coordination service takes afterwards:
each of them sends its number and host name in a line of JSON, process 0 answers every second with who is not there
yet, and at last with everybody's host names.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import time
from typing import Any

from biomedclip_jax.errors import Ended

_PROTOCOL = "biomedclip-1"
_PATIENCE = 10  # seconds that processes may start apart and still hear process 0's verdict
SAY_SECONDS = 15.0  # who waits for others says so that often
_NAMED = 16  # so many processes are named in a message, the others counted


class LostHost(Ended):
    """A process is late, stalled or gone. The message is one line that names it. code: its own, where it has said one."""

    code = 124

    def __init__(self, message: str, code: int = code):
        super().__init__(message)
        self.code = code


def rendezvous(address: str, count: int, process: int, seconds: float, bind: str | None = None) -> list[str]:
    """Wait until all `count` processes are there; the host names of all, by process number.

    `address` is process 0's "host:port"; `bind` what process 0 listens on where that differs. Raises LostHost after
    `seconds` without all of them, on every process that did come.
    """
    until = time.monotonic() + seconds
    if process == 0:
        return asyncio.run(_Leader(count, seconds, until).gather(bind or "[::]:" + address.rpartition(":")[2]))
    return asyncio.run(_follow(address, count, process, seconds, until))


class _Leader:
    """Process 0's side."""

    def __init__(self, count: int, seconds: float, until: float):
        self.count = count
        self.seconds = seconds
        self.until = until
        self.arrived = {0: socket.gethostname()}
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.complete = asyncio.Event()

    async def gather(self, bind: str) -> list[str]:
        server = await self._listen(bind)
        spoken = time.monotonic()
        try:
            while not self.complete.is_set() and (left := self.until - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.complete.wait(), min(1, left))
                self._tell({"waiting": self._missing()})
                if time.monotonic() - spoken > SAY_SECONDS and not self.complete.is_set():
                    spoken = time.monotonic()
                    _say(f"process 0 ({socket.gethostname()}) waits: {self._missing()}")
            if not self.complete.is_set():
                late = f"after {self.seconds:g} s {self._missing()}"
                await self._dismiss({"late": late})
                raise LostHost(late)
            names = [self.arrived[process] for process in range(self.count)]
            await self._dismiss({"hosts": names})
            return names
        finally:
            server.close()

    async def _listen(self, bind: str) -> asyncio.Server:
        host, _, port = bind.rpartition(":")
        host = host.strip("[]")
        while True:
            try:
                # "::" as JAX means it: every address of this machine, IPv4 ones too
                return await asyncio.start_server(self._meet, None if host in ("", "::", "0.0.0.0") else host, int(port))
            except OSError as error:  # the port may be held a moment longer by the run that was here before
                if time.monotonic() > self.until:
                    raise LostHost(
                        f"process 0 ({socket.gethostname()}) cannot listen on port {port} ({error.strerror or error}); "
                        "choose another with JAX_COORDINATOR_PORT, or with JAX_COORDINATOR_ADDRESS"
                    ) from error
                await asyncio.sleep(0.5)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a process that says who it is, then waits; or a stranger, who is sent away."""
        process = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, TimeoutError, asyncio.CancelledError):
            hello = json.loads(await asyncio.wait_for(reader.readline(), 10))
            if hello["protocol"] == _PROTOCOL and hello["count"] == self.count and 0 < hello["process"] < self.count:
                process = hello["process"]
                self.arrived[process] = str(hello["host"])
                self.writers[process] = writer
                if len(self.arrived) == self.count:
                    self.complete.set()
                await reader.read()  # returns when that process has gone
                if self.writers.get(process) is writer and not self.complete.is_set():
                    del self.writers[process], self.arrived[process]
            elif hello["protocol"] == _PROTOCOL:
                expected = f"process {hello['process']} of {hello['count']} came to a run of {self.count} processes"
                writer.write(_line({"late": f"{expected}; start all of them with the same number of processes"}))
        writer.close()

    def _tell(self, message: dict[str, Any]) -> None:
        for writer in self.writers.values():
            writer.write(_line(message))

    async def _dismiss(self, message: dict[str, Any]) -> None:
        self._tell(message)
        for writer in list(self.writers.values()):
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 5)

    def _missing(self) -> str:
        return describe_missing(self.count, self.arrived, expected_hosts(os.environ))


async def _follow(address: str, count: int, process: int, seconds: float, until: float) -> list[str]:
    """The side of every other process: find process 0, say who we are, wait for the answer."""
    host, _, port = address.rpartition(":")
    hello = {"protocol": _PROTOCOL, "process": process, "count": count, "host": socket.gethostname()}
    state, spoken = "no answer", time.monotonic()
    while (left := until - time.monotonic()) > 0:
        writer = None
        try:
            async with asyncio.timeout(min(10, left)):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(_line(hello))
            # a little longer than process 0, which began later or earlier: it is the one that decides and tells who
            # is missing
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + left + _PATIENCE):
                while text := await reader.readline():
                    answer = json.loads(text)
                    if "hosts" in answer:
                        await asyncio.sleep(0.1)  # the port changes hands: JAX's client would wait a second before its next try
                        return answer["hosts"]
                    if "late" in answer:
                        raise LostHost(answer["late"])
                    state = answer["waiting"]
        except TimeoutError:
            pass
        except OSError as error:
            state = f"no connection ({error.strerror or error})"
        except ValueError:  # not our protocol: the coordination service of the run that was here before
            state = f"another program answers on port {port}"
        finally:
            if writer is not None:
                writer.close()
        if time.monotonic() - spoken > SAY_SECONDS:
            spoken = time.monotonic()
            _say(f"process {process} ({hello['host']}) waits for process 0 at {address}: {state}")
        await asyncio.sleep(min(0.3, max(0, until - time.monotonic())))
    if state.startswith("not all"):
        raise LostHost(f"after {seconds:g} s {state}")
    raise LostHost(f"after {seconds:g} s process {process} ({hello['host']}) has not found process 0 at {address}: {state}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def describe_missing(count: int, arrived: dict[int, str], hosts: list[str]) -> str:
    """Who of `count` processes is missing from `arrived` (host names), and which of the expected `hosts` sent nobody."""
    missing = [str(process) for process in range(count) if process not in arrived]
    there = [f"{process} ({host})" for process, host in sorted(arrived.items())]
    here = {host.partition(".")[0] for host in arrived.values()}
    silent = [host for host in hosts if host.partition(".")[0] not in here]
    nothing_from = f" (nothing from {some(silent)})" if silent else ""
    return f"not all {count} processes have arrived; missing: {some(missing)}{nothing_from}; arrived: {some(there)}"


def some(names: list[str]) -> str:
    """The names in one text; of many the first ones, and how many more."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def expected_hosts(environment: Any) -> list[str]:
    """The hosts of the job, where the environment tells them (Slurm, GKE); else nothing."""
    if "SLURM_STEP_NODELIST" in environment:
        return expand_nodes(environment["SLURM_STEP_NODELIST"])
    return [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]


def expand_nodes(nodes: str) -> list[str]:
    """Slurm's short form of a list, such as "gpu[01-03,7],login", written out."""
    names = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", nodes):
        if not ranges:
            names.append(prefix + suffix)
        for part in ranges.split(",") if ranges else ():
            first, _, last = part.partition("-")
            names += [f"{prefix}{number:0{len(first)}d}{suffix}" for number in range(int(first), int(last or first) + 1)]
    return names
