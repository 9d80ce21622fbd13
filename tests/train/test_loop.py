"""What a run does between its updates: evaluation, checkpoints of three kinds, signals, and resuming in other circumstances."""

import contextlib
import dataclasses
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.tiny_run import BROKEN, config, final_state, make_data, read_lines

from biomedclip_jax.config import ComputeConfig, OptimizerConfig, ShardingConfig, Sigmoid, Softmax, Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train import _loop as run_module
from biomedclip_jax.train import export
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._checkpoint import Checkpoints, restored_state
from biomedclip_jax.train._held_out import HeldOut, held_out_pairs
from biomedclip_jax.train.export import read_run
from biomedclip_jax.train.state import at_image_size, new_state, optimizer_for


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def one_stage(data: Path, **changes: Any) -> TrainConfig:
    stage = Stage(16, steps=6, patch_keep=0.5)
    return config(data, **({"stages": (stage,), "checkpoint_every": 100} | changes))


def steps_kept(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


# --- evaluation and the best checkpoint -----------------------------------------------------------------------------


def test_the_held_out_pairs_are_evaluated_and_the_best_checkpoint_is_kept(data: Path, tmp_path: Path) -> None:
    run = one_stage(data, evaluate_every=1, keep_checkpoints=1, optimizer=OptimizerConfig(learning_rate=3e-2, warmup_steps=0))
    assert loop.train(run, tmp_path) is not None
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if "held_out_loss" in line]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    losses = {line["step"]: line["held_out_loss"] for line in lines}
    best = min(losses, key=losses.__getitem__)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.best == best and checkpoints.latest == 6
    checkpoints.close()
    assert steps_kept(tmp_path) == sorted({best, 6})
    # the best evaluation is of the weights that the model folder has
    results = loop.train(run, tmp_path)
    assert results is not None and results.exported_step == best
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            assert lines[best][f"held_out_{way}_recall_at_{k}"] == getattr(results, f"{way}_recall_at_{k}")


class Losses:
    """Held-out losses by updates done, in place of real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *losses: float):
        def evaluate(held_out: HeldOut, state: Any, *rest: Any) -> dict[str, float]:
            return {"loss": losses[int(state.step)]}

        monkeypatch.setattr(HeldOut, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("losses", "export", "exported", "says"),
    [
        ((5, 4, 3, 4, 5, 6, 7), "best", 2, "after step 2 of 6 (held-out loss 5.000 at the start, 3.000 after"),
        ((5, 6, 7, 6, 6, 6, 6), "best", 0, "the weights of the START, as no evaluation found a lower"),
        ((5, 4, 3, 4, 5, 6, 7), "last", 6, "after step 6 of 6 (held-out loss 5.000 at the start, 7.000 at the end)"),
    ],
)
def test_which_weights_are_exported(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    losses: tuple[float, ...],
    export: Any,
    exported: int,
    says: str,
) -> None:
    run = one_stage(data, evaluate_every=1, export=export, keep_checkpoints=100)
    Losses(monkeypatch, *losses)
    results = loop.train(run, tmp_path)
    assert results is not None and results.exported_step == exported and says in capsys.readouterr().out
    model = flatten_dict(read_model(tmp_path / "model").params, sep="/")
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        state, _ = restored_state(checkpoints, exported, run, optimizer_for(run), make_mesh())
    weights = flatten_dict(state.params, sep="/")
    assert all(np.array_equal(model[path], weights[path]) for path in model)


def test_a_run_that_gets_no_better_ends_early_also_when_it_was_interrupted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = one_stage(data, evaluate_every=1, patience=2)
    Losses(monkeypatch, 5, 4, 3, 4, 5, 1, 1)
    with pytest.raises(UserError, match=r"patience = 2: needs run\.evaluate_every"):
        loop.train(one_stage(data, patience=2), tmp_path)
    for at_most in (3, None):
        results = loop.train(run, tmp_path, max_steps=at_most)
    assert results is not None and results.exported_step == 2
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if "held_out_loss" in line] == [0, 1, 2, 3, 4]


def test_a_held_out_loss_that_is_no_number_is_never_the_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Losses(monkeypatch, np.nan, 4, np.nan, 3, np.nan, 5, 6)
    results = loop.train(one_stage(data, evaluate_every=1), tmp_path)
    assert results is not None and results.exported_step == 3


def test_held_out_images_of_which_none_can_be_read(data: Path, tmp_path: Path) -> None:
    for i in range(24, 32):
        (tmp_path / f"{i}.png").write_bytes((data / BROKEN).read_bytes())
    (tmp_path / "held_out.csv").write_bytes((data / "held_out.csv").read_bytes())
    run = one_stage(data, evaluate_every=1)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, held_out=str(tmp_path / "held_out.csv")))
    with pytest.raises(UserError, match=r"held_out\.csv: none of the 8 held-out images can be read"):
        loop.train(run, tmp_path / "run")


def test_losses_of_earlier_stages_are_not_compared(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of other images, or of another loss; the start of such a run is no candidate either."""
    stages = (Stage(16, steps=3), Stage(16, steps=3, image_size=24))
    Losses(monkeypatch, 1, 1, 1, 1, 4, 3, 4)
    results = loop.train(one_stage(data, stages=stages, evaluate_every=1), tmp_path)
    assert results is not None and results.exported_step == 5


