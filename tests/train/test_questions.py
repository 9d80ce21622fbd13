"""Whole runs that learn to answer questions: what they leave, how they go on, and what they refuse."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_questions import COLOURS, make_questions, question_config
from helpers.tiny_run import final_state

from biomedclip_jax.cli import main
from biomedclip_jax.config import (
    Adaptation,
    Answers,
    LoRAConfig,
    MeterConfig,
    PreprocessConfig,
    QCRConfig,
    RunConfig,
    Softmax,
    Stage,
    TrainConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import from_pretrained, load
from biomedclip_jax.train.export import read_config
from biomedclip_jax.train.main import _questions, train

ANSWERS = {"yes", "no", *COLOURS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_questions(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to look."""
    workdir = tmp_path_factory.mktemp("finished")
    assert train(question_config(data, run=RunConfig(log_every=20)), workdir) is not None
    return workdir


def test_a_run_learns_to_look(finished: Path) -> None:
    found = json.loads((finished / "results.json").read_text())
    assert found["held_out_pairs"] == 24
    assert found["accuracy_open"] == 1.0 and found["accuracy"] >= 0.7
    assert found["accuracy_other_image"] < found["accuracy"] - 0.2, "the answers come from the pictures"
    assert set(read_config(finished).model.answering.answers) == ANSWERS, "those of the training questions"  # type: ignore[union-attr]
    assert read_config(finished).model.answering.answers[0] in ("yes", "no"), "the most frequent first"  # type: ignore[union-attr]


def test_what_the_model_folder_answers(data: Path, finished: Path) -> None:
    clip = from_pretrained(finished)
    images = [data / f"held_out{i}.png" for i in range(3)]
    found = clip.answer(images, ["what colour is it?"] * 3, top=2)
    assert [own[0][0] for own in found] == list(COLOURS)
    assert all(len(own) == 2 and 1 >= own[0][1] >= own[1][1] >= 0 for own in found)
    every = clip.answer(images[:1], ["is it red?"], top=None, batch_size=1)
    assert {text for text, _ in every[0]} == ANSWERS


