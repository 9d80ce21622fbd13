"""One process at a time writes a folder: a file there says which, on which host, and when it was last seen alive."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.storage import Storage

LOCK = "lock.json"  # who writes a folder

_SEEN_EVERY = 15.0  # seconds
_WATCHED_SECONDS = 40.0  # the holder of a folder, on another host
_GONE_AFTER = 600.0  # seconds; by the clocks of two hosts, which may differ


class Files(Protocol):
    """Where it is written who holds something; `Storage`, as a rule."""

    @property
    def root(self) -> str:
        """What messages call the place."""
        ...

    def create(self, name: str, data: bytes, /) -> bool:
        """Write a file unless there is one; says whether it was written. Of several at once one succeeds."""
        ...

    def read_json(self, name: str, /) -> Any:
        """What is in a file of JSON. FileNotFoundError where it is not there."""
        ...

    def write_json(self, name: str, value: Any, /) -> None:
        """Let a file hold something else, as JSON."""
        ...

    def remove(self, name: str, /) -> None:
        """Remove a file that is there."""
        ...


@contextlib.contextmanager
def owned(files: Files, name: str, *, writer: str, instead: str, watch: float = 0) -> Iterator[Callable[[], bool]]:
    """Hold a folder for the block. UserError, before anything is written, where another process holds it.

    Gives what tells whether another process has taken the folder over: one whose signs of life could not be written for
    ten minutes is taken for dead.

    The hold of a process that was killed is taken over: on this host its number is free or another's, of another host its
    last sign of life is ten minutes old, or it gives none while it is watched.

    name: of the file that says who holds it. writer, instead: for the message, what writes and what else to choose.
    watch: seconds to look for a sign of life of a process on another host; a little more than `_SEEN_EVERY`, or 0.
    """
    own = _own()
    if (holder := _take(files, name, own, watch)) is not None:
        who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "it has just begun"
        raise UserError(
            f"{files.root}: another {writer} writes it ({who}); wait for its end, or choose {instead} "
            f"(if that process is no {writer}: remove {files.root}/{name})"
        )
    over = threading.Event()

    def say_so() -> None:
        while not over.wait(_SEEN_EVERY):
            with contextlib.suppress(Exception):  # the writer itself will meet what is wrong with the folder
                if _is_ours(files, name, own):
                    files.write_json(name, own | {"seen": time.time()})

    signs = threading.Thread(target=say_so, name="owner", daemon=True)
    signs.start()
    try:
        yield lambda: (holder := _holder(files, name)) != {} and not _same(holder, own)
    finally:
        over.set()
        signs.join()
        with contextlib.suppress(UserError):  # behind an address that is out of reach; a dead process holds nothing
            if _is_ours(files, name, own):
                files.remove(name)


@contextlib.contextmanager
def owned_folder(folder: Path, *, writer: str, instead: str) -> Iterator[None]:
    """Hold a folder of this machine or of a network file system, as `owned` does, by its `lock.json`.

    One that is still empty at the end, after an error before anything was written, is removed.
    """
    try:
        with owned(Storage(str(folder)), LOCK, writer=writer, instead=instead, watch=_WATCHED_SECONDS):
            yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty, as a rule
            folder.rmdir()


def _take(files: Files, name: str, own: dict[str, Any], watch: float) -> dict[str, Any] | None:
    """None when the folder is held; else what is known of the process that holds it."""
    for _ in range(2):
        if files.create(name, json.dumps(own).encode()):
            return None
        if not (holder := _holder(files, name)):
            time.sleep(1)  # it may have been made a moment ago, and be empty still
            holder = _holder(files, name)
        if holder and _is_alive(holder):
            here = holder.get("host") == own["host"]
            if here or not watch or _gives_a_sign(files, name, holder, watch):
                return holder
        files.remove(name)
    return {}


def _gives_a_sign(files: Files, name: str, holder: dict[str, Any], seconds: float) -> bool:
    who = f"process {holder.get('pid')} on {holder.get('host')}"
    print(f"{files.root}: held by {who}; looking for {seconds:.0f} s whether it lives", file=sys.stderr)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        if (now := _holder(files, name)) != holder:
            return bool(now)
    return False


def _holder(files: Files, name: str) -> dict[str, Any]:
    try:
        holder = files.read_json(name)
    except (FileNotFoundError, ValueError):  # it went, or was cut short by a full disk or a kill
        return {}
    return holder if isinstance(holder, dict) else {}


def _own() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "seen": time.time()}


def _is_ours(files: Files, name: str, own: dict[str, Any]) -> bool:
    return _same(_holder(files, name), own)


def _same(holder: dict[str, Any], own: dict[str, Any]) -> bool:
    return all(holder.get(key) == own[key] for key in ("host", "pid", "started"))


def _is_alive(holder: dict[str, Any]) -> bool:
    pid, seen = holder.get("pid"), holder.get("seen")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return isinstance(seen, int | float) and time.time() - seen < _GONE_AFTER
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is there, and somebody else's
    return _started(pid) == holder.get("started")  # or the number was given to another process since


def _started(pid: int) -> str:
    """When a process of this host was started, in whatever unit; "" where it cannot be told, and for zombies another text."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]
