"""One build at a time writes a destination: a file there says which, on which host, and when it was last seen alive."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biomedclip_jax.data.pmc.build._storage import STATE, Storage
from biomedclip_jax.errors import UserError

LOCK = f"{STATE}/lock.json"
_SEEN_EVERY = 60.0  # seconds
_GONE_AFTER = 600.0  # seconds; a build of another host that was not seen for so long is no more


@contextlib.contextmanager
def only_build(storage: Storage) -> Iterator[None]:
    """Hold the destination for the block. UserError, before anything is written, where another build holds it.

    The lock of a build that was killed is taken over: its process is gone, or, on another host, its last sign of life
    is ten minutes old.
    """
    _take(storage)
    over = threading.Event()

    def say_so() -> None:
        while not over.wait(_SEEN_EVERY):
            with contextlib.suppress(Exception):  # the build itself will meet what is wrong with the destination
                storage.write_json(LOCK, _own())

    signs = threading.Thread(target=say_so, daemon=True)
    signs.start()
    try:
        yield
    finally:
        over.set()
        signs.join()
        storage.remove(LOCK)


def _take(storage: Storage) -> None:
    for _ in range(2):
        if storage.create(LOCK, json.dumps(_own()).encode()):
            return
        try:
            holder = storage.read_json(LOCK)
        except (FileNotFoundError, ValueError):  # it went, or was cut short by a full disk or a kill
            holder = None
        if isinstance(holder, dict) and _is_alive(holder):
            raise UserError(
                f"{storage.root}: another build writes it (process {holder.get('pid')} on {holder.get('host')}); wait for its"
                f" end, or choose another destination (if that process is none of a build: remove {storage.root}/{LOCK})"
            )
        storage.remove(LOCK)
    raise UserError(f"{storage.root}: another build has begun to write it; wait for its end, or choose another destination")


def _own() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "seen": time.time()}


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
