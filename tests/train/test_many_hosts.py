"""`biomedclip train` itself in several processes: one result, one stop, and no process that waits for a dead one."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import Processes
from helpers.tiny_run import config, make_data

from biomedclip_jax.config import Stage
from biomedclip_jax.train import main as loop

STEPS = 12
CONFIG = f"""\
from pathlib import Path

from helpers import tiny_run

from biomedclip_jax.config import Stage

stages = (Stage(16, steps={STEPS}, patch_keep=0.5),)
config = tiny_run.config(Path(__file__).parent, stages=stages, checkpoint_every=1000)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_data(tmp_path_factory.mktemp("data"))
    (folder / "config.py").write_text(CONFIG)
    yield folder


def train(data: Path, workdir: Path, count: int) -> Processes:
    return Processes(["-m", "biomedclip_jax.cli", "train", str(data / "config.py"), "--workdir", str(workdir)], count)


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def test_two_processes_stop_together_and_four_go_on_as_one_would(data: Path, tmp_path: Path) -> None:
    with train(data, tmp_path / "many", 2) as run:
        run.wait_for(0, "step 3/", seconds=120)
        run.running[1].send_signal(signal.SIGTERM)  # one host is asked, and all stop
        ended = run.ends(seconds=120)
    assert [process.code for process in ended] == [143, 143], ended
    stops = [process.output.partition("stopped by a signal after ")[2].splitlines()[0] for process in ended]
    assert stops[0] == stops[1]
    assert "in 2 processes" in ended[0].output and "step 3/" not in ended[1].output, "only the first one speaks"
    with train(data, tmp_path / "many", 4) as run:
        ended = run.ends(seconds=240)
    assert [process.code for process in ended] == [0] * 4, ended
    assert "going on after step" in ended[0].output
    one = config(data, stages=(Stage(16, steps=STEPS, patch_keep=0.5),), checkpoint_every=1000)
    loop.train(one, tmp_path / "one")
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_a_killed_process_ends_the_run(data: Path, tmp_path: Path) -> None:
    with train(data, tmp_path, 2) as run:
        run.wait_for(0, "step 3/", seconds=120)
        run.running[1].kill()
        (survivor,) = run.ends([0], seconds=60)
    assert survivor.code == 124, survivor.output
    assert "gone or not answering: process 1 (" in survivor.output