def test_captions_that_the_model_does_not_read_whole_are_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (data / "train.csv").read_text()
    (data / "longer.csv").write_text(table.replace("image 2,", f"{'lung ' * 40},").replace("image 4,", f"{'lung ' * 40},"))
    short = one_stage(data, stages=(Stage(16, steps=1),))
    run = dataclasses.replace(short, data=dataclasses.replace(short.data, train=str(data / "longer.csv")))
    loop.train(run, tmp_path)
    err = capsys.readouterr().err
    assert re.search(r"^captions: 2 of 22 are longer than the \d+ tokens .*'(chest|brain) lung", err, re.M), err


@pytest.mark.parametrize("loss", [Softmax(), Softmax(equal_captions="positives")], ids=["negatives", "positives"])
def test_the_held_out_loss_is_that_of_all_pairs_together(data: Path, tmp_path: Path, loss: Softmax) -> None:
    """The same from the outside: embeddings of the model folder, and the loss written out in NumPy."""
    from biomedclip_jax.data.tables import read_table
    from biomedclip_jax.pretrained import from_pretrained

    rows = (data / "held_out.csv").read_text().splitlines()
    shared = data / "some_captions_are_equal.csv"
    rows[2:5] = [f"{row.split(',')[0]},{rows[1].split(',', 1)[1]}" for row in rows[2:5]]
    shared.write_text("\n".join(rows) + "\n")
    run = one_stage(data, evaluate_every=6, stages=(Stage(16, steps=6, loss=loss),))
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, held_out=str(shared)))
    loop.train(run, tmp_path)
    clip = from_pretrained(tmp_path)
    table = read_table(shared, "image", "caption")
    pairs = [table[i] for i in range(len(table))]
    image, text = clip.encode_images([pair.image for pair in pairs]), clip.encode_texts([pair.captions[0] for pair in pairs])
    scores = clip.logit_scale * (image @ text.T).astype(np.float64)
    captions = np.array([pair.captions[0] for pair in pairs])
    same = captions[:, None] == captions
    assert same.sum() == 8 + 12, "four captions of eight are the same"
    targets = same / same.sum(axis=1) if loss.equal_captions == "positives" else np.eye(8)
    expected = 0.0
    for s in (scores, scores.T):
        expected += (np.log(np.exp(s).sum(axis=1)) - (s * targets).sum(axis=1)).mean() / 2
    found = read_lines(tmp_path / "metrics.jsonl")[-1]["held_out_loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_evaluating_again_compiles_nothing(data: Path) -> None:
    compiled: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    run = one_stage(data, stages=(Stage(16, steps=6), Stage(16, steps=1, image_size=24)))
    mesh, pairs = make_mesh(), held_out_pairs(run, data)
    assert pairs is not None
    held_out = HeldOut(run, pairs, data, mesh)
    state = new_state(run, 16, optimizer_for(run), mesh)
    first = held_out.evaluate(state, 0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    assert held_out.evaluate(state, 0) == first
    assert not compiled
    held_out.evaluate(at_image_size(state, run, 24), 1)
    assert compiled, "another stage has other images, and the listener hears it"


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_due_by_time(data: Path, tmp_path: Path) -> None:
    run = one_stage(data, checkpoint_minutes=1e-6, keep_checkpoints=100)
    loop.train(run, tmp_path)
    assert len(steps_kept(tmp_path)) >= 3, "each asks for the next"


THREE_STAGES = (Stage(16, steps=3, patch_keep=0.5), Stage(16, steps=3, patch_keep=0.5), Stage(16, steps=2))


def test_what_is_due_at_the_end_of_a_stage_happens_there(data: Path, tmp_path: Path) -> None:
    run = one_stage(data, stages=THREE_STAGES, evaluate_every=3, checkpoint_every=3, keep_checkpoints=100)
    loop.train(run, tmp_path)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["stage"]) for line in lines if "held_out_loss" in line] == [(0, 0), (3, 0), (6, 1), (8, 2)]
    assert steps_kept(tmp_path) == [0, 3, 6, 8]


