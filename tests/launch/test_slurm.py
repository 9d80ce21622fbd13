"""launch/slurm.sbatch under a real Slurm: slurmctld and slurmd on this machine, one node, two tasks, no GPU."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.few_shot_task import make_candidate
from helpers.slurm_cluster import SlurmCluster, missing
from helpers.tiny_run import make_data

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).parents[1] / "helpers" / "standin.py"

pytestmark = [
    pytest.mark.skipif(
        bool(missing()),
        reason=f"{', '.join(missing())} is not installed: apt-get install slurmctld slurmd slurm-client munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="to run Slurm's daemons is for root"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.close()


_OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


class Job:
    """A job of launch/slurm.sbatch with two tasks, and its log."""

    def __init__(self, slurm: SlurmCluster, workdir: Path, *arguments: str, **variables: str):
        self.slurm = slurm
        self.log = workdir / "log"
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
        size = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=10"]
        paths = [f"--output={self.log}", f"--chdir={ROOT}", f"--export={exported}"]
        self.number = slurm.submit(*size, *paths, str(ROOT / "launch" / "slurm.sbatch"), *arguments)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < until, f"waited {seconds} s for {what}: {self.shown()}\n{self.said()}"
            time.sleep(0.2)

    def shown(self) -> dict[str, str]:
        return self.slurm.job(self.number)

    def wait_for(self, text: str, count: int = 1, seconds: float = 60) -> None:
        self.wait(lambda: self.said().count(text) >= count or self.shown()["JobState"] in _OVER, f"{count} x {text!r}", seconds)
        assert self.said().count(text) >= count, self.said()

    def ends(self, seconds: float = 90) -> dict[str, str]:
        """What Slurm says of the job when it will not run again."""
        self.wait(lambda: self.shown()["JobState"] in _OVER, "the end", seconds)
        return self.shown()


@pytest.fixture
def start(slurm: SlurmCluster, tmp_path: Path) -> Callable[..., Job]:
    def standin(**variables: str) -> Job:
        return Job(slurm, tmp_path, "config.py", "--workdir", str(tmp_path), BIOMEDCLIP=str(STANDIN), **variables)

    return standin


def resumed_after(job: Job, tasks: int = 2) -> None:
    """Both tasks saved, both went on from there, and the log of the first run is still there."""
    said = job.said()
    for task in range(tasks):
        saved = re.findall(rf"task {task} saved step (\d+)", said)
        begun = re.findall(rf"task {task} begins after step (\d+)", said)
        assert len(saved) == 1 and int(saved[0]) > 0, said
        assert begun == ["0", saved[0]], said
        assert f"task {task} finished at step" in said


def test_signalled_before_its_time_is_up_it_saves_and_queues_itself_again(
    start: Callable[..., Job], slurm: SlurmCluster
) -> None:
    """What --signal=TERM@300 does: the steps get SIGTERM, the script does not. (When Slurm does that varies by a minute.)"""
    job = start()
    job.wait_for("begins after step", 2)
    time.sleep(1)
    slurm.command("scancel", "--signal=TERM", job.number)
    end = job.ends()
    resumed_after(job)
    assert (end["JobState"], end["Restarts"], end["ExitCode"]) == ("COMPLETED", "1", "0:0")
    assert f"saved after a signal: scontrol requeue {job.number}" in job.said()
    assert job.said().count("+ srun --kill-on-bad-exit=1") == 2


@pytest.mark.parametrize("how", ["scontrol requeue", "USR1 to the script"])
def test_other_ways_to_ask_it_to_make_room(start: Callable[..., Job], slurm: SlurmCluster, how: str) -> None:
    job = start()
    job.wait_for("begins after step", 2)
    time.sleep(1)
    if how == "scontrol requeue":
        slurm.command("scontrol", "requeue", job.number)
    else:
        slurm.command("scancel", "--batch", "--signal=USR1", job.number)
    end = job.ends()
    resumed_after(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), "once, not twice"


def test_a_lost_node_queues_it_again(start: Callable[..., Job], slurm: SlurmCluster) -> None:
    job = start()
    job.wait_for("begins after step", 2)
    slurm.command("scontrol", "update", f"nodename={slurm.host}", "state=down", "reason=test")
    job.wait(lambda: job.shown()["JobState"] == "PENDING", "the queue")
    end = job.ends()
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert job.said().count("finished at step 40") == 2


@pytest.mark.parametrize(
    ("end", "state", "restarts", "code"),
    [
        ("2", "FAILED", "0", "2:0"),  # wrong input: it would be wrong again
        ("1", "FAILED", "0", "1:0"),
        ("killed", "COMPLETED", "1", "0:0"),
    ],
)
def test_how_one_task_ends_decides(start: Callable[..., Job], end: str, state: str, restarts: str, code: str) -> None:
    """The other task is then ended by Slurm, with an exit code that must not count."""
    job = start(STANDIN_END=end)
    shown = job.ends()
    assert (shown["JobState"], shown["Restarts"], shown["ExitCode"]) == (state, restarts, code), job.said()


def test_a_job_that_is_lost_each_time_is_given_up(start: Callable[..., Job]) -> None:
    job = start(STANDIN_END="killed", RETRIES="0")
    shown = job.ends()
    assert (shown["JobState"], shown["Restarts"], shown["ExitCode"]) == ("FAILED", "0", "137:0")
    assert "ends with exit code 137 after 0 restarts" in job.said()


def test_a_cancelled_job_stays_cancelled(start: Callable[..., Job], slurm: SlurmCluster) -> None:
    job = start()
    job.wait_for("begins after step", 2)
    slurm.command("scancel", job.number)
    assert job.ends()["JobState"] == "CANCELLED"
    assert "scontrol requeue" not in job.said()


CONFIG = """\
from pathlib import Path

