"""Whole runs of a tiny model: what they leave behind, how they go on after a stop, and what stops them."""

import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.reference import load_open_clip
from helpers.tiny_run import ABSENT, BATCHES, BROKEN, TOTAL, config, final_state, make_data, read_lines
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.config import OptimizerConfig, Stage, from_json
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import from_pretrained
from biomedclip_jax.support.owner import LOCK, _started
from biomedclip_jax.train import _loop as run_module
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._final_evaluation import Results
from biomedclip_jax.train.export import read_config, read_run
from biomedclip_jax.train.state import TrainState

Finished = tuple[Path, Results]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def assert_finite(state: TrainState) -> None:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that nothing interrupted: its folder and what it returned."""
    workdir = tmp_path_factory.mktemp("finished")
    results = loop.train(config(data), workdir)
    assert results is not None
    return workdir, results


def test_what_a_run_leaves(data: Path, finished: Finished) -> None:
    workdir, results = finished
    assert from_json((workdir / "config.json").read_text()) == read_config(workdir) == config(data)
    found = json.loads((workdir / "results.json").read_text())
    assert found == results.record() and list(found) == list(results.record())
    assert found["held_out_pairs"] == 8 and found["classes"] == 2 and found["seconds"] > 0
    rates = [f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    rates += ["zero_shot_accuracy", "chance"]
    says = ["classes", "zero_shot_images", "zero_shot_prompts"]
    assert list(found) == ["held_out_pairs", *rates, *says, "exported_step", "held_out_data", "seconds"]
    assert found["zero_shot_images"] == 8 and found["zero_shot_prompts"] == ["a photo of {}", "{} presented in image"]
    assert all(0 <= found[name] <= 1 for name in rates) and found["chance"] == 0.5
    for picture in ("loss_curve.png", "retrieval_gallery.png"):
        with Image.open(workdir / picture) as image:
            assert image.format == "PNG" and min(image.size) > 100


def test_evaluate_says_the_same_of_the_model_and_its_held_out_table(
    data: Path, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One model and one table have one zero-shot number, of as many images."""
    workdir, results = finished
    words = ["zero-shot", str(workdir), "--data", str(data / "held_out.csv"), "--out", str(tmp_path), "--resamples", "5"]
    assert main(["evaluate", *words, "--label-column", "label"]) == 0
    (row,) = json.loads((tmp_path / "results.json").read_text())
    found = results.zero_shot_prompts or []
    assert (row["accuracy"], row["n"]) == (results.zero_shot_accuracy, results.zero_shot_images)
    assert row["majority_accuracy"] == results.chance
    assert row["settings"]["prompts"][0] == [each.replace("{}", "brain") for each in found]
    assert f"accuracy {results.zero_shot_accuracy:.4f}" in capsys.readouterr().out


def test_metrics_of_a_run(finished: Finished) -> None:
    lines = read_lines(finished[0] / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, TOTAL + 1))
    assert [line["stage"] for line in lines] == [0] * 3 + [1] * 2 + [2] * 3
    assert [line["samples_seen"] for line in lines] == list(np.cumsum(BATCHES))
    rates = [line["learning_rate"] for line in lines]
    cosine = [0.5 * (1 + math.cos(math.pi * progress / 6)) for progress in range(6)]
    expected = [0.5e-3, 1e-3, *(1e-3 * c for c in cosine[:3]), *(0.5e-3 * c for c in cosine[3:])]
    assert np.allclose(rates, expected, rtol=1e-5)
    for line in lines:
        assert 0 < line["loss"] < 2 * math.log(32) and line["grad_norm"] > 0 and line["pairs_per_second"] > 0
        assert 10 < line["logit_scale"] < 20 and 0 <= line["data_wait_fraction"] <= 1
        assert line["mfu"] is None, "no peak is known for a CPU"
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)


def test_bad_records_are_listed_and_do_not_stop(finished: Finished) -> None:
    rejects = read_lines(finished[0] / "rejects.jsonl")
    reasons = {Path(reject["image"]).name: reject["reason"] for reject in rejects}
    assert len(rejects) == len(reasons) == 3, "each once"
    assert reasons[ABSENT] == "image file is not there" and reasons["7.png"] == "caption is empty"
    assert BROKEN in reasons[BROKEN]


def test_the_model_folder_is_open_clips(data: Path, finished: Finished) -> None:
    import torch

    workdir, _ = finished
    clip = from_pretrained(workdir)  # a run folder is as good as its model folder
    assert clip.processor.config.image_size == clip.config.image.image_size == 24, "the last stage's"
    pictures = [data / f"{i}.png" for i in range(24, 28)]
    captions = ["chest image", "the brain", "a"]
    image, text = clip.encode_images(pictures), clip.encode_texts(captions)
    assert np.abs(image[0] - image[1]).max() > 1e-3 and np.abs(text[0] - text[1]).max() > 1e-3, "it tells them apart"

    folder = workdir / "model"
    open_clip = load_open_clip()
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = []
    for path in pictures:
        with Image.open(path) as picture:
            pixels.append(preprocess(picture))
    with torch.no_grad():
        expected_image = theirs.eval().encode_image(torch.stack(pixels), normalize=True).numpy()
        expected_text = theirs.encode_text(tokenizer(captions), normalize=True).numpy()
    assert np.abs(image - expected_image).max() <= 1e-5
    assert np.abs(text - expected_text).max() <= 1e-5
    assert clip.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-6)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(data: Path, finished: Finished, tmp_path: Path) -> None:
    """Stopped inside each stage and where one ends: the same parameters, moments and losses to the last bit."""
    run = config(data)
    for stop in (2, 3, 3, 4, 7):  # 3 twice: asked for what is done already
        assert loop.train(run, tmp_path, max_steps=stop) is None
        assert not (tmp_path / "model").exists() and not (tmp_path / "results.json").exists()
        assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, stop + 1))
        assert final_state(run, tmp_path)[0] == stop
        with (tmp_path / "rejects.jsonl").open("a") as file:
            file.write('{"row": "1", "im')  # as a killed run leaves it
    results = loop.train(run, tmp_path)
    assert results is not None

    whole, expected = finished
    (step, state), (whole_step, whole_state) = final_state(run, tmp_path), final_state(run, whole)
    assert step == whole_step == TOTAL == int(state.step)
    assert jax.tree.structure(state) == jax.tree.structure(whole_state)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(whole_state)))
    for name in ("loss", "grad_norm", "learning_rate", "samples_seen"):
        lines, whole_lines = (read_lines(folder / "metrics.jsonl") for folder in (tmp_path, whole))
        assert [line[name] for line in lines] == [line[name] for line in whole_lines], name
    assert dataclasses.replace(results, seconds=0) == dataclasses.replace(expected, seconds=0)
    assert len(read_lines(tmp_path / "rejects.jsonl")) == 3, "a bad record met before a stop is not forgotten"


