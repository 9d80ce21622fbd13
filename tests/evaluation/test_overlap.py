"""Test pictures that are training pictures: found as files and when stored anew, no others, and the evaluation without them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.reference import open_clip_model
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation import overlap
from biomedclip_jax.evaluation.overlap import Pictures, find_overlap, read_overlap

Captured = pytest.CaptureFixture[str]


def picture(seed: int, size: int = 64) -> Image.Image:
    """Coarse patterns, as different from each other as pictures of different patients."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 test pictures of two classes; 40 training pairs, among them the same file, a small JPEG and a brighter copy."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(12):
        picture(i).save(folder / f"test_{i}.png")
        rows.append([f"test_{i}.png", ("chest ray", "brain")[i % 2]])
    (folder / "broken.png").write_bytes(b"no picture")
    rows.append(["broken.png", "brain"])
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label"], *rows])
    pairs = []
    for i in range(37):
        picture(100 + i).save(folder / f"train_{i}.png")
        pairs.append([f"train_{i}.png", f"picture {i}"])
    (folder / "copy.png").write_bytes((folder / "test_3.png").read_bytes())
    picture(5).resize((40, 40)).save(folder / "small.jpg", quality=80)
    Image.fromarray((np.asarray(picture(8)) * 0.7 + 60).astype(np.uint8)).save(folder / "bright.png")
    pairs += [["copy.png", "a copy"], ["small.jpg", "smaller"], ["bright.png", "brighter"]]
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *pairs])
    return folder


