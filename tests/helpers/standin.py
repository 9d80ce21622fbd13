#!/usr/bin/env python3
"""Behaves as `biomedclip train` does towards a launcher, without JAX: standin.py train CONFIG --workdir DIR.

Counts to STANDIN_STEPS (default 40, a tenth of a second each) in a file of DIR, a file for each task; on SIGTERM or SIGUSR1 it
saves, slowly, and ends with 143; the next start goes on. Task 1 ends at step 3 of the first start as STANDIN_END says:
with that exit code, or "killed".
"""

import os
import signal
import sys
import time
from pathlib import Path

stopped = False


def stop(number: int, frame: object) -> None:
    global stopped
    stopped = True


def main() -> int:
    # like Python with JAX, this takes a while before it can handle a signal
    time.sleep(0.3)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, stop)
    assert sys.argv[1] == "train" and sys.argv[3] == "--workdir", sys.argv
    task = os.environ.get("SLURM_PROCID", os.environ.get("JAX_PROCESS_ID", "0"))
    saved = Path(sys.argv[4]) / f"steps.{task}"
    step = int(saved.read_text()) if saved.exists() else 0
    first = not saved.exists()
    print(f"task {task} begins after step {step}", flush=True)
    while step < int(os.environ.get("STANDIN_STEPS", "40")):
        time.sleep(0.1)
        step += 1
        end = os.environ.get("STANDIN_END")
        if end and task == "1" and step == 3 and first:
            saved.write_text(str(step))
            if end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            return int(end)
        if stopped:
            time.sleep(1)
            saved.write_text(str(step))
            print(f"task {task} saved step {step}", flush=True)
            return 143
    saved.write_text(str(step))
    print(f"task {task} finished at step {step}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
