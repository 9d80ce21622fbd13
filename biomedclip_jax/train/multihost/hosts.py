"""Many processes, one run: how they find each other, meet, tell how far they are, and leave together.

Everything here does nothing, at once, in a run of one process. The only file that uses JAX's private names for this
(`jax._src.distributed`: the key-value store and barriers of the coordination service; `jax._src.clusters`: who we
are on Slurm, GKE and TPU pods; tried with JAX 0.10.2 and 0.12.0).

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
from types import TracebackType
from typing import Any, NoReturn

import jax
import numpy as np

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.train.multihost._rendezvous import LostHost, describe_missing, rendezvous

LOST = LostHost.code
SAVED = 143
_PREFIX = "biomedclip/"
# in what XLA says when the other side of a connection has gone
_BROKEN_COLLECTIVE = ("Gloo", "NCCL", "RCCL", "Connection closed by peer", "Connection reset by peer", "Socket closed")
_ANSWER_SECONDS = 12  # in which every watchdog announces something, see there
_CLUSTER_HINTS = ("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES")


@dataclasses.dataclass(frozen=True)
class _Cluster:
    """The processes of the run, as this process was told of them: `address` is process 0's, as host:port."""

    address: str
    count: int
    process: int
    local_device_ids: list[int] | None


@dataclasses.dataclass(frozen=True)
class _Job:
    process: int
    hosts: list[str]


_job: _Job | None = None
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


def _cluster(timeout_seconds: float) -> _Cluster | None:
    """None for a run of one process. Asks no server and takes no time where nothing hints at others."""
    number, total = os.environ.get("JAX_PROCESS_ID"), os.environ.get("JAX_NUM_PROCESSES")
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if (number is None) != (total is None):
        raise UserError("JAX_PROCESS_ID and JAX_NUM_PROCESSES: only one of them is set; set both, or neither")
    if number is not None and total is not None:
        if not (number.isdecimal() and total.isdecimal() and int(number) < int(total)):
            raise UserError(
                f"JAX_PROCESS_ID={number}, JAX_NUM_PROCESSES={total}: expected 0 <= JAX_PROCESS_ID < JAX_NUM_PROCESSES"
            )
        if int(total) == 1:
            return None
        if address is None or not address.rpartition(":")[2].isdecimal():
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS={address}: expected host:port, where process 0 runs and a free port there"
            )
        return _Cluster(address, int(total), int(number), None)  # JAX reads JAX_LOCAL_DEVICE_IDS by itself
    found = _detect(timeout_seconds)
    if found is None and address is not None:
        raise UserError(
            "JAX_COORDINATOR_ADDRESS is set, but this is no Slurm step, GKE job or TPU pod; "
            "set JAX_NUM_PROCESSES and JAX_PROCESS_ID, too, or unset it"
        )
    return found


def _detect(timeout_seconds: float) -> _Cluster | None:
    """What JAX finds out about a cluster around us."""
    from jax._src import cloud_tpu_init, clusters

    # a pod of Kubernetes that is no job, such as a notebook, or a shell on a Slurm node is no cluster
    if not cloud_tpu_init.running_in_cloud_tpu_vm and not any(hint in os.environ for hint in _CLUSTER_HINTS):
        return None
    try:
        address, total, process, devices = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, int(timeout_seconds)
        )
    except Exception as error:  # of whichever library the cluster's own interface comes with
        raise UserError(
            f"the cluster around this process cannot be read ({first_line(error)}); "
            "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    if total is None or process is None or address is None:
        if "JOB_COMPLETION_INDEX" in os.environ:
            raise UserError(
                "this is an indexed job of Kubernetes, whose size cannot be read without the package `kubernetes`: "
                "install jax[k8s], or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return None
    if total == 1:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if devices is not None and visible and "," not in visible:
        devices = [0]  # srun --gpus-per-task has given this process a GPU of its own: it is the first that it sees
    return _Cluster(address, total, process, None if devices is None else list(devices))


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
    """Wait until every process has called this with the same `label`. Raises LostHost, naming who did not, after the time."""
    if _job is None:
        return
    client = _client()
    client.key_value_set(f"{_PREFIX}barrier/{label}/{_job.process}", "", allow_overwrite=True)
    try:
        client.wait_at_barrier(_PREFIX + label, int(timeout_seconds * 1000))
    except Exception as error:
        there = [int(key.rpartition("/")[2]) for key, _ in client.key_value_dir_get(f"{_PREFIX}barrier/{label}/")]
        if len(there) == len(_job.hosts):  # the last one came while the others were giving up
            raise LostHost(f"not all processes came to {label} within {timeout_seconds:g} s") from error
        missing = describe_missing(len(_job.hosts), {number: _job.hosts[number] for number in there}, _job.hosts)
        raise LostHost(f"waiting for all at {label}: after {timeout_seconds:g} s {missing}") from error


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
            code = LOST
    quit_now(code, f"{name(_job.process)} left with exit code {code}")


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
        quit_now(LOST, str(error))
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
