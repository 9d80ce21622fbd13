"""`biomedclip evaluate` as its users meet it: files that it writes, what it says of data that do not fit, a second run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference import open_clip_model

from biomedclip_jax.cli import main
from biomedclip_jax.evaluation import candidates

Captured = pytest.CaptureFixture[str]

KINDS = {"chest ray": (200, 60, 60), "brain": (60, 200, 60), "lung": (60, 60, 200)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(folder, vision, {"context_length": 16}, bert={"num_hidden_layers": 1})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables train.csv and test.csv with captions and labels, and the same images in class folders."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 6)):
        rows = []
        for label, color in KINDS.items():
            (folder / "folders" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(color) + rng.normal(0, 30, (20, 20, 3)), 0, 255).astype(np.uint8)
                name = f"folders/{part}/{label}/{i}.png"
                Image.fromarray(pixels).save(folder / name)
                rows.append([name, f"image of the {label} {'abcdefgh'[i]}", label])
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "caption", "label"], *rows])
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def failure(capsys: Captured, *words: object) -> str:
    assert run(*words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("biomedclip evaluate: ") and "\n" not in said, said
    return said


def rows(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text())


def test_all_tasks(model: Path, data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["all", model, "--data", data / "test.csv", "--train", data / "train.csv", "--out", tmp_path]
    words += ["--labels", "2", "100%", "--seeds", "0", "1", "--search", "none", "--resamples", "50"]
    assert run(*words) == 0
    said = capsys.readouterr()
    assert "zero-shot test (18): small: accuracy 0." in said.out and said.err == ""
    found = rows(tmp_path)
    assert [(row["task"], row["settings"].get("budget")) for row in found] == [
        ("retrieval", None),
        ("zero-shot", None),
        ("probe", "2 per class"),
        ("probe", "100 %"),
        ("finetune", "2 per class"),
        ("finetune", "100 %"),
    ]
    assert {row["n"] for row in found} == {18} and {row["dataset"] for row in found} == {"test"}
    assert found[1]["majority_accuracy"] == pytest.approx(1 / 3)
    assert found[3]["accuracy"] == 1, "three colours are learned from eight images of each"
    for row in found:
        assert row["pictures"] and all((tmp_path / file).stat().st_size > 1_000 for file in row["pictures"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len({file for row in found for file in row["pictures"]})
    assert "## Few labels: test, 18 images" in (tmp_path / "results.md").read_text()
    assert len(list((tmp_path / "clip_benchmark").iterdir())) == 2

    # the second time costs nothing: the model is not even loaded, and the numbers are the same
    monkeypatch.setattr(candidates, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    before = (tmp_path / "results.json").read_bytes()
    for task in ("retrieval", "zero-shot"):
        assert run(task, *words[1:]) == 0
    assert sorted(map(str, rows(tmp_path))) == sorted(map(str, json.loads(before)))


def test_class_folders_have_labels_and_no_captions(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["--data", f"mine={data / 'folders'}", "--out", tmp_path, "--labels", "2", "--seeds", "0", "--search", "none"]
    assert run("all", f"first={model}", f"second={model}", *words) == 0
    assert "mine: no retrieval: " in capsys.readouterr().err
    found = rows(tmp_path)
    assert {(row["model"], row["dataset"]) for row in found} == {("first", "mine"), ("second", "mine")}
    zero_shot = [row for row in found if row["task"] == "zero-shot"]
    difference = zero_shot[0]["details"]["differences"]["second"]["accuracy"]
    assert difference[:3] == [0, 0, 0], "a model does not differ from itself"
    assert "a folder of images has no captions" in failure(capsys, "retrieval", model, *words)


def test_prompts_are_written_edited_and_used(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    prompts = tmp_path / "prompts.yaml"
    assert run("zero-shot", "--data", data / "folders", "--write-prompts", prompts) == 0
    prompts.write_text(prompts.read_text().replace("a photo of {}", "an image of the {}"))
    assert run("zero-shot", model, "--data", data / "folders", "--prompts", prompts, "--out", tmp_path / "out") == 0
    assert rows(tmp_path / "out")[0]["settings"]["prompts"][0][0] == "an image of the brain"
    prompts.write_text("classes: {brain: head}")
    assert "class 'chest ray': missing" in failure(
        capsys, "zero-shot", model, "--data", data / "folders", "--prompts", prompts, "--out", tmp_path / "b"
    )


def test_list(capsys: Captured) -> None:
    assert run("--list") == 0
    said = capsys.readouterr().out
    assert "pcam " in said and "73.41 accuracy, BiomedCLIP" in said and "rsna" in said


def test_what_is_missing_is_said(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    csv = data / "test.csv"
    out = ["--out", tmp_path / "out"]
    assert "TASK: expected one of" in failure(capsys)
    assert "--data: expected" in failure(capsys, "zero-shot", model, *out)
    assert "MODEL: expected" in failure(capsys, "zero-shot", "--data", csv, *out)
    assert "--out DIR: expected" in failure(capsys, "zero-shot", model, "--data", csv)
    assert "nothing to learn from (" in failure(capsys, "probe", model, "--data", csv, *out)
    assert "did you mean 'pcam'" in failure(capsys, "zero-shot", model, "--data", "pcan", *out)
    assert "where is it? Say --data pcam=FOLDER" in failure(capsys, "zero-shot", model, "--data", "pcam", *out)
    assert "to be fetched by hand" in failure(capsys, "zero-shot", model, "--data", f"pcam={tmp_path}", *out)
    assert "two sources are called 'test'" in failure(capsys, "zero-shot", model, "--data", csv, csv, *out)
    assert "two models are called 'small'" in failure(capsys, "zero-shot", model, model, "--data", csv, *out)
    assert "no column 'kind'" in failure(capsys, "zero-shot", model, "--data", csv, "--label-column", "kind", *out)
    assert "expected --sentences FILE" in failure(capsys, "probe", model, "--data", csv, "--methods", "biomedcoop", *out)
    assert "labels = 'x'" in failure(capsys, "probe", model, "--data", csv, "--labels", "x", *out)
    assert "no such model" in failure(capsys, "zero-shot", tmp_path / "nowhere", "--data", csv, *out)
    assert not (tmp_path / "out" / "results.json").exists()


def test_what_is_there_is_measured_where_something_is_missing(
    model: Path, data: Path, tmp_path: Path, capsys: Captured
) -> None:
    sources = [f"pcam={tmp_path}", data / "test.csv", f"gone={data / 'gone.csv'}"]
    assert run("zero-shot", model, "--data", *sources, "--out", tmp_path / "out", "--resamples", 10) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("pcam: no zero-shot: ") and said[1].startswith("gone: no zero-shot: ")
    assert said[2] == "biomedclip evaluate: 2 of 3 data sets could not be evaluated: pcam, gone; see above"
    assert [row["dataset"] for row in rows(tmp_path / "out")] == ["test"]
