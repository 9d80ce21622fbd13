"""A run folder that is taken up again: with the same data, wherever they lie, and with a config that may say other things."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_run import config, final_state, make_data, read_lines

from biomedclip_jax.config import OptimizerConfig, Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.train import _loop as run_module
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._run_folder import has_begun
from biomedclip_jax.train.export import read_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has made one update; to be copied."""
    workdir = tmp_path_factory.mktemp("begun") / "run"
    loop.train(one_stage(data), workdir, max_steps=1)
    return workdir


def one_stage(data: Path, **changes: Any) -> TrainConfig:
    return config(data, **({"stages": (Stage(8, steps=4),)} | changes))


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def with_data(run: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(run, data=dataclasses.replace(run.data, **changes))


# --- the same data --------------------------------------------------------------------------------------------------


def swapped(lines: list[str]) -> list[str]:
    return [*lines[:-2], lines[-1], lines[-2]]


def recaptioned(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1].replace("image", "picture")]


@pytest.mark.parametrize(
    ("change", "said"),
    [(swapped, r"pair 21 \(.*23\.png\) has another text or image"), (recaptioned, r"pair 22 \(.*23\.png\) has another text")],
)
def test_as_many_other_pairs_are_refused(data: Path, begun: Path, tmp_path: Path, change: Any, said: str) -> None:
    own, run = copied(data, tmp_path / "data"), copied(begun, tmp_path / "run")
    table = own / "train.csv"
    table.write_text("".join(change(table.read_text().splitlines(keepends=True))))
    before = read_config(run)
    with pytest.raises(UserError, match=rf"train\.csv: {said}.* than the one that this run began with; bring the data back"):
        loop.train(one_stage(own), run)
    assert read_config(run) == before, "the refused data are not the run's"


def test_another_tokenizer_is_refused(data: Path, begun: Path, tmp_path: Path) -> None:
    own, run = copied(data, tmp_path / "data"), copied(begun, tmp_path / "run")
    words = (own / "vocab.txt").read_text().splitlines()
    for file in own.glob("*.json"):
        file.unlink()
    (own / "vocab.txt").write_text("\n".join([*words[:5], *words[:4:-1]]) + "\n")
    with pytest.raises(UserError, match="makes other tokens of the captions than the one that this run began with"):
        loop.train(one_stage(own), run)


def test_moved_data_and_a_moved_folder_go_on(data: Path, begun: Path, tmp_path: Path) -> None:
    """As on another machine: every path is another one."""
    own, run = copied(data, tmp_path / "elsewhere"), copied(begun, tmp_path / "run")
    loop.train(one_stage(own), run, max_steps=2)
    assert final_state(one_stage(own), run)[0] == 2
    assert read_config(run).data.train == str(own / "train.csv")


def without_identity(run: Path) -> None:
    """As before there were identities of data."""
    for path in (run / "checkpoints").rglob("metadata"):
        if path.parent.name == "about":
            record = json.loads(path.read_text())
            assert record.pop("data")
            path.write_text(json.dumps(record))


def test_a_run_of_before_goes_on_where_its_data_are(data: Path, begun: Path, tmp_path: Path) -> None:
    own, run = copied(data, tmp_path / "elsewhere"), copied(begun, tmp_path / "run")
    without_identity(run)
    with pytest.raises(UserError, match=r"data\.train = '.*elsewhere/train\.csv', there '.*': this run's checkpoints"):
        loop.train(one_stage(own), run)
    loop.train(one_stage(data), run, max_steps=2)
    assert final_state(one_stage(data), run)[0] == 2
    loop.train(one_stage(own), run, max_steps=3)  # from now on it knows its data
    assert final_state(one_stage(own), run)[0] == 3


# --- a start that failed ----------------------------------------------------------------------------------------------


def test_a_start_that_failed_does_not_stand_in_the_way(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the start was evaluated and saved: the corrected command is another run."""
    make_step = run_module.make_step
    monkeypatch.setattr(run_module, "make_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.train(one_stage(data, evaluate_every=2), tmp_path)
    assert (tmp_path / "checkpoints" / "0").is_dir() and not has_begun(tmp_path)
    monkeypatch.setattr(run_module, "make_step", make_step)
    corrected = one_stage(data, optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1), evaluate_every=2, seed=5)
    corrected = dataclasses.replace(corrected, stages=(Stage(16, steps=2),))
    assert loop.train(corrected, tmp_path) is not None
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 2] and read_config(tmp_path) == corrected
    with pytest.raises(UserError, match=r"\(optimizer\.learning_rate = 0\.001, there 0\.0001\)"):
        loop.train(dataclasses.replace(corrected, optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=1)), tmp_path)