from helpers import tiny_run

from biomedclip_jax.config import Stage

stages = (Stage(16, steps=30, patch_keep=0.5),)
config = tiny_run.config(Path(__file__).parent, stages=stages, checkpoint_every=1000)
"""


def test_biomedclip_train_itself(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Two tasks find each other through Slurm, train as one, are asked to make room, and go on to the end."""
    make_data(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG)
    command = Path(sys.executable).with_name("biomedclip")
    variables = {"BIOMEDCLIP": str(command), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XLA_FLAGS": ""}
    job = Job(slurm, tmp_path, str(tmp_path / "config.py"), "--workdir", str(tmp_path / "run"), **variables)
    job.wait_for("step 3/30", seconds=120)
    slurm.command("scancel", "--signal=TERM", job.number)
    end = job.ends(seconds=180)
    said = job.said()
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), said
    assert said.count("in 2 processes") == 2, "one run of two processes, twice"
    saved = re.findall(r"stopped by a signal after step (\d+) of 30, which is saved", said)
    assert len(saved) == 2 and saved[0] == saved[1], said
    assert f"going on after step {saved[0]}" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert (tmp_path / "run" / "results.json").is_file()


def test_the_tasks_of_a_job_share_the_shards_of_an_embedding(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Each of two tasks under srun takes its part by itself, and the folder is that of one process, byte for byte."""
    images = make_data(tmp_path)
    model = tmp_path / "model"
    make_candidate(model)
    command = Path(sys.executable).with_name("biomedclip")
    embed = f"{command} embed {model} --images {images} --shard-size 5 --out"
    together, alone = tmp_path / "together", tmp_path / "alone"
    variables = f"--export=ALL,PYTHONPATH={ROOT},XLA_FLAGS="
    log = tmp_path / "log"
    job = slurm.submit(
        *("--ntasks=2", "--cpus-per-task=1", "--time=5", f"--output={log}", f"--chdir={tmp_path}", variables),
        f"--wrap=srun --ntasks=2 {embed} {together}",
    )
    until = time.monotonic() + 120
    while slurm.job(job)["JobState"] not in _OVER:
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    assert slurm.job(job)["JobState"] == "COMPLETED", log.read_text()
    subprocess.run([*embed.split(), str(alone)], check=True, env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""})
    shards = {path.name: path.read_bytes() for path in sorted(alone.glob("*.parquet"))}
    assert len(shards) > 2 and shards == {path.name: path.read_bytes() for path in sorted(together.glob("*.parquet"))}
