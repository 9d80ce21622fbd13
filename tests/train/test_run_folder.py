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
from biomedclip_jax.train._held_out import HeldOut
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


def test_what_the_end_needs_is_looked_at_first(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out images and the disk; nothing is left behind."""
    run = one_stage(data, evaluate_every=2)
    table = tmp_path / "one.csv"
    table.write_text(f"image,caption,label\n{data}/24.png,an image,brain\n{data}/broken.png,an image,brain\n")
    with pytest.raises(UserError, match=r"one\.csv: only one held-out pair can be used, whose loss is the same"):
        loop.train(with_data(run, held_out=str(table)), tmp_path / "run")
    table.write_text(f"image,caption,label\n{data}/broken.png,an image,brain\n{data}/broken.png,another,brain\n")
    with pytest.raises(UserError, match=r"one\.csv: none of the 2 held-out images can be read; mend these files \(the first: "):
        loop.train(with_data(one_stage(data), held_out=str(table)), tmp_path / "run")
    full = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"run: 0 MB are free, and a checkpoint and the model folder need [12] MB; make room"):
        loop.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- other held-out pairs ---------------------------------------------------------------------------------------------


class Losses:
    """Held-out losses by updates done, in place of real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *losses: float):
        monkeypatch.setattr(HeldOut, "evaluate", lambda _, state, *rest: {"loss": losses[int(state.step)]})


@pytest.mark.parametrize("way", ["another file", "the same file"])
def test_losses_of_other_held_out_pairs_are_not_compared(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """However low they were: the best is one of the evaluations on the pairs that the run ends with."""
    own = copied(data, tmp_path / "data")
    run = one_stage(own, evaluate_every=1, patience=3, keep_checkpoints=1)
    Losses(monkeypatch, 0.5, 0.1, 3, 2, 2.5)
    loop.train(run, tmp_path / "run", max_steps=2)
    lines = (own / "held_out.csv").read_text().splitlines(keepends=True)
    other = own / ("other.csv" if way == "another file" else "held_out.csv")
    other.write_text("".join(lines[:-1]))
    capsys.readouterr()
    results = loop.train(with_data(run, held_out=str(other)), tmp_path / "run")
    said = capsys.readouterr().out
    assert "data.held_out: other pairs than before, so the lowest loss until now (0.100) is not compared" in said
    assert results is not None and results.exported_step == 3 and results.held_out_pairs == 7
    assert "after step 3 of 4 (held-out loss 2.000 after step 3, 2.500 at the end)" in said, "not that of the start"
    lines = [line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if "held_out_loss" in line]
    assert [(line["step"], line.get("table")) for line in lines] == [(0, None), (1, None), (2, None), (3, 1), (4, 1)]


def weights_and_config(model: Path) -> dict[Path, int]:
    """When each file of a model folder was written, but for the card, which has the figures."""
    return {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.name != "README.md"}


def test_a_finished_run_is_judged_on_the_pairs_that_it_is_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = copied(data, tmp_path / "data")
    run = one_stage(own)
    first = loop.train(run, tmp_path / "run")
    assert first is not None and first.held_out_pairs == 8
    monkeypatch.setattr(run_module, "make_step", None)  # whoever trains fails
    model = weights_and_config(tmp_path / "run" / "model")
    lines = (own / "held_out.csv").read_text().splitlines(keepends=True)
    (own / "few.csv").write_text("".join(lines[:6]))
    few = with_data(run, held_out=str(own / "few.csv"))
    capsys.readouterr()
    again = loop.train(few, tmp_path / "run")
    assert again is not None and again.held_out_pairs == 5 and again.exported_step == first.exported_step
    assert "judged again, on " in capsys.readouterr().out and read_config(tmp_path / "run") == few
    (own / "few.csv").write_text("".join(lines[:5]))  # the same name
    other = loop.train(few, tmp_path / "run")
    assert other is not None and other.held_out_pairs == 4
    capsys.readouterr()
    assert loop.train(few, tmp_path / "run") == other and "judged again" not in capsys.readouterr().out
    shutil.move(own / "few.csv", own / "moved.csv")
    assert loop.train(with_data(run, held_out=str(own / "moved.csv")), tmp_path / "run") == other
    shutil.move(own / "moved.csv", own / "gone.csv")
    assert loop.train(with_data(run, held_out=str(own / "moved.csv")), tmp_path / "run") == other, "the data may be gone"
    assert weights_and_config(tmp_path / "run" / "model") == model
    with pytest.raises(UserError, match=r"finished, and its model/ was made otherwise \(export = 'last', there 'best'\)"):
        loop.train(dataclasses.replace(run, export="last"), tmp_path / "run")


@pytest.mark.parametrize("content", ["{", "[1]", '{"retrieved": 1}'])
def test_results_of_another_version_are_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json: not the results of a run of this version \(.*\); remove the file"):
        loop.read_results(tmp_path)
