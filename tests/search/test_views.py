"""An index over frames, slices and tiles: each has its own vector and its own picture, though they share a file."""

from pathlib import Path

import numpy as np
import pytest
from helpers import dicom_files
from helpers.few_shot_task import make_candidate
from helpers.tiny_index import Indexing, write_picture

import biomedclip_jax as bc
from biomedclip_jax.cli import main
from biomedclip_jax.data.embeddings_file import write_embeddings
from biomedclip_jax.errors import UserError
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


def write_volume(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(20, 24, 5)).astype(np.float32)
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def test_files_are_taken_apart_by_index_itself(index: Indexing, clip: bc.Pretrained, tmp_path: Path) -> None:
    scans, out, options = tmp_path / "scans", tmp_path / "index", bc.ViewOptions(every=2)
    for number in range(3):
        write_volume(scans / f"{number}.nii.gz", number)
    write_picture(scans / "photo.png", 7)
    (scans / "broken.nii.gz").write_bytes(b"no volume")
    changes = index(out, scans, views=options)
    views = [view for view in bc.find_views([scans], options) if "broken" not in str(view)]
    assert changes.count == changes.embedded == len(views) == 3 * 3 + 1
    assert [Path(each.image).name for each in changes.rejects] == ["broken.nii.gz"]
    found = open_index(out)
    assert sorted(found.values("view").values()) == [1, 3, 3, 3]
    for row, view in enumerate(views):
        hit = found.hit(row)
        assert (hit.image, hit.id) == (str(view.path), str(view).removeprefix(f"{scans}/"))
        assert hit.columns.get("view", "") == view.place
        np.testing.assert_array_equal(np.asarray(found.image(hit)), np.asarray(view.load()))
    np.testing.assert_allclose(found.vectors(range(len(views))), clip.encode_images(views), atol=1e-6)

    assert index(out, scans, views=options).embedded == 0
    (scans / "0.nii.gz").rename(scans / "9.nii.gz")
    write_volume(scans / "1.nii.gz", 11)
    with pytest.raises(UserError, match="has changed since it was indexed"):
        found.image(found.hit(3))
    assert found.image(found.hit(6)).size == views[6].load().size
    changes = index(out, scans, views=options)
    assert (changes.count, changes.embedded, changes.gone) == (10, 3, 3)
    for other in (None, bc.ViewOptions(every=1)):
        with pytest.raises(UserError, match="taken apart otherwise"):
            index(out, scans, views=other)


def test_what_has_no_files_to_take_apart(index: Indexing, tmp_path: Path) -> None:
    write_picture(tmp_path / "0.png", 0)
    (tmp_path / "pairs.csv").write_text("image,caption\n0.png,x\n", encoding="utf-8")
    with pytest.raises(UserError, match="takes the files of folders apart"):
        index(tmp_path / "index", tmp_path / "pairs.csv", views=bc.ViewOptions())
    write_embeddings(tmp_path / "x.npz", np.ones((1, 32), np.float32), ["0.png"])
    with pytest.raises(UserError, match="these are embeddings"):
        index(tmp_path / "index", tmp_path / "x.npz", views=bc.ViewOptions())


def test_dicom_says_whose_images_they_are(index: Indexing, tmp_path: Path) -> None:
    """Patient to patient in a folder as a scanner writes it, whatever the files are called."""
    scans, random = tmp_path / "scans", np.random.default_rng(0)
    scans.mkdir()
    for number, patient in enumerate(["P1", "P1", "P2 ", "", None]):
        pixels = random.integers(0, 256, (3, 20, 30), np.uint8)
        ids = {} if patient is None else {"PatientID": patient, "StudyInstanceUID": f"1.2.{number // 2}"}
        dicom_files.write(scans / f"IM{number}{'.dcm' if number % 2 else ''}", pixels, SeriesInstanceUID=f"1.3.{number}", **ids)
    write_picture(scans / "photo.png", 9)
    index(tmp_path / "index", scans)
    found = open_index(tmp_path / "index")
    assert [found.hit(row).columns for row in range(6)] == [
        {"patient": "P1", "study": "1.2.0", "series": "1.3.0"},
        {"patient": "P1", "study": "1.2.0", "series": "1.3.1"},
        {"patient": "P2", "study": "1.2.1", "series": "1.3.2"},
        {"study": "1.2.1", "series": "1.3.3"},
        {"series": "1.3.4"},
        {},
    ]
    own = found.positions("patient", "P1")
    groups = [hit.group for hit in found.search_groups(found.vectors(own), "patient", leave_out=own)]
    assert sorted(groups) == ["IM3.dcm", "IM4", "P2", "photo.png"]
    index(tmp_path / "frames", scans, views=bc.ViewOptions())
    frames = open_index(tmp_path / "frames")
    assert len(frames) == 5 * 3 + 1 and frames.matching(["patient=P1"]) == 6
