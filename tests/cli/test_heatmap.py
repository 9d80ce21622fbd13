"""`biomedclip heatmap`: files written, words printed, and what is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import dicom_files
from helpers.reference import open_clip_model
from PIL import Image

from biomedclip_jax.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
    text = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
    open_clip_model(folder, vision, text, bert={})
    return folder


@pytest.fixture(scope="module")
def scan(model: Path) -> Path:
    return dicom_files.write(model / "scan.dcm", np.arange(70 * 90, dtype=np.uint16).reshape(70, 90))


def run(*words: object) -> int:
    return main(["heatmap", *map(str, words)])


def test_a_dicom_file_gives_picture_and_numbers(model: Path, scan: Path, tmp_path: Path, capsys: Captured) -> None:
    out = [tmp_path / f"map.{ending}" for ending in ("png", "npz", "json")]
    assert run(model, scan, "chest", "brain", "--against", "lung", "--out", *out, "--side", 100, "--format", "json") == 0
    said = capsys.readouterr()
    numbers = json.loads(said.out)
    assert numbers == json.loads(out[2].read_text())
    assert numbers["phrases"] == ["chest", "brain"] and numbers["findings"] == ["lung"] and len(numbers["nonsense"]) == 2
    assert numbers["image_size"] == [90, 70] and numbers["box"] == pytest.approx([10, 0, 80, 70], abs=0.5)
    with np.load(out[1]) as arrays:
        assert arrays["attention"].shape == (5, 4, 4) and arrays["similarity_over_image"].shape == (2, 70, 90)
        assert np.allclose(arrays["attention"][1], numbers["methods"]["attention"]["maps"]["brain"])
        assert list(arrays["texts"][:3]) == ["chest", "brain", "lung"]
    with Image.open(out[0]) as picture:
        assert picture.format == "PNG" and picture.width > 600
    assert [line.removeprefix("warning: ") for line in said.err.splitlines()] == numbers["warnings"]


def test_the_table_says_how_much_depends_on_the_words(model: Path, scan: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run(model, scan, "chest", "--method", "similarity", "--out", tmp_path / "map.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "word dependence, similarity" in lines[0] and "attention" not in lines[0]
    assert lines[1].startswith("chest") and "in other words" in lines[1]
    assert "another finding" in lines[2] and "nonsense" in lines[3] and "nonsense" in lines[4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no.png", "chest", "--out", "map.png"), "no such file"),
        (("scan.dcm", "chest", "--out", "map.jpg"), "expected a name that ends in .png, .json, .npz"),
        (("scan.dcm", "chest", "chest", "--out", "map.png"), "given twice"),
        (("scan.dcm", "chest", "--against", "chest", "--out", "map.png"), "is a phrase itself"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: tuple, message: str, model: Path, scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(scan.parent)
    before = sorted(scan.parent.iterdir())
    assert run(model, *words) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert sorted(scan.parent.iterdir()) == before
