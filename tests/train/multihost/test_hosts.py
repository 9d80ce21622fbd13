"""Runs of two and four processes: they meet, see who is missing, and leave together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.processes import Processes, free_port

from biomedclip_jax.errors import UserError
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost._rendezvous import LostHost, describe_missing, expand_nodes, rendezvous
from biomedclip_jax.train.multihost.stopping import StopListener

PROGRAM = str(Path(__file__).parents[2] / "helpers" / "hosts_program.py")
HERE = socket.gethostname()


@pytest.mark.parametrize(("count", "total"), [(2, 30), (4, 100)])
def test_all_processes_compute_one_sum_and_end_well(count: int, total: int) -> None:
    with Processes([PROGRAM, "none", "0"], count) as run:
        ended = run.ends()
    assert [process.code for process in ended] == [0] * count, ended
    for number, process in enumerate(ended):
        assert f"process {number} ({HERE}) of {count}: total {total}\n" in process.output


def test_late_hosts_are_named_by_all_that_came() -> None:
    with Processes([PROGRAM, "none", "0", "arrive=10"], 4, numbers=[0, 1, 3]) as run:
        ended = run.ends()
    for process in ended:
        assert process.code == 124, process.output
        assert "not all 4 processes have arrived; missing: 2;" in process.output
        assert len(process.output.splitlines()) == 1, process.output
    assert f"arrived: 0 ({HERE}), 1 ({HERE}), 3 ({HERE})" in ended[0].output


def test_a_missing_process_0_is_named() -> None:
    with Processes([PROGRAM, "none", "0", "arrive=2"], 2, numbers=[1]) as run:
        (ended,) = run.ends()
    assert ended.code == 124
    assert f"process 1 ({HERE}) has not found process 0 at 127.0.0.1:" in ended.output


def test_one_is_asked_to_stop_and_all_stop_at_the_same_step() -> None:
    with Processes([PROGRAM, "terminated", "0"], 2) as run:
        run.wait_for(1, "step 3\n")
        run.running[1].send_signal(signal.SIGTERM)
        run.running[1].send_signal(signal.SIGTERM)  # Slurm sends it twice
        ended = run.ends()
    assert [process.code for process in ended] == [143, 143], ended
    assert len({process.output.rpartition("saved at ")[2] for process in ended}) == 1


@pytest.mark.parametrize(("kind", "code"), [("mistaken", 2), ("broken", 1)])
def test_when_one_fails_all_leave_with_its_code(kind: str, code: int) -> None:
    with Processes([PROGRAM, kind, "1"], 2) as run:
        ended = run.ends(seconds=20)
    assert [process.code for process in ended] == [code, code], ended
    assert f"process 1 ({HERE})" in ended[0].output


def test_a_killed_process_is_named_and_the_others_leave() -> None:
    with Processes([PROGRAM, "killed", "2", "limit=60"], 4) as run:
        ended = run.ends(seconds=30)
    assert ended[2].code == -signal.SIGKILL
    for number in (0, 1, 3):
        # 134: process 0 was the first to leave, and JAX has aborted the others
        assert ended[number].code in (124, -signal.SIGABRT), ended[number].output
    assert ended[0].code == 124
    assert f"gone or not answering: process 2 ({HERE})" in ended[0].output


def test_barrier_names_who_does_not_come() -> None:
    program = (
        "import sys, time\n"
        "from biomedclip_jax.train.multihost import hosts\n"
        "hosts.start(20, heartbeat_seconds=10)\n"
        "if hosts.process() == 1: time.sleep(4)\n"
        "try: hosts.barrier('the checkpoint', 1)\n"
        "except hosts.LostHost as error: print(error)\n"
        "hosts.leave(7)\n"
    )
    with Processes(["-c", program], 2) as run:
        ended = run.ends(seconds=20)
    assert ended[0].code == 7
    assert "waiting for all at the checkpoint: after 1 s not all 2 processes have arrived; missing: 1" in ended[0].output


def test_one_process_needs_nobody() -> None:
    """On a laptop `start` returns at once, and imports not even JAX's devices; neither waits any other call."""
    program = (
        "import time; from biomedclip_jax.train.multihost import hosts; from jax._src import xla_bridge\n"
        "begin = time.monotonic(); hosts.start(); hosts.barrier('x', 1); hosts.leave(0)\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print(hosts.count(), hosts.process(), time.monotonic() - begin)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "JAX_"))}
    # a notebook's pod: no job
    environment |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    count, process, seconds = done.stdout.split()
    assert (count, process) == ("1", "0")
    assert float(seconds) < 0.5
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_PROCESS_ID": "0"}, "only one of them is set"),
        ({"JAX_PROCESS_ID": "2", "JAX_NUM_PROCESSES": "2"}, "expected 0 <= JAX_PROCESS_ID < JAX_NUM_PROCESSES"),
        ({"JAX_PROCESS_ID": "x", "JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID=x"),
        ({"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS=None: expected host:port"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "set JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        ({"JOB_COMPLETION_INDEX": "0"}, "indexed job of Kubernetes"),
    ],
)
def test_a_half_set_environment_is_explained(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        hosts.start(1)


@pytest.mark.parametrize(("visible", "devices"), [("3", [0]), ("0,1,2,3", [1]), ("", [1])])
def test_a_slurm_step_is_found(visible: str, devices: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One process a GPU: by its local number, or the only one that Slurm lets it see."""
    step = {"JOB_ID": "77", "STEP_NODELIST": "gpu[03-04]", "NTASKS": "8", "PROCID": "5", "LOCALID": "1"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cluster = hosts._cluster(1)
    assert cluster is not None
    assert cluster.address.startswith("gpu03:")
    assert (cluster.count, cluster.process, cluster.local_device_ids) == (8, 5, devices)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert hosts._cluster(1) is None


def test_the_rendezvous_bears_strangers_and_restarts() -> None:
    """A port scanner, a process of another run, and one that comes, goes and comes again do no harm."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with ThreadPoolExecutor(4) as pool:
        leader = pool.submit(rendezvous, address, 3, 0, 20.0)
        until = time.monotonic() + 10
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
        with stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            other_run = pool.submit(rendezvous, address, 5, 4, 5.0)
            with pytest.raises(LostHost, match="process 4 of 5 came to a run of 3 processes"):
                other_run.result()
            with pytest.raises(LostHost, match="missing: 2"):  # gives up, so is no longer there
                rendezvous(address, 3, 1, 2.5)
            second = pool.submit(rendezvous, address, 3, 2, 20.0)
            time.sleep(1)
            assert not leader.done()
            assert rendezvous(address, 3, 1, 20) == [HERE] * 3
            assert leader.result() == second.result() == [HERE] * 3


def test_names_of_nodes() -> None:
    assert expand_nodes("node7") == ["node7"]
    assert expand_nodes("gpu[01-03,7],login,a[1-2]b") == ["gpu01", "gpu02", "gpu03", "gpu7", "login", "a1b", "a2b"]
    line = describe_missing(4, {0: "gpu01.site", 1: "gpu01.site"}, ["gpu01", "gpu02"])
    assert (
        line == "not all 4 processes have arrived; missing: 2, 3 (nothing from gpu02); arrived: 0 (gpu01.site), 1 (gpu01.site)"
    )
    assert "missing: 1, 2, 3" in describe_missing(9_999, {0: "a"}, []) and "and 9982 more" in describe_missing(
        9_999, {0: "a"}, []
    )


def test_stop_listener_hears_and_puts_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    with StopListener() as stop:
        assert not stop.requested
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.requested
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before
    heard = []

    def elsewhere() -> None:
        with StopListener() as stop:
            heard.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [(False, before[0])]


def test_who_waits_says_for_whom_and_one_speaks_for_all() -> None:
    """At a barrier and at the start, again and again; and nobody waits for one that has left."""
    program = (
        "import sys, time\n"
        "from biomedclip_jax.train.multihost import _rendezvous, hosts\n"
        "_rendezvous.SAY_SECONDS = hosts.SAY_SECONDS = 1\n"
        "import os; number = int(os.environ['JAX_PROCESS_ID'])\n"
        "if number == 2: time.sleep(6)\n"
        "hosts.start(60, heartbeat_seconds=10)\n"
        "if number == 0: time.sleep(6)\n"
        "hosts.barrier('the checkpoint', 60)\n"
        "if number == 1: hosts.because('a.csv: no such file'); hosts.leave(2)\n"
        "try: hosts.barrier('the results', 60)\n"
        "except hosts.LostHost as error: print(error, file=sys.stderr); hosts.leave(error.code)\n"
    )
    begin = time.monotonic()
    with Processes(["-c", program], 3) as run:
        ended = run.ends(seconds=50)
    assert [process.code for process in ended] == [2, 2, 2], ended
    assert time.monotonic() - begin < 50
    first, second, third = (process.output for process in ended)
    assert first.count(f"process 0 ({HERE}) waits: not all 3 processes have arrived; missing: 2") >= 2
    assert second.count(f"process 1 ({HERE}) waits at the checkpoint for process 0 ({HERE})") >= 2
    assert "waits at the checkpoint" not in first + third, "one speaks for all"
    for other in (first, third):
        assert f"process 1 ({HERE}) left with exit code 2: a.csv: no such file; so process" in other