def test_a_broken_image_has_no_answers(data: Path, finished: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    clip = from_pretrained(finished)
    bad: dict[int, UserError] = {}
    found = clip.answer([broken, data / "held_out0.png"], ["is it red?"] * 2, 1, on_error=bad.__setitem__)
    assert found[0] == [] and len(found[1]) == 1 and list(bad) == [0]
    with pytest.raises(UserError, match=r"broken\.png"):
        clip.answer([broken], ["is it red?"])


@pytest.mark.parametrize("questions", [["is it red?"] * 2, [" "], [3]])
def test_questions_that_are_none(data: Path, finished: Path, questions: list[str]) -> None:
    with pytest.raises(UserError, match="questions: expected"):
        from_pretrained(finished).answer([data / "held_out0.png"], questions)


def test_the_command(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(data / "held_out1.png")
    assert main(["answer", str(finished), image, "what colour is it?", "is it red?", "--format", "json", "--top", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["question"] for each in found] == ["what colour is it?", "is it red?"]
    assert found[0]["answers"][0]["answer"] == "green"
    assert main(["answer", str(finished), image, "what colour is it?", "--format", "csv"]) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0] == ["image", "question", "answer", "probability"] and rows[1][2] == "green" and len(rows) == 6
    assert main(["answer", str(finished), image, "what colour is it?"]) == 0
    assert "green" in capsys.readouterr().out.splitlines()[1]
    assert main(["answer", str(finished), str(data / "absent.png"), "what?"]) == 2
    assert main(["answer", str(finished), image, "  "]) == 2


def test_classify_says_what_it_may_not_be_worth(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(finished), str(data / "held_out1.png"), "--labels", "red", "green"]) == 0
    assert "has learned to answer questions" in capsys.readouterr().err


def test_evaluate_measures_it_beside_the_blind(data: Path, finished: Path, tmp_path: Path) -> None:
    words = ["evaluate", "vqa", str(finished), "--data", str(data / "held_out.csv"), "--train", str(data / "train.csv")]
    assert main([*words, "--out", str(tmp_path), "--resamples", "50"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 5 and rows[0]["model"] == finished.name and all("blind" in row["model"] for row in rows[1:])
    mine = rows[0]
    assert mine["accuracy"] == json.loads((finished / "results.json").read_text())["accuracy"]
    assert mine["accuracy"] > max(row["accuracy"] for row in rows[1:])
    assert mine["accuracy_other_image"] < mine["accuracy"] and mine["vocabulary_reach"] == 1.0
    assert "Asked about another image" in (tmp_path / "results.md").read_text()


def test_evaluate_wants_a_model_that_answers(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "evaluate",
        "vqa",
        "--data",
        str(data / "held_out.csv"),
        "--train",
        str(data / "train.csv"),
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 2 and "--blind" in capsys.readouterr().err


def test_a_stopped_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    config = question_config(data)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(config, straight, max_steps=6) is None
    for last in (3, 6):
        assert train(config, stopped, max_steps=last) is None
    (step, one), (other_step, two) = final_state(read_config(straight), straight), final_state(read_config(stopped), stopped)
    assert step == other_step == 6
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_lora_on_the_towers_of_a_model_folder(data: Path, finished: Path, tmp_path: Path) -> None:
    """Fine-tunes a model that answers already; its adapters are merged into the model that is handed over."""
    config = question_config(
        data,
        model=read_config(finished).model,
        model_init=str(finished),
        export="last",
        adaptation=Adaptation(image=LoRAConfig(rank=2)),
        stages=(Stage(16, steps=2, loss=Answers(), trainable=("answering", "*lora_*")),),
    )
    assert train(config, tmp_path / "run") is not None
    before, after = load(finished), load(tmp_path / "run")
    assert after.config.answering == before.config.answering
    moved = np.abs(np.asarray(after.params["image"]["blocks"]["attention"]["qkv"]["kernel"]))
    assert (moved != np.abs(np.asarray(before.params["image"]["blocks"]["attention"]["qkv"]["kernel"]))).any()


def test_a_question_whose_answer_is_not_known_is_left_out(data: Path, tmp_path: Path) -> None:
    base = question_config(data)
    answering = dataclasses.replace(base.model.answering, answers=("yes", "no", "red"))  # type: ignore[type-var]
    config = dataclasses.replace(base, model=dataclasses.replace(base.model, answering=answering))
    pairs, answers = _questions(config, tmp_path)
    assert answers == ("yes", "no", "red") and len(pairs) == 32
    assert len(pairs.rejects) == 16 and {each.reason.split("'")[1] for each in pairs.rejects} == {"green", "blue"}


def changed(data: Path, **changes: object) -> TrainConfig:
    base = question_config(data)
    return dataclasses.replace(base, data=dataclasses.replace(base.data, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: question_config(d, stages=(Stage(16, steps=1, loss=Softmax()),)), "Answers()"),
        (lambda d: question_config(d, stages=(Stage(16, steps=1, loss=Answers(), patch_keep=0.5),)), "patch_keep"),
        (lambda d: changed(d, label_column=None), "label_column"),
        (lambda d: MeterConfig(width=30, heads=4), "a multiple of heads"),
    ],
)
def test_configs_that_cannot_be(data: Path, make: object, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")):
        make(data)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("train_source", "said"),
    [("absent.csv", "no such table"), ("slake={d}:train", "no SLAKE here"), ("vqa-rad={d}", "which part")],
)
def test_sources_that_are_none(data: Path, tmp_path: Path, train_source: str, said: str) -> None:
    config = changed(data, train=train_source.format(d=data))
    with pytest.raises(UserError, match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_folder_with_a_damaged_head(finished: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(finished / "model", folder)
    config = json.loads((folder / "answering/config.json").read_text())
    (folder / "answering/config.json").write_text(json.dumps(config | {"layers": 2}))
    with pytest.raises(UserError, match=r"model\.safetensors: tensor .* has shape"):
        load(folder)
    (folder / "answering/config.json").write_text("{")
    with pytest.raises(UserError, match=r"answering/config\.json: not readable"):
        load(folder)


def test_gray_images_are_made_with_the_numbers_of_the_preprocessing(data: Path) -> None:
    base = question_config(data)
    model = dataclasses.replace(base.model, answering=QCRConfig(vision=("clip", "autoencoder"), word_width=8, width=16))
    dataclasses.replace(base, model=model)
    with pytest.raises(UserError, match=r"QCRConfig\.mean .*expected with std the preprocessing's"):
        dataclasses.replace(base, model=model, preprocess=PreprocessConfig(image_size=16, mean=(0.5, 0.5, 0.5)))
