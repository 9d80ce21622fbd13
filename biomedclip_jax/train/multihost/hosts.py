"""Many processes, one run: how they find each other, meet, tell how far they are, and leave together.

Everything here does nothing, at once, in a run of one process. The only file that uses JAX's private names for this
(`jax._src.distributed`: the key-value store and barriers of the coordination service; tried with JAX 0.10.2 and
0.12.0) but `_cluster.py`.

Exit codes of a run: 0 finished, 143 saved after SIGTERM, 2 wrong input, 124 (`LOST`) a process is late, stalled or
gone, 134 when JAX itself noticed that first and aborted. The same command goes on from the last checkpoint after
each but 2.

What is done once in a run is done by its first process (`is_first`, `say`); `all_agree` before all act on what one
saw.
"""

import contextlib
import dataclasses
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import jax
import numpy as np

from biomedclip_jax.errors import first_line
from biomedclip_jax.train.multihost._cluster import find_cluster as _cluster
from biomedclip_jax.train.multihost._rendezvous import SAY_SECONDS, LostHost, describe_missing, rendezvous, some

LOST = LostHost.code
SAVED = 143
_PREFIX = "biomedclip/"
# in what XLA says when the other side of a connection has gone
_BROKEN_COLLECTIVE = ("Gloo", "NCCL", "RCCL", "Connection closed by peer", "Connection reset by peer", "Socket closed")
_LOOK_SECONDS = 1  # between two looks whether somebody has left, while others are waited for
_ANSWER_SECONDS = 12  # in which every watchdog announces something, see there


@dataclasses.dataclass(frozen=True)
class _Job:
    process: int
    hosts: list[str]


_job: _Job | None = None
_reason = ""  # why this process leaves, where it has said so
_leaving = threading.Lock()  # taken for good by the first thread that ends this process


def start(timeout_seconds: float = 300, heartbeat_seconds: int = 60) -> None:
    """Join the other processes of this run, if there are any; to be called before anything touches JAX's devices.

    They are found from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID where these are set, else from
    Slurm (under srun), GKE, a TPU pod or Open MPI. Raises LostHost when not all have come within `timeout_seconds`,
    UserError when the environment is half set. A process that is gone for `heartbeat_seconds` makes JAX end all
    others (exit code 134).
    """
    global _job
    if _job is not None or (cluster := _cluster(timeout_seconds)) is None:
        return
    sys.excepthook = _leave_after_error
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    hosts = rendezvous(cluster.address, cluster.count, cluster.process, timeout_seconds, bind)
    # its handler of SIGTERM would replace Python's, and nobody here asks it
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        cluster.address,
        cluster.count,
        cluster.process,
        local_device_ids=cluster.local_device_ids,
        cluster_detection_method="deactivate",  # _cluster has done that
        initialization_timeout=max(10, int(timeout_seconds)),
        heartbeat_timeout_seconds=heartbeat_seconds,
        shutdown_timeout_seconds=heartbeat_seconds,
    )
    _job = _Job(cluster.process, hosts)


def process() -> int:
    """Which of the processes this is, from 0."""
    return 0 if _job is None else _job.process


def count() -> int:
    """The number of processes in this run."""
    return 1 if _job is None else len(_job.hosts)


def name(number: int) -> str:
    """What messages call a process, such as "process 1 (node7)"."""
    return f"process {number}" + (f" ({_job.hosts[number]})" if _job is not None else "")


def is_first() -> bool:
    """Whether this process does what is done once: prints, and writes what is not written by all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Print a line, in the first process alone."""
    if is_first():
        print(text, flush=True)


def all_agree(fine: bool) -> bool:
    """Whether `fine` is true in every process. All of them have to call this at the same point."""
    if jax.process_count() == 1:
        return fine
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.all(np.asarray(process_allgather(np.asarray(fine)))))


def barrier(label: str, timeout_seconds: float) -> None:
    """Wait until every process has called this with the same `label`.

    Says every 15 s who is waited for. Raises LostHost, naming who did not come, after the time; and, with the exit code
    of that process, as soon as one of them has left.
    """
    if _job is None:
        return
    client, failed = _client(), list[Exception]()
    client.key_value_set(f"{_PREFIX}barrier/{label}/{_job.process}", "", allow_overwrite=True)

    def wait() -> None:
        try:
            client.wait_at_barrier(_PREFIX + label, int(timeout_seconds * 1000))
        except Exception as error:
            failed.append(error)

    waiting = threading.Thread(target=wait, name="barrier", daemon=True)
    waiting.start()
    spoken = time.monotonic()
    while waiting.is_alive():
        waiting.join(_LOOK_SECONDS)
        with contextlib.suppress(RuntimeError):  # the service is gone: the wait will fail, too
            if waiting.is_alive() and (end := ended()):
                raise LostHost(f"{end[1]}; so {name(_job.process)} leaves, too", end[0])
            if waiting.is_alive() and time.monotonic() - spoken > SAY_SECONDS:
                spoken = time.monotonic()
                _say_who_is_missing(_job, label)
    if failed:
        there = _arrived(label)
        if len(there) == len(_job.hosts):  # the last one came while the others were giving up
            raise LostHost(f"not all processes came to {label} within {timeout_seconds:g} s") from failed[0]
        missing = describe_missing(len(_job.hosts), {number: _job.hosts[number] for number in there}, _job.hosts)
        raise LostHost(f"waiting for all at {label}: after {timeout_seconds:g} s {missing}") from failed[0]


def _arrived(label: str) -> list[int]:
    """The processes that have come to a barrier."""
    return sorted(int(key.rpartition("/")[2]) for key, _ in _client().key_value_dir_get(f"{_PREFIX}barrier/{label}/"))


