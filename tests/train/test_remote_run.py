"""A run whose folder is in a bucket: the result of a local one, also after `kill -9`, and every verb takes it."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import tiny_run

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.config.files import load_config
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.storage import Storage
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._run_folder import opened_run_folder

pytest.importorskip("moto.server", reason="needs: pip install 'biomedclip_jax[dev]'")
pytest.importorskip("s3fs", reason="needs: pip install 'biomedclip_jax[pmc]'")

# the command, slowed down, and killed as soon as the first checkpoint is in the bucket
KILLED = """
import os, signal, sys, time
from biomedclip_jax.cli import main
from biomedclip_jax.config.files import load_config
from biomedclip_jax.support import remote_run
from biomedclip_jax.train import _loop

remote_run._EVERY = 0.1
put, upload = _loop.put_training_batch, remote_run._Copy._upload_checkpoint

def slowly(*arguments):
    time.sleep(1)
    return put(*arguments)

def then_killed(copy, step):
    upload(copy, step)
    os.kill(os.getpid(), signal.SIGKILL)

_loop.put_training_batch, remote_run._Copy._upload_checkpoint = slowly, then_killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: no copy from before."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path


CONFIG = """
from pathlib import Path
from biomedclip_jax.config import Stage
from helpers import tiny_run

config = tiny_run.config(Path(DATA), stages=(Stage(16, steps=6),))
"""


def test_a_killed_run_goes_on_elsewhere_to_the_same_bits(
    data: Path, elsewhere: Path, bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the run leaves in the bucket is taken by the other verbs."""
    config, address = elsewhere / "config.py", f"{bucket}/runs/tiny"
    config.write_text(CONFIG.replace("DATA", repr(str(data))))
    monkeypatch.setenv("PYTHONPATH", f"{Path(tiny_run.__file__).parents[1]}:{Path(bc.__file__).parents[1]}")
    command = ["train", str(config), "--workdir", address]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    there = set(Storage(address).files())
    assert {"lock.json", "config.json", "metrics.jsonl", "checkpoints/2/commit_success.txt"} <= there
    assert bc.from_pretrained(address).config.embed_width, "the newest checkpoint of a run that is not finished"
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "going on after step 2" in said and f"{address}: done" in said
    assert f"biomedclip classify {address} " in said and str(elsewhere / "scratch") not in said.partition(": done")[2]

    run = load_config(config)
    assert loop.train(run, elsewhere / "local") is not None
    for name in Storage(address).files():
        if name.startswith("checkpoints/"):
            Storage(address).download(name, elsewhere / "copy" / name)
    step, state = tiny_run.final_state(run, elsewhere / "copy")
    expected_step, expected = tiny_run.final_state(run, elsewhere / "local")
    assert step == expected_step == 6
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    Storage(address).download("metrics.jsonl", elsewhere / "metrics.jsonl")
    lines, expected_lines = (tiny_run.read_lines(folder / "metrics.jsonl") for folder in (elsewhere, elsewhere / "local"))
    assert [line["step"] for line in lines] == [line["step"] for line in expected_lines], "each step once"
    assert "lock.json" not in Storage(address).files()

    assert main(command) == 0 and "this run is done already" in capsys.readouterr().out
    images = [str(data / "0.png"), str(data / "1.png")]
    assert main(["classify", address, *images, "--labels", "chest", "brain"]) == 0
    assert main(["convert", address, str(elsewhere / "model")]) == 0
    assert np.array_equal(
        bc.from_pretrained(elsewhere / "model").encode_images(images),
        bc.from_pretrained(elsewhere / "local").encode_images(images),
    )


@pytest.mark.parametrize("verb", ["embed", "evaluate", "convert", "finetune"])
def test_what_else_is_written_goes_to_paths(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a path the address would be a folder of that name, here."""
    out = "s3://bucket/out"
    arguments = {
        "embed": ["model", "--images", "x.png", "--out", out],
        "evaluate": ["zero-shot", "model", "--data", "x.csv", "--out", out],
        "convert": ["model", out],
        "finetune": ["model", "--data", "x.csv", "--out", out],
    }
    with pytest.raises(SystemExit) as ended:
        main([verb, *arguments[verb]])
    assert ended.value.code == 2
    assert f"{out}: an address; expected a path on this machine" in capsys.readouterr().err


def test_several_processes_are_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(UserError, match="2 processes write one run, and an address serves one"),
        opened_run_folder(f"{bucket}/x"),
    ):
        raise AssertionError("opened")