def test_a_save_by_time_at_the_end_of_a_stage(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for with the last batch of a stage, and asked for again later."""
    late = {2, 4}  # updates done when the clock says so
    ask = run_module.Run._request

    def request(run: Any) -> int:
        if run.step in late:
            run.saved -= 24 * 3600
        return ask(run)

    monkeypatch.setattr(run_module.Run, "_request", request)
    loop.train(one_stage(data, stages=THREE_STAGES, keep_checkpoints=100), tmp_path)
    assert steps_kept(tmp_path) == [3, 6, 8]


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_reader_changes_nothing_in_the_folder_of_a_live_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is half-written; and a checkpoint that goes while it is read is followed by the one after it."""
    run = one_stage(data, checkpoint_every=2)
    with pytest.raises(UserError, match="not a readable run config"):
        read_run(tmp_path)
    assert not any(tmp_path.iterdir())
    loop.train(run, tmp_path, max_steps=4)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    before = everything_in(tmp_path)
    newest = flatten_dict(read_run(tmp_path).params, sep="/")
    assert everything_in(tmp_path) == before

    def going(checkpoints: Any, step: int, *rest: Any) -> Any:
        if step == 4:
            shutil.rmtree(tmp_path / "checkpoints" / "4")
        return restored_state(checkpoints, step, *rest)

    monkeypatch.setattr(export, "restored_state", going)
    earlier = flatten_dict(read_run(tmp_path).params, sep="/")
    assert any(not np.array_equal(newest[path], earlier[path]) for path in newest)
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "state")
    with pytest.raises(UserError, match=r"checkpoint of step 2 cannot be read"):
        read_run(tmp_path)


def damage(folder: Path, how: str) -> None:
    # every file of data: how the arrays are spread over them depends on timing, and some of it is not read again
    files = [file for file in folder.glob("state/**/d/*") if file.is_file()]
    assert files
    if how == "truncated":
        for file in files:
            os.truncate(file, file.stat().st_size // 2)
    elif how == "overwritten":
        for file in files:
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 4] + b"\xa5" * (len(content) // 2) + content[3 * len(content) // 4 :])
    elif how == "array missing":
        shutil.rmtree(folder / "state" / "d")
    else:
        (folder / "about" / "metadata").unlink()


# tensorstore still has reads under way when one has failed, and finds Orbax's event loop closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["truncated", "overwritten", "array missing", "about missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    run = one_stage(data, checkpoint_every=2)
    loop.train(run, tmp_path, max_steps=4)
    assert steps_kept(tmp_path) == [2, 4]
    expected = final_state(run, tmp_path)[1]
    damage(tmp_path / "checkpoints" / "4", how)
    capsys.readouterr()
    assert loop.train(run, tmp_path, max_steps=4) is None
    said = capsys.readouterr().out
    assert "the checkpoint of step 4 is damaged" in said and "going on after step 2" in said
    assert (tmp_path / "checkpoints-damaged" / "4").is_dir()
    step, state = final_state(run, tmp_path)
    assert step == 4
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(expected)))


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_stage(data, checkpoint_every=1)
    loop.train(run, tmp_path, max_steps=2)
    full = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"checkpoints: a checkpoint could not be written \(0 MB are free, 1 MB are needed\)"):
        loop.train(run, tmp_path)
    monkeypatch.undo()
    assert steps_kept(tmp_path) == [1, 2]
    assert loop.train(run, tmp_path, max_steps=3) is None
    assert final_state(run, tmp_path)[0] == 3


