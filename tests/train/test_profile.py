"""Traces for xprof: the updates that were asked for, with their numbers, and a run that is the same with them."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers.tiny_run import config, make_data, read_lines

from biomedclip_jax.config import Stage
from biomedclip_jax.train import main as loop
from biomedclip_jax.train.profile import Profile


def traced(folder: Path, name: str) -> list[int]:
    """The numbers of the steps of this name in the only trace of a folder."""
    (file,) = folder.glob("plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events if event.name == name]
    return sorted(int(dict(event.stats)["step_num"]) for event in events)


def test_a_run_and_its_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two updates of seven, after the first two; the metrics are those of a run without a trace."""
    data = tmp_path / "data"
    data.mkdir()
    make_data(data)
    run = dataclasses.replace(config(data), stages=(Stage(16, steps=7, patch_keep=0.5),))
    assert loop.train(run, tmp_path / "plain", max_steps=5) is None
    assert not (tmp_path / "plain" / "profile").exists() and "profile" not in capsys.readouterr().out
    assert loop.train(run, tmp_path / "run", max_steps=5, profile=2) is None
    folder = tmp_path / "run" / "profile"
    assert traced(folder, "train") == [3, 4]
    assert (
        f"profile of 2 updates: {folder}; to look at it: pip install xprof; xprof --logdir {folder}" in capsys.readouterr().out
    )
    losses = [[line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")] for name in ("plain", "run")]
    assert losses[0] == losses[1] and len(losses[0]) == 5


@jax.jit
def add(state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
    return state + batch, {}


def updated(profile: Profile, updates: int, done: int = 0) -> float:
    update = profile.around(add, done)
    state = jnp.float32(0)
    for _ in range(updates):
        state, _ = update(state, jnp.float32(1))
    return float(state)


def test_a_stage_that_is_shorter_than_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = Profile(9, tmp_path)
    assert updated(profile, 2) == 2 and updated(profile, 4, done=2) == 4 and updated(profile, 3, done=6) == 3
    profile.close()
    assert traced(tmp_path, "train") == [5, 6]
    assert capsys.readouterr().out.count("profile of 2 updates") == 1


def test_nothing_to_trace_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = Profile(9, tmp_path / "profile")
    updated(profile, 2)
    profile.close()
    assert "nothing was traced" in capsys.readouterr().out and not (tmp_path / "profile").exists()
    none = Profile(None, tmp_path / "profile")
    updated(none, 5)
    none.close()
    assert capsys.readouterr().out == "" and not (tmp_path / "profile").exists()


def test_a_profiler_that_fails_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = Profile(2, tmp_path / "profile")
    with jax.profiler.trace(str(tmp_path / "other")):
        assert updated(profile, 6) == 6
    profile.close()
    said = capsys.readouterr().out
    assert said.count("no profile") == 1 and "the rest goes on" in said
    assert os.listdir(tmp_path) == ["other"]
