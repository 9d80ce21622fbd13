"""An index over frames, slices and tiles: each has its own vector and its own picture, though they share a file."""

from pathlib import Path

import numpy as np
import pytest
from helpers.few_shot_task import make_candidate

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.search import open_index

nibabel = pytest.importorskip("nibabel")


def test_slices_of_one_volume_are_different_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_candidate(tmp_path / "model")
    values = np.random.default_rng(0).normal(size=(20, 24, 5)).astype(np.float32)
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scans" / "a.nii.gz")
    words = ["--images", tmp_path / "scans", "--every", 1, "--window=0,3", "--out", tmp_path / "embeddings"]
    assert main(["embed", str(tmp_path / "model"), *map(str, words)]) == 0
    words = ["index", tmp_path / "model", "--data", tmp_path / "embeddings", "--out", tmp_path / "index"]
    assert main(list(map(str, words))) == 0
    index = open_index(tmp_path / "index")
    embeddings, names = bc.load_embeddings(tmp_path / "embeddings")
    views = [*bc.find_views([tmp_path / "scans"], bc.ViewOptions(window=(0.0, 3.0)))]
    assert [str(view) for view in views] == names
    for view, name, vector in zip(views, names, embeddings, strict=True):
        ((hit,),) = index.search(vector, top=1)
        assert hit.id == name and hit.score == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(np.asarray(index.image(hit)), np.asarray(view.load()))
    capsys.readouterr()
