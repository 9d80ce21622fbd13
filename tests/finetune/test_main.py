"""Fine-tuning end to end on a tiny model: better and handed over, or not better and the start; gone on with, and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny_run
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.config.files import load_config
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.zero_shot.task import default_embeddings
from biomedclip_jax.finetune._besides import replay
from biomedclip_jax.finetune._model_card import _base_licence, _licences
from biomedclip_jax.finetune._parts import divided
from biomedclip_jax.finetune.main import finetune
from biomedclip_jax.finetune.request import Request
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import init_params
from biomedclip_jax.pretrained import from_pretrained

COLOURS = {"chest": (200, 40, 40), "brain": (40, 200, 40), "tumor": (40, 40, 200)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_run.config(tiny_run.make_data(folder)).model
    params = jax.tree.map(np.asarray, init_params(config, 0))
    write_model(Model(config, PreprocessConfig(image_size=16), params, folder), folder / "model")
    return folder / "model"


def make_table(folder: Path, rows: int, seed: int, wrong: bool = False) -> str:
    """Pictures of three colours with patterns of their own; `wrong`: with labels that say nothing."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(rows):
        label = list(COLOURS)[i % 3]
        coarse = np.array(COLOURS[label]) + rng.integers(-40, 40, (6, 6, 3))
        Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((24, 24)).save(folder / f"{seed}_{i}.png")
        told = list(COLOURS)[rng.integers(3)] if wrong else label
        lines.append({"image": f"{seed}_{i}.png", "label": told, "patient": f"{seed}_{i // 2}"})
    path = folder / f"{seed}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def ask(model: Path, data: str, **more: Any) -> Request:
    given: dict[str, Any] = {"keep": None, "replay": None, "method": "full", "rate": 3e-3}
    given |= {"batch_size": 16, "microbatch": 16, "epochs": 10.0}
    return Request(model=str(model), data=data, **(given | more))


@pytest.fixture(scope="module")
def learned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("learned")
    data, held_out = make_table(folder, 60, 1), make_table(folder, 60, 2)
    keep = make_table(folder, 24, 3)
    return folder / "out", finetune(ask(model, data, held_out=held_out, keep=keep), folder / "out")


def test_what_can_be_learned_is_learned_and_handed_over(learned: tuple[Path, dict[str, Any]]) -> None:
    out, results = learned
    assert results["exported"]["weights"] == "best" and results["exported"]["step"] > 0
    assert results["after"]["balanced_accuracy"] > results["before"]["balanced_accuracy"] + 0.2
    difference = results["difference"]["balanced_accuracy"]
    assert difference[0] == pytest.approx(results["after"]["balanced_accuracy"] - results["before"]["balanced_accuracy"])
    assert difference[1] < difference[0] < difference[2]
    assert {"before", "after", "data"} <= results["forgetting_check"].keys()
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "report" / "report.html").is_file()
    assert any("It got better" in line for line in results["lines"])


def test_the_model_folder_reaches_the_number_in_the_table(learned: tuple[Path, dict[str, Any]]) -> None:
    out, results = learned
    rows = [json.loads(line) for line in (out / "data" / "held_out.jsonl").read_text().splitlines()]
    assert len(rows) == results["before"]["n"] == results["after"]["n"]
    clip = from_pretrained(out)
    classes = sorted({row["label"] for row in rows})
    guess = (clip.encode_images([row["image"] for row in rows]) @ default_embeddings(clip, classes).T).argmax(axis=1)
    right = np.array([classes[i] == row["label"] for i, row in zip(guess, rows, strict=True)])
    assert right.mean() == pytest.approx(results["after"]["accuracy"])


def test_the_card_says_what_went_in_what_was_chosen_and_what_came_out(learned: tuple[Path, dict[str, Any]]) -> None:
    out, results = learned
    card, mark, below = (out / "model" / "README.md").read_text(encoding="utf-8").partition("<!-- end of the model card -->")
    assert mark and "open_clip" in below
    rows = {part: len((out / "data" / f"{part}.jsonl").read_text().splitlines()) for part in ("train", "held_out")}
    assert f"trained on {rows['train']} pairs of `1.jsonl`" in card and "brain, chest, tumor" in card
    assert f"held out, of `2.jsonl`: {rows['held_out']} pairs, for choices and for the result" in card
    assert f"forgetting check: {results['forgetting_check']['before']['n']} images of `3.jsonl`" in card
    before, after = (100 * results[side]["balanced_accuracy"] for side in ("before", "after"))
    shown = next(line for line in card.splitlines() if line.startswith("| balanced accuracy"))
    assert f"| {before:.1f} [" in shown and f"| {after:.1f} [" in shown
    about = results["exported"]
    assert f"weights after update {about['step']} (best)" in card and "rate 0.003, as it was asked for" in card
    assert card.count(" | ") > 30 and f"| {about['share_of_trained_weights']:.0%} |" in card
    assert "licences of `1.jsonl`: unknown" in card and "began with the whole model from `model`" in card
    assert "## Limits" in card and str(out.parent) not in card