def _say_who_is_missing(job: _Job, label: str) -> None:
    there = _arrived(label)
    missing = [name(number) for number in range(len(job.hosts)) if number not in there]
    if missing and there[0] == job.process:  # one speaks for all that wait
        print(f"{name(job.process)} waits at {label} for {some(missing)}", file=sys.stderr, flush=True)


def objections(label: str, text: str, judge: Callable[[str], str], timeout_seconds: float) -> list[str]:
    """What the processes have against `text` of the first one: `judge` says it in words, or "" for nothing.

    All of them have to call this at the same point, and all get the same answer. LostHost as of `barrier`.
    """
    if _job is None:
        return []
    client, key = _client(), f"{_PREFIX}{label}"
    if _job.process == 0:
        client.key_value_set(key, text, allow_overwrite=True)
    barrier(label, timeout_seconds)
    found = "" if _job.process == 0 else judge(client.key_value_try_get(key))
    client.key_value_set(f"{key}/objections/{_job.process:06d}", found, allow_overwrite=True)
    barrier(f"{label}, compared", timeout_seconds)
    return [said for _, said in sorted(client.key_value_dir_get(f"{key}/objections/")) if said]


def because(reason: str) -> None:
    """Keep in one line why this process will leave before the end: the others are told."""
    global _reason
    _reason = reason


def leave(code: int, timeout_seconds: float = 3600) -> None:
    """The last call of a run, with its exit code; returns in a run of one process, or when all processes have ended well.

    After 0 and 143 it waits, up to `timeout_seconds`, for all others to come here, too. Any other code ends this
    process at once, and the others with the same code as soon as their watchdogs see it (a plain exit would wait
    for them in vain).
    """
    if _job is None:
        return
    sys.stdout.flush()
    if code in (0, SAVED):
        try:
            barrier("the end", timeout_seconds)
            jax.distributed.shutdown()
            return
        except LostHost as error:
            print(error, file=sys.stderr)
            code = error.code
    quit_now(code, f"{name(_job.process)} left with exit code {code}" + (f": {_reason}" if _reason else ""))


def quit_now(code: int, reason: str, wait_seconds: float = 3) -> NoReturn:
    """End this process without waiting for the others, but tell them why. Of several threads that call this the
    first one wins.

    Process 0 serves the coordination service, without which all others abort: it gives them `wait_seconds` to read
    the reason.
    """
    if not _leaving.acquire(blocking=False):
        time.sleep(wait_seconds + 10)
    if _job is not None:
        job = _job

        def tell() -> None:
            with contextlib.suppress(Exception):  # somebody was first, or the service is gone
                _client().key_value_set(f"{_PREFIX}end", f"{code} {reason}")
            with contextlib.suppress(Exception):
                _client().key_value_set(f"{_PREFIX}left/{job.process}", "", allow_overwrite=True)
                while job.process == 0 and len(_client().key_value_dir_get(f"{_PREFIX}left/")) < len(job.hosts):
                    time.sleep(0.1)

        thread = threading.Thread(target=tell, daemon=True)  # the service may not answer at all
        thread.start()
        thread.join(wait_seconds)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def announce(text: str) -> None:
    """Let the others know how far this process is; a call to process 0, which may take as long as that is busy or gone."""
    _client().key_value_set(f"{_PREFIX}progress/{process()}", text, allow_overwrite=True)


def announced() -> dict[int, str]:
    """What each process announced last."""
    found = _client().key_value_dir_get(f"{_PREFIX}progress/")
    return {int(key.rpartition("/")[2]): text for key, text in found}


def ended() -> tuple[int, str] | None:
    """The exit code and reason of the first process that has left before the end; None while nobody but us has."""
    if _leaving.locked():
        return None
    try:
        code, _, reason = _client().key_value_try_get(f"{_PREFIX}end").partition(" ")
    except Exception as error:
        if "NOT_FOUND" in str(error):
            return None
        raise
    return int(code), reason


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _leave_after_error(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Instead of Python's own end after an uncaught error, which would wait for the other processes in JAX's shutdown."""
    if isinstance(error, LostHost):
        print(error, file=sys.stderr)
        quit_now(error.code, str(error))
    traceback.print_exception(kind, error, where)
    code, reason = 1, f"{name(process())} stopped: {first_line(error) if isinstance(error, Exception) else kind.__name__}"
    if _job is not None and any(word in str(error) for word in _BROKEN_COLLECTIVE):
        code, reason = _who_is_gone(_job)
        print(reason, file=sys.stderr)
    quit_now(code, reason)


def _who_is_gone(job: _Job) -> tuple[int, str]:
    """An exit code and a reason, after a collective operation failed.

    It fails at once for the neighbours of a lost process only: they meet here; the others' watchdogs still announce
    something.
    """
    there: set[int] = set()
    with contextlib.suppress(Exception):
        client = _client()
        client.key_value_set(f"{_PREFIX}alive/{job.process}", "", allow_overwrite=True)
        first = announced()
        until = time.monotonic() + _ANSWER_SECONDS
        while len(there) < len(job.hosts) and time.monotonic() < until:
            if end := ended():
                return end
            there |= {int(key.rpartition("/")[2]) for key, _ in client.key_value_dir_get(f"{_PREFIX}alive/")}
            there |= {number for number, text in announced().items() if first.get(number) != text}
            time.sleep(0.2)
    gone = ", ".join(name(number) for number in range(len(job.hosts)) if number not in there)
    return LOST, f"a collective operation failed; gone or not answering: {gone or 'nobody'}"
