"""`biomedclip evaluate` of images with several findings, as its users meet it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation.test_run import failure, model, rows, run
from PIL import Image

Captured = pytest.CaptureFixture[str]
__all__ = ["model"]

FINDINGS = ("brain", "chest ray", "lung")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """joined.csv, columns.csv and train.csv, of images in which each of three colours may be strong."""
    folder = tmp_path_factory.mktemp("findings")
    rng = np.random.default_rng(0)
    tables: dict[str, list[list[object]]] = {"joined": [], "columns": [], "train": []}
    for number in range(60):
        there = rng.uniform(size=3) < 0.4
        pixels = np.clip(80 + 120 * there + rng.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        names = [name for name, own in zip(FINDINGS, there, strict=True) if own]
        tables["train" if number < 30 else "joined"].append([f"{number}.png", "|".join(names) or "No Finding"])
        tables["columns"].append([f"{number}.png", *map(int, there), "test" if number < 30 else "train"])
    heads = {"joined": ["image", "Finding Labels"], "train": ["image", "Finding Labels"]}
    for name, lines in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([heads.get(name, ["image", *FINDINGS, "split"]), *lines])
    return folder


def test_names_joined_by_a_sign(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = [model, "--data", data / "joined.csv", "--label-column", "Finding Labels", "--out", tmp_path, "--resamples", "20"]
    several = "names several classes, and an image is expected to have one; if images have several, say --multi-label"
    assert several in failure(capsys, "zero-shot", *words)
    assert not (tmp_path / "results.json").exists(), "a combination of findings is no class that has an accuracy"
    words += ["--multi-label"]
    assert run("zero-shot", *words, "--thresholds", "0.2", "0.6") == 0
    said = capsys.readouterr().out
    assert "multi-label joined (30): small: mean_auroc 0." in said and '"brain" against "no brain"' in said
    found = rows(tmp_path)
    assert [row["settings"]["score"] for row in found] == ["positive against negative", "cosine"]
    assert found[0]["settings"]["classes"] == list(FINDINGS) and found[0]["details"]["per_finding"]["lung"]["at"].keys() == {
        "0.2",
        "0.6",
    }
    assert run("probe", *words, "--train", data / "train.csv") == 0
    assert rows(tmp_path)[-1]["task"] == "multi-label-probe" and rows(tmp_path)[-1]["mean_auroc"] > 0.7
    page = (tmp_path / "report.html").read_text()
    assert "Several findings: joined, 30 images" in page and "sensitivity at 0.2" in page
    assert "## Findings: joined, 30 images: small, logistic-regression, 100 %" in (tmp_path / "results.md").read_text()
    assert json.loads((tmp_path / "differences.json").read_text())
    assert "needs one class each" in failure(capsys, "base-to-novel", *words)
    of_test = failure(capsys, "finetune", *words, "--train", data / "train.csv", "--selection", "best_test_epoch")
    assert "the epoch is chosen on training images that are not trained on" in of_test
    assert run("finetune", *words, "--train", data / "train.csv", "--search", "none") == 0
    last = rows(tmp_path)[-1]
    assert last["task"] == "multi-label-finetune" and last["settings"]["validation"] == 6
    assert "## Findings: joined, 30 images: small, finetune, 100 %" in (tmp_path / "results.md").read_text()


def test_a_column_for_each(model: Path, data: Path, tmp_path: Path, capsys: Captured) -> None:
    words = [
        "--data",
        data / "columns.csv",
        "--label-columns",
        "brain,chest ray",
        "lung",
        "--out",
        tmp_path,
        "--resamples",
        "20",
    ]
    assert run("zero-shot", model, *words) == 0
    assert run("probe", model, *words, "--labels", "50%", "--seeds", "0", "1", "--methods", "logistic-regression") == 0
    assert [row["n"] for row in rows(tmp_path)] == [30] * 4 and rows(tmp_path)[3]["settings"]["seeds"] == [1]
    prompts = tmp_path / "p.yaml"
    assert run("zero-shot", *words[:5], "--write-prompts", prompts) == 0
    prompts.write_text(prompts.read_text().replace("lung: lung", "lung: {positive: [a lung], negative: [a brain]}"))
    assert run("zero-shot", model, *words, "--prompts", prompts) == 0
    assert rows(tmp_path)[-2]["settings"]["negative_prompts"][2] == ["a brain"]
    plain = [model, "--data", data / "columns.csv", "--out", tmp_path]
    assert "or columns of 0 and 1 with --label-columns" in failure(capsys, "zero-shot", *plain)
    assert "say --label-columns with its name" in failure(capsys, "zero-shot", *plain, "--label-column", "lung")
    assert "column 'kidney'" in failure(capsys, "zero-shot", model, *words[:2], "--label-columns", "kidney", "--out", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--uncertain", "positive"], "--uncertain: is of images with several findings; say --multi-label"),
        (["--thresholds", "0.4"], "--thresholds: is of images with several findings"),
        (["--separator", ";", "--label-columns", "a,b"], "give one of the two"),
        (["--label-columns", "a,,b"], "expected different names"),
        (["--separator", ""], "expected a sign"),
        (["--multi-label", "--methods", "coop"], "are learned by logistic-regression"),
        (["--multi-label", "--aggregate", "gloria", "--label-column", "Finding Labels"], "chooses among classes"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path, data: Path, tmp_path: Path, capsys: Captured, words: list[str], message: str
) -> None:
    assert run("zero-shot", model, "--data", data / "joined.csv", "--out", tmp_path, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("threshold", ["0", "1", "half"])
def test_thresholds_are_probabilities(data: Path, capsys: Captured, threshold: str) -> None:
    with pytest.raises(SystemExit):
        run("zero-shot", "x", "--data", data / "joined.csv", "--thresholds", threshold)
    assert "expected a number above 0 and below 1" in capsys.readouterr().err


def test_a_benchmark_of_classes_has_no_findings(model: Path, tmp_path: Path, capsys: Captured) -> None:
    words = [model, "--data", f"rsna={tmp_path}", "--multi-label", "--out", tmp_path]
    assert "--multi-label: rsna has one class an image" in failure(capsys, "zero-shot", *words)


def test_numbers_are_no_words(model: Path, tmp_path: Path, capsys: Captured) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "t.csv").write_text("image,label\n0.png,1|2\n1.png,2\n2.png,1\n3.png,3\n")
    said = failure(capsys, "zero-shot", model, "--data", tmp_path / "t.csv", "--multi-label", "--out", tmp_path / "out")
    assert "'1' is a number" in said and "--write-prompts" in said