def test_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    run = one_stage(own)
    loop.train(run, tmp_path / "run", max_steps=1)
    lines = (own / "train.csv").read_text().splitlines(keepends=True)
    (own / "train.csv").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=r"21 usable pairs, but this run began with 22"):
        loop.train(run, tmp_path / "run")


# --- signals --------------------------------------------------------------------------------------------------------


def test_a_signal_saves_and_the_same_call_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_stage(data)
    make_step = run_module.make_step

    def signalled(*arguments: Any) -> Any:
        step = make_step(*arguments)

        def update(state: Any, batch: Any) -> Any:
            if int(state.step) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # Slurm sends it twice
            return step(state, batch)

        return update

    monkeypatch.setattr(run_module, "make_step", signalled)
    with pytest.raises(loop.Terminated, match="the same command goes on"):
        loop.train(run, tmp_path / "run")
    monkeypatch.undo()
    step, _ = final_state(run, tmp_path / "run")
    assert 3 <= step <= 5
    assert loop.train(run, tmp_path / "run") is not None
    loop.train(run, tmp_path / "whole")
    state, whole = final_state(run, tmp_path / "run")[1], final_state(run, tmp_path / "whole")[1]
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(whole)))


def test_a_signal_during_the_last_step_of_a_stage(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the next stage to be compiled."""
    made: list[int] = []
    make_step = run_module.make_step

    def counted(config: Any, number: int, *rest: Any) -> Any:
        step = make_step(config, number, *rest)
        made.append(number)

        def update(state: Any, batch: Any) -> Any:
            if int(state.step) == 2:  # what the hosts ask for is in the batch already
                os.kill(os.getpid(), signal.SIGTERM)
            return step(state, batch)

        return update

    monkeypatch.setattr(run_module, "make_step", counted)
    run = one_stage(data, stages=THREE_STAGES)
    with pytest.raises(loop.Terminated, match="after step 3 of 8"):
        loop.train(run, tmp_path)
    assert made == [0] and steps_kept(tmp_path) == [3]
    monkeypatch.undo()
    assert loop.train(run, tmp_path) is not None


@pytest.mark.parametrize("updates_done", [6, 7])  # the signal is read after the last step, or nobody asks for it any more
def test_a_signal_before_the_last_step_of_all_loses_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates_done: int
) -> None:
    """The last step is done by then: the run ends as it would have ended."""
    ask = run_module.Run._request

    def request(run: Any) -> int:
        if run.step == updates_done:
            os.kill(os.getpid(), signal.SIGTERM)
        return ask(run)

    monkeypatch.setattr(run_module.Run, "_request", request)
    assert loop.train(one_stage(data, stages=(Stage(16, steps=8),)), tmp_path) is not None
    assert steps_kept(tmp_path) == [8]


# --- what a run leaves behind in the process ------------------------------------------------------------------------


def alive() -> set[str]:
    return {f"{thread.name} {thread.ident}" for thread in threading.enumerate()} | {
        f"process {child.pid}" for child in multiprocessing.active_children()
    }


def failing_read(run: Any, *arguments: Any, **options: Any) -> int:
    raise UserError("something in the loop")


@pytest.mark.parametrize(
    ("where", "workers"), [("in the loop", 0), ("in the loop", 2), ("half-way into the run", 0), ("before the run", 0)]
)
def test_an_error_that_is_handled_leaves_nothing_running(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, workers: int
) -> None:
    """The error itself is kept here, as an interpreter or a notebook does: with it, all that its frames hold."""
    given = one_stage(data)
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, workers=workers))
    loop.train(given, tmp_path, max_steps=1)  # what JAX, Orbax and Grain keep for good has started
    before, handlers = alive(), [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    if where == "in the loop":
        monkeypatch.setattr(run_module.Run, "_read", failing_read)
    elif where == "half-way into the run":
        monkeypatch.setattr(run_module, "metrics_of", failing_read)
    else:
        given = dataclasses.replace(given, seed=1)
    with pytest.raises(UserError) as kept:
        loop.train(given, tmp_path)
    until = time.monotonic() + 5  # threads of an executor that was shut down end a moment later
    while alive() - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive() - before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    monkeypatch.undo()
    assert kept.value.__traceback__ is not None
    if where != "before the run":
        assert loop.train(given, tmp_path, max_steps=2) is None, "and the run can go on in the same process"


# --- resuming in other circumstances --------------------------------------------------------------------------------


def compared(ours: Path, expected: Path) -> float:
    """The largest difference of losses, relative."""
    losses = [[line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line] for folder in (ours, expected)]
    assert len(losses[0]) == len(losses[1]) == 6
    return max(abs(a - b) / b for a, b in zip(*losses, strict=True))


CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "four devices": ({}, 4),
    "one device": ({}, 1),
    "another microbatch": ({"stages": (Stage(16, steps=6, patch_keep=0.5, microbatch=8),)}, 8),
    "fsdp": ({"sharding": ShardingConfig(fsdp=4)}, 8),
    "no buckets, remat": ({"compute": ComputeConfig(text_buckets=1, remat="full")}, 8),
}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(one_stage(data), workdir)
    return workdir


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_goes_on_on_other_devices(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Gradients differ by rounding only; the losses after the change say so (Adam blows rounding up in dead parameters)."""
    changes, devices = CHANGES[name]
    loop.train(one_stage(data), tmp_path, max_steps=3)
    before = final_state(one_stage(data), tmp_path)[1]

    def some(devices_: Any = None, fsdp: int = 1) -> Any:
        return make_mesh(jax.devices()[:devices], fsdp)

    monkeypatch.setattr(run_module, "make_mesh", some)
    assert loop.train(one_stage(data, **changes), tmp_path, max_steps=3) is None
    after = final_state(one_stage(data), tmp_path)[1]
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after))), "moved, not changed"
    assert loop.train(one_stage(data, **changes), tmp_path) is not None
    assert compared(tmp_path, whole) <= 1e-6


