"""A run in miniature for the tests of hosts and watchdog: start, a few steps with a sum over all processes, leave.

hosts_program.py MISHAP PROCESS [KEY=VALUE ...]: process PROCESS has the MISHAP at step 5: killed, stopped (SIGSTOP), asleep
(the main thread), locked (holds Python's lock), mistaken (a UserError), broken (another error); "none" is none, and
"terminated" goes on until all agree to stop because one of them was asked to.
"""

import os
import re
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from biomedclip_jax.errors import UserError
from biomedclip_jax.train.multihost import hosts
from biomedclip_jax.train.multihost.stopping import StopListener, Watchdog

STEPS = 10
hosts._ANSWER_SECONDS = 3  # fits the watchdogs' interval below


def mishap(kind: str) -> None:
    match kind:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "asleep":
            time.sleep(60)
        case "locked":
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "mistaken":
            raise UserError("shard-3: is missing on this host")
        case "broken":
            raise ArithmeticError("something broke")


def run(kind: str, unlucky: bool, limit: float) -> int:
    watchdog = Watchdog(limit, interval_seconds=0.2)
    stop = StopListener()
    watchdog.busy("compiling")
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(jnp.sum(x), "data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
        )
    )
    total, number = 0.0, 0
    while number < STEPS or kind == "terminated":
        number += 1
        if unlucky and number == 5:
            mishap(kind)
        # each process brings its own rows, and the number of processes that were asked to stop travels with them
        mine = np.full((jax.local_device_count(), 2), [jax.process_index() + 1, stop.requested], np.float32)
        watchdog.step_begun(number)
        batch = jax.make_array_from_process_local_data(rows, mine)
        total += float(step(batch))
        watchdog.step_done(number)
        if kind == "terminated":
            print("step", number, flush=True)
            time.sleep(0.02)
            if float(step(jax.make_array_from_process_local_data(rows, mine[:, 1:]))):
                print(f"saved at step {number}", flush=True)
                stop.close()
                watchdog.close()
                return hosts.SAVED
    hosts.barrier("the last step", 20)
    stop.close()
    watchdog.close()
    print(f"{hosts.name(hosts.process())} of {hosts.count()}: total {total:g}", flush=True)
    return 0


def main() -> int:
    kind, number = sys.argv[1], sys.argv[2]
    options = dict(word.split("=") for word in sys.argv[3:])
    unlucky = os.environ.get("JAX_PROCESS_ID", "0") == number
    hosts.start(float(options.get("arrive", 20)), heartbeat_seconds=int(options.get("heartbeat", 10)))
    try:
        code = run(kind, unlucky, float(options.get("limit", 10)))
    except UserError as error:
        print(error, file=sys.stderr)
        code = 2
    hosts.leave(code, 20)
    return code


if __name__ == "__main__":
    sys.exit(main())
