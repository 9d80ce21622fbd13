"""Our side runs the step that a training run makes, on the emulated devices."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_bench import CONFIG

from biomedclip_jax.bench.ours import build, build_step, text_buckets, trace
from biomedclip_jax.bench.task import Task, exact_biomedclip, task_config
from biomedclip_jax.config import Adaptation, Classification, Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.sharding import make_mesh


@pytest.fixture(scope="module")
def work():
    config = task_config(CONFIG, 0)
    return build(Task(config, ("step", "forward", "loss"), lengths="real"))


def test_every_measure_runs_more_than_once(work) -> None:
    assert list(work.calls) == ["step", "forward", "loss"]
    for call in work.calls.values():
        call()
        call()
    assert work.peak_bytes() > 1 << 20


def test_the_facts_describe_it(work) -> None:
    facts, counted = work.facts, work.facts.counted
    assert counted is not None
    assert facts.platform == "cpu"
    assert facts.devices == "8 x cpu"
    assert facts.compile_seconds.keys() == counted.temporary_bytes.keys() == {"step", "forward", "loss"}
    assert counted.temporary_bytes["step"] > counted.temporary_bytes["loss"]
    assert counted.peak_flops is None, "no MFU on a chip whose peak is not known, nor in float32"
    assert counted.flops_per_pair <= counted.padded_flops_per_pair


def test_the_step_trains() -> None:
    step, (state, batch) = build_step(Task(task_config(CONFIG, 0)), make_mesh())
    before = jax.tree.map(np.asarray, state.params)
    after, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])
    assert int(after.step) == 1
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), after.params, before)
    assert all(jax.tree.leaves(moved["text"]["blocks"]["mlp"]))


def test_a_batch_that_the_devices_cannot_share_is_refused() -> None:
    config = dataclasses.replace(task_config(CONFIG, 0), stages=(dataclasses.replace(CONFIG.stages[0], batch_size=12),))
    with pytest.raises(UserError, match="batch_size = 12: expected a multiple of 8"):
        build(Task(config, ("step",)))


def test_real_captions_are_sorted_into_buckets_and_full_ones_are_not() -> None:
    config = exact_biomedclip(512)
    assert text_buckets(Task(config), 1) == ()
    buckets = text_buckets(Task(config, lengths="real"), 1)
    assert len(buckets) > 1
    assert sum(bucket.rows for bucket in buckets) == 512
    off = dataclasses.replace(config, compute=dataclasses.replace(config.compute, text_buckets=1))
    assert text_buckets(Task(off, lengths="real"), 1) == ()


def test_a_stage_of_labels_is_refused() -> None:
    config = exact_biomedclip(8)
    stage = Stage(8, steps=1, loss=Classification(), trainable=("context",))
    config = dataclasses.replace(
        config, adaptation=Adaptation(context=4), stages=(stage,), data=dataclasses.replace(config.data, label_column="label")
    )
    with pytest.raises(UserError, match="--stage 0: learns of labels"):
        task_config(config, 0)


def test_calls_are_traced_after_two_that_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[int] = []
    trace({"step": lambda: made.append(int(jax.numpy.ones(3).sum()))}, 2)
    assert len(made) == 4
    (file,) = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events if event.name == "step"]
    assert [int(dict(event.stats)["step_num"]) for event in events] == [0, 1]