def test_an_unfinished_run_is_a_model(data: Path, tmp_path: Path) -> None:
    run = config(data)
    with pytest.raises(UserError, match="not a model folder"):
        from_pretrained(tmp_path)
    loop.train(run, tmp_path, max_steps=1)
    model, (_, state) = read_run(tmp_path), final_state(run, tmp_path)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(state.params)))
    image = from_pretrained(tmp_path).encode_images([data / "24.png"])
    assert image.shape == (1, run.model.embed_width) and abs(np.linalg.norm(image) - 1) <= 1e-6


def test_a_finished_run_is_not_trained_again(data: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir, results = finished
    monkeypatch.setattr(run_module, "make_step", None)  # whoever trains fails
    before = (workdir / "metrics.jsonl").read_bytes()
    assert loop.train(config(data), workdir) == results
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_folder_belongs_to_one_config(data: Path, finished: Finished) -> None:
    with pytest.raises(UserError, match=r"config\.json: this folder holds a run with another config"):
        loop.train(config(data, seed=1), finished[0])


def test_a_batch_that_cannot_be_split_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size = 12"):
        loop.train(config(data, stages=(Stage(12, steps=1),)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- a loss that is not a number ------------------------------------------------------------------------------------


def test_a_tokenizer_that_pads_otherwise_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    """The model folder would be refused, and be another model in open_clip."""
    run = config(data)
    model = dataclasses.replace(run.model, text=dataclasses.replace(run.model.text, pad_id=5))
    with pytest.raises(UserError, match=r"fills texts up with '\[PAD\]', id 0, but the text tower's pad_id is 5"):
        loop.train(dataclasses.replace(run, model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_divergence_stops_the_run(data: Path, tmp_path: Path) -> None:
    run = config(data, optimizer=OptimizerConfig(learning_rate=1e30, warmup_steps=0))
    with pytest.raises(UserError, match=r"step 2, stage 0: the loss is nan; .*not_finite\.json .*try a lower learning_rate"):
        loop.train(run, tmp_path)
    record = json.loads((tmp_path / "not_finite.json").read_text())
    assert (record["step"], record["stage"], len(record["examples"])) == (2, 0, 16)
    seen = [example["image"] for example in record["examples"]]
    assert seen[0].endswith(".png")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_the_last_good_checkpoint_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At step 4 a checkpoint is due. A loss may still be a number while the gradient, and so the state, no longer is."""
    run = config(data, stages=(Stage(16, steps=6, patch_keep=0.5),))
    make_step = run_module.make_step

    def failing(*arguments: Any) -> Callable[..., Any]:
        step = make_step(*arguments)

        def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
            number = int(state.step) + 1
            state, metrics = step(state, batch)
            if number < 4:
                return state, metrics
            return jax.tree.map(lambda x: x * jnp.nan if x.ndim else x, state), metrics | {name: jnp.float32(jnp.nan)}

        return update

    monkeypatch.setattr(run_module, "make_step", failing)
    with pytest.raises(UserError, match=r"step 4, stage 0: .* nan; .*the last checkpoint is kept"):
        loop.train(run, tmp_path)
    step, state = final_state(run, tmp_path)
    assert step == 2
    assert_finite(state)
    monkeypatch.setattr(run_module, "make_step", make_step)
    assert loop.train(run, tmp_path, max_steps=4) is None, "and the run can go on from there"
    assert_finite(final_state(run, tmp_path)[1])


# --- one run at a time in a folder ------------------------------------------------------------------------------------


def test_a_folder_that_another_run_writes_is_refused(data: Path, tmp_path: Path) -> None:
    """In one line that names it; nothing is touched. The folder of a run that was killed is taken over."""
    run = config(data)
    loop.train(run, tmp_path, max_steps=1)
    assert not (tmp_path / LOCK).exists()
    here = {"host": socket.gethostname(), "pid": os.getppid(), "started": _started(os.getppid()), "seen": time.time()}
    (tmp_path / LOCK).write_text(json.dumps(here))
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    with pytest.raises(UserError, match=rf"another run writes it \(process {os.getppid()} on ") as error:
        loop.train(run, tmp_path, max_steps=2)
    assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before
    (tmp_path / LOCK).write_text(json.dumps(here | {"started": "of another life"}))
    loop.train(run, tmp_path, max_steps=2)
    assert final_state(run, tmp_path)[0] == 2 and not (tmp_path / LOCK).exists()


def test_a_start_that_fails_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    run = config(data)
    missing = dataclasses.replace(run, data=dataclasses.replace(run.data, train=str(tmp_path / "absent.csv")))
    with pytest.raises(UserError, match="absent"):
        loop.train(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
