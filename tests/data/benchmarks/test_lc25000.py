"""LC25000's folders."""

from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks.files import NotOnDisk
from biomedclip_jax.data.benchmarks.lc25000 import read_lc25000
from biomedclip_jax.errors import UserError

FOLDERS = ("lung_image_sets/lung_aca", "lung_image_sets/lung_n", "lung_image_sets/lung_scc", "colon_image_sets/colon_aca")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FOLDERS, "colon_image_sets/colon_n"):
        path = tmp_path / "lung_colon_image_set" / name
        path.mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (768, 768)).save(path / f"{path.name.replace('_', '')}{number}.jpeg", quality=1)
    return tmp_path


@pytest.mark.parametrize("inside", [".", "lung_colon_image_set"])
def test_both_organs(folder: Path, inside: str) -> None:
    lung = read_lc25000("lc25000-lung", folder / inside, "test", ("aca", "n", "scc"), "lung")
    assert lung.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [Path(name).parent.name for name in lung.names[::2]] == ["lung_aca", "lung_n", "lung_scc"]
    colon = read_lc25000("lc25000-colon", folder / inside, "test", ("aca", "n"), "colon")
    assert colon.labels.tolist() == [0, 0, 1, 1] and Path(colon.names[0]).parent.name == "colon_aca"


def test_wrong_layouts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'train'; there are: test"):
        read_lc25000("lc25000-lung", folder, "train", ("aca", "n", "scc"), "lung")
    with pytest.raises(NotOnDisk, match="no folder lung_aca"):
        read_lc25000("lc25000-lung", tmp_path / "none", "test", ("aca", "n", "scc"), "lung")
    (folder / "lung_colon_image_set" / "lung_image_sets" / "lung_n").rename(folder / "lung_n")
    with pytest.raises(NotOnDisk, match="lung_image_sets: no folder lung_n"):
        read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")
