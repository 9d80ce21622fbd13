"""A run of two stages as CLEFT's: pairs, then a context before labels. What it learns, leaves, and how it goes on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.tiny_run import config, final_state, make_data, read_lines

from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    Classification,
    MultiLabel,
    OptimizerConfig,
    Softmax,
    Stage,
    TrainConfig,
)
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.pretrained import from_pretrained
from biomedclip_jax.prompts.layout import prompt_embeddings
from biomedclip_jax.prompts.learned import load_prompts
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._prompt_stage import class_prompts

SGD = OptimizerConfig(rule="sgd", learning_rate=0.5, weight_decay=1e-3, warmup_steps=0)
CLASSES = ("brain", "chest")
FIRST, TOTAL = 2, 5


def two_stages(data: Path, **second: Any) -> TrainConfig:
    settings = {"loss": Classification(), "trainable": ("context",), "optimizer": SGD} | second
    given = config(data, evaluate_every=2)
    return dataclasses.replace(
        given,
        adaptation=Adaptation(context=3),
        stages=(Stage(16, steps=FIRST, patch_keep=0.5), Stage(16, steps=TOTAL - FIRST, **settings)),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A run that was stopped twice, once within its second stage; parameters after the first stage, and at the end."""
    workdir = tmp_path_factory.mktemp("run") / "stopped"
    given = two_stages(data)
    states = []
    for steps in (FIRST, FIRST + 1, None):
        loop.train(given, workdir, max_steps=steps)
        states.append({path: np.asarray(x) for path, x in flatten_dict(final_state(given, workdir)[1].params, sep="/").items()})
    return workdir, states[0], states[-1]


def test_the_context_alone_moves_in_the_second_stage_and_starts_at_the_words(stopped: Any, data: Path) -> None:
    _, before, after = stopped
    assert [path for path in before if not np.array_equal(before[path], after[path])] == ["context"]
    tokens = Tokenizer(data, 8, 0, 120)(["this is a photo of"])[0]
    word = flatten_dict(final_word_table(data), sep="/")["text/word"]
    # made inside and outside of jit, whose last digits differ
    assert np.allclose(before["context"], word[tokens[1:4]], rtol=1e-6, atol=0), "the words as they were at the start"


def final_word_table(data: Path) -> dict[str, Any]:
    from biomedclip_jax.models import init_params

    given = two_stages(data)
    return init_params(given.model, given.seed, given.adaptation)


def test_going_on_is_not_having_stopped(stopped: Any, data: Path, tmp_path: Path) -> None:
    loop.train(two_stages(data), tmp_path / "whole")
    whole = flatten_dict(final_state(two_stages(data), tmp_path / "whole")[1].params, sep="/")
    assert all(np.array_equal(np.asarray(x), stopped[2][path]) for path, x in whole.items())


def test_what_it_leaves(stopped: Any, data: Path) -> None:
    workdir, _, after = stopped
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["learned_prompt_accuracy"] <= 1 and "zero_shot_accuracy" in results
    assert 0 <= results["template_accuracy"] <= 1, "of the sentence that the prompts started from"
    assert read_model(workdir / "model").adaptation == UNADAPTED and not (workdir / "adapter").exists()
    clip = from_pretrained(workdir / "model")
    learned = load_prompts(workdir / "prompts.safetensors", clip)
    assert (workdir / "prompts.safetensors").stat().st_mode == (workdir / "results.json").stat().st_mode
    assert learned.classes == CLASSES and np.array_equal(learned.arrays["context"], after["context"])
    lines = [line for line in read_lines(workdir / "metrics.jsonl") if "held_out_loss" in line]
    assert ["held_out_accuracy" in line for line in lines] == [line["stage"] == 1 for line in lines]
    assert lines[-1]["held_out_accuracy"] == results["learned_prompt_accuracy"]


def test_the_file_gives_what_the_run_computed(stopped: Any, data: Path) -> None:
    from flax import nnx

    from biomedclip_jax.models import abstract_model

    workdir, _, after = stopped
    given = two_stages(data)
    clip = from_pretrained(workdir / "model")
    layout = class_prompts(given, CLASSES, clip.processor.tokenizer)
    graph, _ = abstract_model(given.model, adaptation=given.adaptation)
    ours = prompt_embeddings(nnx.merge(graph, unflatten_dict(after, sep="/")), *layout)
    theirs = load_prompts(workdir / "prompts.safetensors", clip).text_embeddings(clip)
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-6


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"trainable": ("image",)}, None),
        ({"loss": Softmax(negatives=2, text="label")}, None),
    ],
)
def test_other_second_stages_run(second: dict[str, Any], message: None, data: Path, tmp_path: Path) -> None:
    """The image tower by labels; and CLEFT's released second stage, which matches images and labels."""
    results = loop.train(two_stages(data, **second), tmp_path / "run")
    assert results is not None and results.learned_prompt_accuracy is not None


def test_several_labels(data: Path, tmp_path: Path) -> None:
    given = two_stages(data, loss=MultiLabel())
    for name in ("train", "held_out"):
        text = (data / f"{name}.csv").read_text().replace(",chest", ",chest|brain")
        (tmp_path / f"{name}.csv").write_text(
            "\n".join(f"{data}/{row}" if row[:1].isdigit() else row for row in text.splitlines()) + "\n"
        )
    paths = {name: str(tmp_path / f"{name}.csv") for name in ("train", "held_out")}
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, label_separator="|", **paths))
    results = loop.train(given, tmp_path / "run")
    assert results is not None and results.zero_shot_accuracy is None
    assert load_prompts(tmp_path / "run" / "prompts.safetensors", from_pretrained(tmp_path / "run")).classes == CLASSES


def test_a_held_out_label_that_training_does_not_have_is_named(data: Path, tmp_path: Path) -> None:
    text = (data / "held_out.csv").read_text().replace(",chest", ",foot")
    (data / "other.csv").write_text(text)
    given = two_stages(data)
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, held_out=str(data / "other.csv")))
    with pytest.raises(UserError, match="label 'foot': not among the training data's: brain, chest"):
        loop.train(given, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints*"))