def test_copies_are_found_and_nothing_else(
    data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_AT_ONCE", 7)  # several blocks
    assert main(["data", "overlap", str(data / "test.csv"), str(data / "train.csv"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "test: 3 of 13 test pictures are also among the 40" in said and "(1 as the same file, 2 stored anew)" in said
    assert "1 test pictures cannot be read, and were not compared" in said
    with (tmp_path / "overlap.csv").open(newline="") as file:
        found = [(Path(row["test"]).name, Path(row["training"]).name, row["same_file"]) for row in csv.DictReader(file)]
    assert found == [("test_3.png", "copy.png", "yes"), ("test_5.png", "small.jpg", "no"), ("test_8.png", "bright.png", "no")]
    with Image.open(tmp_path / "overlap.png") as sheet:
        assert sheet.height > 200


def test_no_overlap_leaves_no_sheet_of_before(data: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "overlap.png").write_text("of before")
    (data / "few.csv").write_text("image,caption\ntrain_1.png,one\n")
    assert main(["data", "overlap", str(data / "test.csv"), str(data / "few.csv"), "--out", str(tmp_path)]) == 0
    assert "0 of 13 test pictures" in capsys.readouterr().out and not (tmp_path / "overlap.png").exists()
    assert read_overlap(tmp_path / "overlap.csv") == set()


def test_the_nearest_is_named_and_a_file_before_all() -> None:
    near = np.asarray(picture(1)).astype(int)
    noisy = np.clip(near + np.random.default_rng(0).integers(-25, 25, near.shape), 0, 255).astype(np.uint8)
    training = Pictures([picture(2), noisy, picture(1)], ["other", "noisy", "same"])
    (match,) = find_overlap(Pictures([np.asarray(picture(1))], ["test"]), training).matches
    assert (match.training, match.same_file) == (2, False) and match.correlation == pytest.approx(1, abs=1e-5)


def test_class_folders_and_what_is_neither(data: Path, tmp_path: Path, capsys: Captured) -> None:
    for label, seed in (("a", 3), ("b", 50)):
        (tmp_path / "folders" / label).mkdir(parents=True)
        picture(seed).save(tmp_path / "folders" / label / "x.png")
    words = ["data", "overlap", str(data / "test.csv"), str(tmp_path / "folders"), "--out", str(tmp_path)]
    assert main(words) == 0
    assert "1 of 13 test pictures are also among the 2" in capsys.readouterr().out
    assert main([*words[:3], str(tmp_path / "none.csv"), *words[4:]]) == 2
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "test,training\na,b\n", "test,training,same_file,correlation\na\n"])
def test_another_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "overlap.csv").write_text(content)
    with pytest.raises(UserError, match="expected the columns test, training, same_file, correlation"):
        read_overlap(tmp_path / "overlap.csv")


def test_the_evaluation_without_them_stands_beside_the_one_with_them(data: Path, tmp_path: Path, capsys: Captured) -> None:
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(tmp_path / "model", vision, {"context_length": 32}, bert={"num_hidden_layers": 1})
    assert main(["data", "overlap", str(data / "test.csv"), str(data / "train.csv"), "--out", str(tmp_path / "o")]) == 0
    words = ["evaluate", "zero-shot", str(tmp_path / "model"), "--data", str(data / "test.csv"), "--resamples", "20"]
    seen = ["--without", str(tmp_path / "o" / "overlap.csv")]
    assert main([*words, *seen, "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["dataset"], row["n"]) for row in rows] == [("test", 12), ("test unseen", 9)]
    assert "without 3 images that are in training data" in rows[1]["details"]["caveats"][0]
    assert "without 3 images" in (tmp_path / "out" / "results.md").read_text()

    kept = [
        row for row in (data / "test.csv").read_text().splitlines() if not row.startswith(("test_3.", "test_5.", "test_8."))
    ]
    (data / "kept.csv").write_text("\n".join(kept) + "\n")
    words[4] = str(data / "kept.csv")
    assert main([*words, "--out", str(tmp_path / "kept")]) == 0
    (alone,) = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert {name: rows[1][name] for name in ("accuracy", "auroc", "n")} == {
        name: alone[name] for name in ("accuracy", "auroc", "n")
    }
    capsys.readouterr()
    assert main([*words, *seen, "--out", str(tmp_path / "kept")]) == 2
    assert "3 of its 3 test pictures are not in kept, such as " in capsys.readouterr().err


def test_a_list_that_fits_in_part_is_refused_and_one_of_nothing_is_no_error(
    data: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is not known would be measured as one that no model has seen."""
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    open_clip_model(tmp_path / "model", vision, {"context_length": 32}, bert={"num_hidden_layers": 1})
    head = "test,training,same_file,correlation\n"
    rows = (data / "test.csv").read_text().splitlines()
    patients = [f"{row},{number // 2}" for number, row in enumerate(rows[1:])]
    (data / "patients.csv").write_text("\n".join([f"{rows[0]},patient", *patients]) + "\n")
    monkeypatch.chdir(data)
    words = ["evaluate", "zero-shot", str(tmp_path / "model"), "--data", str(data / "patients.csv"), "--resamples", "20"]
    words += ["--group", "patient", "--without", str(tmp_path / "seen.csv"), "--out"]

    (tmp_path / "seen.csv").write_text(f"{head}test_3.png,a.png,yes,1.0\ntest_99.png,a.png,yes,1.0\n")
    assert main([*words, str(tmp_path / "part")]) == 2 and not (tmp_path / "part" / "results.json").exists()
    assert "1 of its 2 test pictures are not in patients, such as test_99.png" in capsys.readouterr().err

    (tmp_path / "seen.csv").write_text(f"{head}test_3.png,a.png,yes,1.0\n")
    assert main([*words, str(tmp_path / "relative")]) == 0
    found = json.loads((tmp_path / "relative" / "results.json").read_text())
    assert [row["details"]["caveats"] for row in found] == [
        ["intervals over 6 groups (patient) of 12 images"],
        ["without 1 images that are in training data", "intervals over 6 groups (patient) of 11 images"],
    ], "of those that can be read, and are measured"

    (tmp_path / "seen.csv").write_text(head)
    capsys.readouterr()
    assert main([*words, str(tmp_path / "none")]) == 0
    assert len(json.loads((tmp_path / "none" / "results.json").read_text())) == 1
    assert "no test picture is in the training data" in capsys.readouterr().err