def test_the_card_names_licences_that_the_data_and_the_start_name(tmp_path: Path, model: Path) -> None:
    table = tmp_path / "1.csv"
    table.write_text("image,caption,licence\na.png,x,CC BY\nb.png,y,CC BY\nc.png,z,\n")
    for name in "abc":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    assert _licences(str(table)) == "CC BY (2), unknown (1)"
    assert _licences(str(tmp_path)) == "unknown" == _licences(str(tmp_path / "absent"))
    start = tmp_path / "start"
    shutil.copytree(model, start)
    request = ask(start, str(table))
    assert _base_licence(request) == "unknown"
    (start / "README.md").write_text("---\nlanguage: en\nlicense: mit\ntags:\n- clip\n---\n# A model\n")
    assert _base_licence(request) == "mit, says its model card"


def same_request(out: Path, model: Path, **more: Any) -> Request:
    data, held_out, keep = (str(out.parent / f"{seed}.jsonl") for seed in (1, 2, 3))
    return ask(model, data, held_out=held_out, keep=keep, **more)


def test_its_config_is_the_run_and_the_same_call_says_that_it_is_done(
    learned: tuple[Path, dict[str, Any]], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = learned
    assert load_config(out / "config.py").optimizer.learning_rate == 3e-3
    assert finetune(same_request(out, model), out) == results
    assert "is done already" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"holds another fine-tuning \(rate = 0.003 there, 0.01 here\); choose another --out"):
        finetune(same_request(out, model, rate=0.01), out)
    table = out.parent / "1.jsonl"
    content = table.read_text()
    table.write_text(content.replace("chest", "brain", 1))
    with pytest.raises(UserError, match=r"1.jsonl: has changed since .*out began with it"):
        finetune(same_request(out, model), out)
    table.write_text(content)


def test_an_interrupted_fine_tuning_is_no_model_and_goes_on(model: Path, learned: tuple[Path, dict[str, Any]]) -> None:
    out, results = learned
    (out / "results.json").unlink()
    shutil.rmtree(out / "model")
    with pytest.raises(UserError, match="this fine-tuning is not finished"):
        from_pretrained(out)
    again = finetune(same_request(out, model), out)
    changing = ("seconds", "lines")
    assert {name: again[name] for name in again if name not in changing} == {
        name: results[name] for name in results if name not in changing
    }


def test_what_gets_worse_is_not_handed_over(model: Path, learned: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Starting from the model that can tell the colours, trained on labels that say nothing."""
    data, held_out = make_table(tmp_path, 48, 4, wrong=True), make_table(tmp_path, 60, 5)
    results = finetune(ask(learned[0], data, held_out=held_out, rate=1e-2, epochs=20.0), tmp_path / "out")
    assert results["exported"] == {"weights": "start", "step": 0, "share_of_trained_weights": 0.0}
    assert results["after"] == results["before"]
    assert any("did not get better" in line and "START" in line for line in results["lines"])
    assert "weights of the START" in (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    start, handed_over = from_pretrained(learned[0]).params, from_pretrained(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, start, handed_over)
    last = finetune(ask(learned[0], data, held_out=held_out, rate=1e-2, epochs=20.0, export="last"), tmp_path / "last")
    assert last["exported"]["weights"] == "last" and last["after"]["accuracy"] < last["before"]["accuracy"]
    assert any("NOT better" in line for line in last["lines"])


def test_what_something_is_judged_by_is_not_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other = make_table(tmp_path / "a", 60, 7), make_table(tmp_path / "b", 12, 8)
    request = ask(tmp_path, data, replay=other)
    parts = divided(request, tmp_path / "out")
    for i, row in enumerate(parts.held_out[:5]):
        shutil.copy(row.image, tmp_path / "b" / f"8_{i}.png")  # the same pictures under other names
    assert replay(request, parts, None, tmp_path / "out") == 7
    assert "replayed: 7 pairs" in (said := capsys.readouterr().out) and "5 of its 12 pictures are in the held-out data" in said
    rows = (tmp_path / "out" / "data" / "replay.jsonl").read_text().splitlines()
    assert [Path(json.loads(row)["image"]).name for row in rows] == [f"8_{i}.png" for i in range(5, 12)]


def test_folders_and_data_that_cannot_be_used_are_refused_and_nothing_is_left(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    data = make_table(tmp_path / "data", 24, 6)
    with pytest.raises(UserError, match="is there already and holds no fine-tuning"):
        finetune(ask(model, data), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    lines = [json.loads(line) | {"label": str(i % 2)} for i, line in enumerate(Path(data).read_text().splitlines())]
    numbers = tmp_path / "data" / "numbers.jsonl"
    numbers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="'0' is a number, and no name of a class in words"):
        finetune(ask(model, str(numbers)), tmp_path / "out")
    with pytest.raises(UserError, match=r"absent.csv: no such file"):
        finetune(ask(model, str(tmp_path / "absent.csv")), tmp_path / "out")
    assert not (tmp_path / "out" / "finetune.json").exists(), "nothing stands in the way of the corrected command"
