"""What is said of a benchmark of which a part is missing: in the row, on the terminal, in the report; counted, with reasons."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.reference import open_clip_model
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.data.benchmarks.chexpert import FIVE
from biomedclip_jax.data.labelled.types import Labelled, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.evaluation._completeness import completeness
from biomedclip_jax.evaluation.benchmarks import load_benchmark
from biomedclip_jax.evaluation.report.results import Result


def some(folder: Path, whole: int | None, rejects: int = 0, caveats: tuple[str, ...] = ()) -> Labelled:
    paths = [folder / f"{number}.png" for number in range(4)]
    for path in paths:
        Image.new("L", (4, 4)).save(path)
    gone = [Reject(str(number), f"{number}.png", "image file is not there") for number in range(4, 4 + rejects)]
    found = labelled_files("x", ("a", "b"), [(path, number % 2) for number, path in enumerate(paths)], gone, caveats)
    return replace(found, whole=whole)


def said(data: Labelled, measured: int, errors: dict[int, str] | None = None) -> str:
    return Result("m", "zero-shot", "x", measured, {}, details=completeness(data, measured, errors or {})).left_out


def test_what_a_line_says(tmp_path: Path) -> None:
    assert said(some(tmp_path, None), 4) == said(some(tmp_path, 4), 4) == ""
    assert said(some(tmp_path, 1_000), 4) == "4 of the benchmark's 1,000 images: not its number"
    assert said(some(tmp_path, 3), 4) == "4 images where the benchmark has 3: not its number"
    found = said(some(tmp_path, 1_000, rejects=995, caveats=("drawn by us",)), 3, {2: "broken"})
    assert found == (
        "left out: 996 (image file is not there 995, broken 1); 3 of the benchmark's 1,000 images: not its number; drawn by us"
    )


def test_very_many_are_counted_and_not_all_named(tmp_path: Path) -> None:
    data = some(tmp_path, None, rejects=5_000)
    details = completeness(data, 3, {1: "broken"})
    assert len(details["left_out"]) == 1_001 and details["left_out"][-1]["image"] == "and 4,001 more"
    assert said(data, 3, {1: "broken"}) == "left out: 5,001 (image file is not there 5,000, broken 1)"


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """A published list of 1,000 images, of which 20 are there."""
    folder = tmp_path / "chexpert"
    lines = [f"imgpath,{','.join(FIVE)}"]
    for number in range(1_000):
        path = f"train/patient{number:05d}/study1/view1_frontal.jpg"
        lines.append(f"CheXpert-v1.0/{path},{','.join(str(int(number % 5 == finding)) for finding in range(5))}")
        if number < 20:
            (folder / path).parent.mkdir(parents=True)
            Image.new("L", (16, 16), 10 * number).save(folder / path)
    (folder / "chexpert-5x200.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_benchmark_that_is_not_all_there(chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_benchmark("chexpert-5x200", chexpert)
    assert (len(data), len(data.rejects), data.whole, data.caveats) == (20, 980, 1_000, ())
    model, out = tmp_path / "small", tmp_path / "out"
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(model, vision, {"context_length": 32}, bert={"num_hidden_layers": 1})
    words = ["zero-shot", model, "--data", f"chexpert-5x200={chexpert}", "--out", out, "--resamples", "10"]
    assert main(["evaluate", *map(str, words)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    missing = "left out: 980 (image file is not there 980); 20 of the benchmark's 1,000 images: not its number"
    assert missing in line
    assert missing in (out / "results.md").read_text()
    report = (out / "report.html").read_text()
    assert "20 of the benchmark" in report and "not its number" in report
    (row,) = json.loads((out / "results.json").read_text())
    assert row["n"] == 20 and len(row["details"]["left_out"]) == 980
