"""What a model does not see of long images stands in the results, with a cache and without."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.evaluation.embeddings import cut_off_in_words

Captured = pytest.CaptureFixture[str]


def test_in_words() -> None:
    assert cut_off_in_words([0.0, 0.4, 0.1, 0.3], "shortest") == (
        "resize_mode shortest cuts off 20% of the average image, more than a fifth of 2 of 4"
    )
    assert cut_off_in_words([0.01], "shortest") == "resize_mode shortest cuts off 1% of the average image"
    assert cut_off_in_words([0.0, 0.001], "shortest") == cut_off_in_words([], "shortest") == ""


def test_it_stands_in_the_report(tmp_path: Path, capsys: Captured) -> None:
    make_candidate(tmp_path / "crops")
    make_candidate(tmp_path / "squashes")
    file = tmp_path / "squashes" / "open_clip_config.json"
    settings = json.loads(file.read_text())
    settings["preprocess_cfg"]["resize_mode"] = "squash"
    file.write_text(json.dumps(settings))
    rows = []
    for number in range(12):
        shape = (40, 20, 3) if number % 2 else (20, 20, 3)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 6 else "test"
        rows.append([f"{number}.png", f"the chest {number}", ("chest", "brain")[number % 3 == 0], split])
    with (tmp_path / "t.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["image", "caption", "label", "split"], *rows])
    words = ["evaluate", "all", tmp_path / "crops", tmp_path / "squashes", "--data", tmp_path / "t.csv", "--resamples", "20"]
    words += ["--methods", "linear-probe"]
    for _ in range(2):  # the second time the embeddings are read from the folder
        assert main([*map(str, words), "--out", str(tmp_path / "out")]) == 0
        capsys.readouterr()
        found = json.loads((tmp_path / "out" / "results.json").read_text())
        rows_of = {(row["model"], row["task"]): row.get("details", {}).get("cut_off") for row in found}
        said = {task: cut for (model, task), cut in rows_of.items() if model == "crops"}
        assert said["zero-shot"] == "resize_mode shortest cuts off 25% of the average image, more than a fifth of 3 of 6"
        assert all(cut and "25%" in cut for cut in said.values()), said
        assert not any(cut for (model, _), cut in rows_of.items() if model == "squashes")
        assert "resize_mode shortest cuts off 25%" in (tmp_path / "out" / "results.md").read_text()
