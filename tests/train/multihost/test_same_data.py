"""Processes that do not see the same data, or were given another config: one line, exit code 2 in each, and soon."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.processes import Processes
from helpers.tiny_run import make_data

HERE = socket.gethostname()
CONFIG = """\
import os
from pathlib import Path

from helpers import tiny_run

from biomedclip_jax.config import Stage

folder = Path(__file__).parent / os.environ["JAX_PROCESS_ID"]
config = tiny_run.config(folder, stages=(Stage(16, steps=4),), seed=SEED)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def shorter(folder: Path) -> None:
    lines = (folder / "train.csv").read_text().splitlines(keepends=True)
    (folder / "train.csv").write_text("".join(lines[:-2]))


def other_held_out(folder: Path) -> None:
    lines = (folder / "held_out.csv").read_text().splitlines(keepends=True)
    (folder / "held_out.csv").write_text("".join([lines[0], *lines[:0:-1]]))


def no_table(folder: Path) -> None:
    (folder / "train.csv").unlink()


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "seed", "said"),
    [
        (
            shorter,
            "0",
            "than process 0 ({here}): {two}/train.csv: 20 usable pairs, but process 0 ({here}) has 22",
        ),
        (other_held_out, "0", r"{two}/held_out.csv (held out): pair 1 ({two}/31.png) has another text"),
        (nothing, 'int(os.environ["JAX_PROCESS_ID"])', r"has another config than process 0 ({here}): seed = 1, there 0"),
        (no_table, "0", "train.csv: no such file"),
    ],
)
def test_what_differs_is_said_by_all(data: Path, tmp_path: Path, change: Callable[[Path], None], seed: str, said: str) -> None:
    for number in "01":
        shutil.copytree(data, tmp_path / number)
    change(tmp_path / "1")
    (tmp_path / "config.py").write_text(CONFIG.replace("SEED", seed))
    command = ["-m", "biomedclip_jax.cli", "train", str(tmp_path / "config.py"), "--workdir", str(tmp_path / "run")]
    with Processes(command, 2) as run:
        ended = run.ends(seconds=120)
    assert [process.code for process in ended] == [2, 2], ended
    for process in ended:
        assert said.format(here=HERE, two=tmp_path / "1") in process.output
        assert f"process 1 ({HERE})" in process.output or "1/train.csv" in process.output
        assert "Traceback" not in process.output
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "config.json").exists()
