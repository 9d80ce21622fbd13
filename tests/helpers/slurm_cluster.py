"""A Slurm of our own on this machine, in one folder: munged, slurmctld and one slurmd, nothing in /etc, no systemd."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=10
InactiveLimit=0
MinJobAge=300
SlurmdTimeout=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class SlurmCluster:
    """One node with two CPUs, ready for jobs; `close` cancels what runs and ends the three daemons."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("munge", "run", "state", "log", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self.host = socket.gethostname().split(".")[0]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
        config = folder / "slurm.conf"
        ports = _free_ports(2)
        config.write_text(
            _CONFIG.format(host=self.host, folder=folder, memory=memory, controller_port=ports[0], node_port=ports[1])
        )
        # the settings of a Slurm around us, if any, are not for our own
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self.environment = outside | {"SLURM_CONF": str(config)}
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._ready = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        munge = self.folder / "munge"
        self._daemon(
            "munged",
            "-F",
            "--force",  # pytest's folders are ours alone; munged wants its socket's to be open to all
            f"--key-file={munge / 'key'}",
            f"--seed-file={munge / 'seed'}",
            f"--log-file={self.folder / 'log' / 'munged.log'}",
            f"--socket={self.folder / 'run' / 'munge.socket'}",
            f"--pid-file={self.folder / 'run' / 'munged.pid'}",
        )
        self._wait(lambda: (self.folder / "run" / "munge.socket").exists(), "munged's socket")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        self._wait(lambda: self.command("sinfo", "-h", "-o", "%T", check=False).strip() == "idle", "an idle node")
        self._ready = True

    def _daemon(self, *command: str) -> None:
        log = (self.folder / "log" / f"{command[0]}.out").open("wb")
        with log:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
            )

    def _wait(self, ready, what: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not ready():
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not ended, f"ended while starting: {ended}; see {self.folder}/log"
            assert time.monotonic() < until, f"waited {seconds} s for {what}; see {self.folder}/log"
            time.sleep(0.1)

    def command(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, *arguments: str) -> str:
        """The number of the new job."""
        return self.command("sbatch", "--parsable", *arguments).strip()

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, ExitCode, ..."""
        shown = self.command("scontrol", "--oneliner", "show", "job", number)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def close(self) -> None:
        if self._ready:
            self.command("scancel", "--signal=KILL", "--user=root", check=False)
            self.command("scancel", "--user=root", check=False)
            until = time.monotonic() + 15
            while self.command("squeue", "-h", check=False).strip() and time.monotonic() < until:
                time.sleep(0.2)
        self._ready = False
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
