"""`--every`: files with many images in `classify` and `embed`, one by one and as one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.cli import main

nibabel = pytest.importorskip("nibabel")

LABELS = ["chest X-ray", "brain MRI", "pie chart"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of four slices and a photo."""
    folder = tmp_path_factory.mktemp("scans")
    values = np.random.default_rng(0).normal(size=(20, 24, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "scan.nii.gz")
    Image.linear_gradient("L").save(folder / "photo.png")
    return folder


def classify(capsys: pytest.CaptureFixture[str], model: Path, *words: object) -> dict[str, dict[str, float]]:
    assert main(["classify", str(model), *map(str, words), "--labels", *LABELS, "--format", "json"]) == 0
    return {Path(row["image"]).name: row["probabilities"] for row in json.loads(capsys.readouterr().out)}


def test_each_slice_and_all_as_one(model, scans, capsys):
    each = classify(capsys, model, scans, "--every", 1)
    assert [*each] == ["photo.png", *(f"scan.nii.gz#axial={number}" for number in (1, 2, 3, 4))]
    slices = [own for name, own in each.items() if "#" in name]
    highest = classify(capsys, model, scans, "--every", 1, "--aggregate", "max")
    assert highest["photo.png"] == pytest.approx(each["photo.png"])
    assert highest["scan.nii.gz"] == pytest.approx({label: max(own[label] for own in slices) for label in LABELS}, rel=1e-5)
    mean = classify(capsys, model, scans, "--every", 1, "--aggregate", "mean")
    clip = bc.from_pretrained(model)
    views = [*bc.find_views([scans / "scan.nii.gz"], bc.ViewOptions())]
    embedding = clip.encode_images(views).mean(axis=0, keepdims=True)
    by_hand = clip.classifier(LABELS)(embedding / np.linalg.norm(embedding))[0]
    assert mean["scan.nii.gz"] == pytest.approx(dict(zip(LABELS, by_hand.tolist(), strict=True)), rel=1e-4)


def test_embeddings_of_slices_in_a_file_and_in_a_folder(model, scans, tmp_path, capsys):
    words = ["embed", model, "--images", scans, "--every", 2, "--plane", "coronal"]
    assert main([*map(str, words), "--out", str(tmp_path / "a.npz")]) == 0
    assert main([*map(str, words), "--out", str(tmp_path / "folder"), "--shard-size", "5"]) == 0
    embeddings, names = bc.load_embeddings(tmp_path / "a.npz")
    assert names[1].endswith("scan.nii.gz#coronal=1") and len(names) == 13
    in_folder, same = bc.load_embeddings(tmp_path / "folder")
    assert same == names
    np.testing.assert_allclose(in_folder, embeddings, atol=1e-6)
    # other slices are another archive
    assert main([*map(str, words), "--window=0,4", "--out", str(tmp_path / "folder"), "--shard-size", "5"]) == 2
    assert main([*map(str, words), "--aggregate", "mean", "--out", str(tmp_path / "one.npz")]) == 0
    means, files = bc.load_embeddings(tmp_path / "one.npz")
    assert [Path(name).name for name in files] == ["photo.png", "scan.nii.gz"]
    mean = embeddings[1:].mean(axis=0)
    np.testing.assert_allclose(means[1], mean / np.linalg.norm(mean), atol=1e-6)
    capsys.readouterr()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--plane", "axial"], "--plane: is for the images in a file; give --every K, too"),
        (["--aggregate", "max"], "--aggregate: is for the images in a file; give --every K, too"),
        ([], "scan.nii.gz: a volume, not one image; --every 1 takes all slices"),
    ],
)
def test_what_goes_with_every(model, scans, words, said, capsys):
    assert main(["classify", str(model), str(scans / "scan.nii.gz"), "--labels", *LABELS, *words]) == 2
    assert said in capsys.readouterr().err


def test_options_that_change_nothing_are_said(model, scans, tmp_path, capsys):
    words = ["--every", "1", "--plane", "coronal", "--tile", "32"]
    assert main(["classify", str(model), str(scans / "photo.png"), "--labels", *LABELS, *words]) == 0
    said = capsys.readouterr().err
    assert "--plane: is of NIfTI" in said and "--tile: is of slides" in said
    assert main(["embed", str(model), "--images", str(scans), "--out", str(tmp_path / "out"), *words]) == 0
    said = capsys.readouterr().err
    assert "--plane" not in said and "--tile: is of slides" in said