def test_from_fsdp_back_to_whole_copies(data: Path, whole: Path, tmp_path: Path) -> None:
    loop.train(one_stage(data, sharding=ShardingConfig(fsdp=8, gather="step")), tmp_path, max_steps=3)
    assert loop.train(one_stage(data), tmp_path) is not None
    assert compared(tmp_path, whole) <= 1e-6
    theirs = read_model(whole / "model").params
    for path, leaf in flatten_dict(read_run(tmp_path).params, sep="/").items():
        assert np.abs(leaf - flatten_dict(theirs, sep="/")[path]).max() <= 1e-3, path


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("seed", {"seed": 1}),
        ("compute.dtype", {"compute": ComputeConfig(dtype="bfloat16")}),
        (r"stages\.0\.batch_size", {"stages": (Stage(8, steps=6, patch_keep=0.5),)}),
    ],
)
def test_what_changes_the_result_is_refused(data: Path, whole: Path, path: str, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"another config \({path} = .*, there .*\)"):
        loop.train(one_stage(data, **change), whole)


# --- which weights are trained, and which are handed over -----------------------------------------------------------


def test_stages_train_what_they_say_and_the_model_folder_mixes_weights(data: Path, tmp_path: Path) -> None:
    stages = (Stage(16, steps=2, trainable=("*_head", "logit_scale")), Stage(16, steps=2, trainable=("text", "*_head")))
    run = one_stage(data, stages=stages, interpolate=0.25, optimizer=OptimizerConfig(warmup_steps=0, ema=0.5))
    loop.train(run, tmp_path)
    mesh = make_mesh()
    start = flatten_dict(new_state(run, 16, optimizer_for(run), mesh).params, sep="/")
    state = final_state(run, tmp_path)[1]
    params, average = flatten_dict(state.params, sep="/"), state.ema
    exported = flatten_dict(read_model(tmp_path / "model").params, sep="/")
    for path, before in start.items():
        moved = not np.array_equal(params[path], before)
        assert moved == (not path.startswith("image/")), path
        assert (path in average) == moved, path
        trained = average.get(path, params[path])
        assert np.allclose(exported[path], 0.25 * trained + 0.75 * before, atol=1e-7), path


