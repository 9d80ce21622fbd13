"""A run that stands still ends, and says who holds it up."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.processes import Processes

from biomedclip_jax.train.multihost.stopping import Watchdog

PROGRAM = str(Path(__file__).parents[2] / "helpers" / "hosts_program.py")
HERE = socket.gethostname()


def alone(body: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    code = f"import time\nfrom biomedclip_jax.train.multihost.stopping import Watchdog\n{body}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=seconds)


def test_it_ends_a_process_that_stands_still_and_shows_where() -> None:
    begin = time.monotonic()
    done = alone("w = Watchdog(1)\nw.step_begun(7)\ndef stuck(): time.sleep(60)\nstuck()")
    assert done.returncode == 124
    assert time.monotonic() - begin < 20
    assert "watchdog: process 0 has been at step 7 (in the step) for 1 s, limit 1 s; exit code 124" in done.stderr
    assert "in stuck" in done.stderr


def test_it_lets_a_process_that_moves_alone() -> None:
    done = alone(
        "w = Watchdog(1)\n"
        "for n in range(6): w.step_begun(n); time.sleep(0.3); w.step_done(n)\n"  # 1.8 s
        "for what in ('compiling', 'saving'): w.busy(what); time.sleep(0.8)\n"
        "w.close(); time.sleep(1.5); print('well')"
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_the_limit_holds_for_other_phases_too() -> None:
    done = alone("w = Watchdog(0.5)\nw.step_done(3)\nw.busy('evaluating')\ntime.sleep(30)")
    assert done.returncode == 124
    assert "at step 3 (evaluating)" in done.stderr


def test_saying_where_the_loop_is_costs_next_to_nothing() -> None:
    watchdog = Watchdog(60)
    begin = time.perf_counter()
    for step in range(10_000):
        watchdog.step_begun(step)
        watchdog.step_done(step)
    seconds = time.perf_counter() - begin
    watchdog.close()
    assert seconds / 10_000 < 50e-6


def test_the_process_that_is_asleep_is_named_by_all() -> None:
    with Processes([PROGRAM, "asleep", "1", "limit=3"], 4) as run:
        ended = run.ends(seconds=30)
    for process in ended:
        assert process.code in (124, -signal.SIGABRT), process.output
        # by its own count, or by what the first one that left has said: process 1 of itself, or another one of it
        others = f"the others wait for process 1 ({HERE}) at step 4 (between steps)" in process.output
        itself = (
            f"process 1 ({HERE}) has been at step 4 (between steps) for 3 s, limit 3 s; the others wait for it"
            in process.output
        )
        assert others or itself, process.output
    assert ended[0].code == ended[1].code == 124
    assert "in mishap" in ended[1].output  # its own stack shows where it sleeps


@pytest.mark.parametrize("unlucky", [0, 1])
def test_a_frozen_process_is_named_by_the_others(unlucky: int) -> None:
    """SIGSTOP, as a machine that hangs: not even its watchdog runs. Process 0 serves the others' talk to each other."""
    healthy = [1, 2] if unlucky == 0 else [0, 2]
    with Processes([PROGRAM, "stopped", str(unlucky), "limit=3", "heartbeat=30"], 3) as run:
        ended = run.ends(healthy, seconds=30)
        assert run.running[unlucky].poll() is None
    for process in ended:
        assert process.code == 124, process.output
        expected = (
            f"process 0 ({HERE}), which coordinates, has not answered" if unlucky == 0 else f"not heard of: process 1 ({HERE})"
        )
        assert expected in process.output, process.output


def test_a_frozen_process_is_noticed_without_the_watchdog_too() -> None:
    """JAX's heartbeat: what ends the run when the limit of the watchdog is long."""
    with Processes([PROGRAM, "stopped", "1", "limit=300", "heartbeat=4"], 2) as run:
        (ended,) = run.ends([0], seconds=30)
    assert ended.code == -signal.SIGABRT
    assert "stopped sending heartbeats" in ended.output


def test_a_process_that_holds_pythons_lock_ends() -> None:
    """Where no Python thread can run, faulthandler's own ends the process."""
    done = alone("import re\nw = Watchdog(1)\ntime.sleep(0.5)\nre.match(r'(a+)+$', 'a' * 40 + 'b')", seconds=40)
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "match" in done.stderr