def test_sigmoid_after_softmax(data: Path, tmp_path: Path) -> None:
    model = dataclasses.replace(one_stage(data).model, init_logit_bias=-10.0)
    stages = (Stage(16, steps=2), Stage(16, steps=2, loss=Sigmoid()))
    loop.train(one_stage(data, stages=stages, model=model, optimizer=OptimizerConfig(warmup_steps=0)), tmp_path)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert lines[0]["logit_bias"] == lines[2]["logit_bias"] == -10.0 != lines[3]["logit_bias"]
    assert float(read_model(tmp_path / "model").params["logit_bias"]) != -10.0


# --- sources --------------------------------------------------------------------------------------------------------


def test_another_source_of_the_same_pairs_trains_the_same(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: from tars, with worker processes, and resumed without them; evaluated on a build, as from tables."""
    from biomedclip_jax.data.convert import convert
    from biomedclip_jax.data.tables import read_table

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    convert(read_table(data / "held_out.csv", "image", "caption", "label"), tmp_path / "tars", "webdataset")
    convert(read_table(data / "held_out.csv", "image", "caption", "label"), tmp_path / "build", "tfds")
    run = one_stage(data)
    sources = dataclasses.replace(run.data, train=str(data / "held_out.csv"))
    expected = loop.train(dataclasses.replace(run, data=sources), tmp_path / "table")
    other = dataclasses.replace(sources, train=f"{tmp_path}/tars/*.tar", held_out=f"{tmp_path}/build:train")
    for workers, steps in ((2, 3), (0, None)):
        changed = dataclasses.replace(run, data=dataclasses.replace(other, workers=workers))
        results = loop.train(changed, tmp_path / "tars_run", steps)
    assert results is not None and expected is not None
    assert dataclasses.replace(results, seconds=0) == dataclasses.replace(expected, seconds=0)
    a, b = (final_state(run, tmp_path / name)[1] for name in ("table", "tars_run"))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_a_missing_shard_is_named_before_anything_is_computed(data: Path, tmp_path: Path) -> None:
    run = one_stage(data)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, train=f"{tmp_path}/{{00..01}}.tar"))
    with pytest.raises(UserError, match=r"00\.tar on host .*: this shard is missing.*\(and 1 more of 2 shards\)"):
        loop.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_images_wait_on_the_host_learns_the_same(data: Path, tmp_path: Path) -> None:
    """Over stages with and without accumulation; and it goes on where a run whose images were on the devices stopped."""
    waiting = config(data, compute=ComputeConfig(images_in="host"))
    loop.train(config(data), tmp_path / "device")
    loop.train(config(data), tmp_path / "host", max_steps=1)
    loop.train(waiting, tmp_path / "host")
    found = [[line["loss"] for line in read_lines(tmp_path / place / "metrics.jsonl")] for place in ("device", "host")]
    assert len(found[0]) == 8
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
