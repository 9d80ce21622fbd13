"""LC25000's folders, and TCGA-TIL in its three layouts."""

from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.histology import read_lc25000, read_tcga_til
from biomedclip_jax.data.labelled.groups import intervals_over
from biomedclip_jax.errors import UserError

CLASSES = ("none", "tumor infiltrating lymphocytes")
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


def test_groups_of_lc25000_clean(folder: Path) -> None:
    """Its table, laid beside the images, says which of them come of one original."""
    rows = ["stem,filename,label,tissue,local_cluster_label,group_id"]
    groups = {"lungaca1": 1, "lungaca2": 2, "lungn1": 9, "lungn2": 9}
    rows += [f"{stem},{stem}.jpeg,{stem[:-1]},lung,0,{group}" for stem, group in groups.items()]
    (folder / "lc25000_image_groups.csv").write_text("\n".join(rows) + "\n")
    found = read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")
    assert found.groups is not None and found.groups[:4] == ("1", "2", "9", "9") and found.groups[4] != found.groups[5]
    assert "5 groups (originals, LC25000-clean) of 6 images; 2 images without one" in intervals_over(found)[0]
    (folder / "lc25000_image_groups.csv").write_text("stem,group_id\nlungaca1.jpeg,1\n")
    with pytest.raises(UserError, match=r"lc25000_image_groups\.csv: its stems are of none of the images in "):
        read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")
    (folder / "lc25000_image_groups.csv").write_text("stem\nlungn1\n")
    with pytest.raises(UserError, match="no column 'group_id'"):
        read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")


def test_wrong_layouts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'train'; there are: test"):
        read_lc25000("lc25000-lung", folder, "train", ("aca", "n", "scc"), "lung")
    with pytest.raises(NotOnDisk, match="no folder lung_aca"):
        read_lc25000("lc25000-lung", tmp_path / "none", "test", ("aca", "n", "scc"), "lung")
    (folder / "lung_colon_image_set" / "lung_image_sets" / "lung_n").rename(folder / "lung_n")
    with pytest.raises(NotOnDisk, match="lung_image_sets: no folder lung_n"):
        read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10)).save(folder / name)
    return folder


@pytest.mark.parametrize("above", ["TCGA-TILs/images-tcga-tils", "images-tcga-tils", "."])
def test_the_release(tmp_path: Path, above: str) -> None:
    """Only the study asked for; the label is the folder, not the alphabet."""
    names = ["luad/test/til-positive/1.png", "luad/test/til-negative/2.png", "luad/val/til-negative/3.png"]
    write(tmp_path / above, *names, "luad/val/til-positive/4.png", "brca/test/til-positive/5.png")
    found = read_tcga_til("tcga-til", tmp_path, "test", CLASSES, "luad")
    assert [Path(name).name for name in found.names] == ["2.png", "1.png"] and found.labels.tolist() == [0, 1]
    assert len(read_tcga_til("tcga-til", tmp_path, "validation", CLASSES, "luad")) == 2
    with pytest.raises(NotOnDisk, match="for split 'train'"):
        read_tcga_til("tcga-til", tmp_path, "train", CLASSES, "luad")


def test_own_folders(tmp_path: Path) -> None:
    write(tmp_path, "none/1.png", "none/2.png", "til/3.png")
    assert read_tcga_til("tcga-til", tmp_path, "test", CLASSES, "luad").labels.tolist() == [0, 0, 1]
    with pytest.raises(NotOnDisk):
        read_tcga_til("tcga-til", tmp_path, "train", CLASSES, "luad")


def test_what_is_no_image_of_a_class_is_listed(folder: Path, tmp_path: Path) -> None:
    lung = folder / "lung_colon_image_set" / "lung_image_sets"
    (lung / "lung_n" / "notes.txt").write_text("x")
    found = read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")
    assert len(found) == 6 and [(Path(each.image).name, each.reason) for each in found.rejects] == [("notes.txt", "no image")]
    for path in (lung / "lung_scc").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="lung_scc: no image in this folder"):
        read_lc25000("lc25000-lung", folder, "test", ("aca", "n", "scc"), "lung")
    own = tmp_path / "own"
    write(own, "none/1.png", "til/3.png", "unsure/4.png")
    found = read_tcga_til("tcga-til", own, "test", CLASSES, "luad")
    assert [(Path(each.image).name, each.reason) for each in found.rejects] == [
        ("4.png", "lies outside the folders of the classes")
    ]
    assert "was not published" in found.caveats[0]


def test_rows_of_a_table_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png", "3.png", "4.png", "unlisted.png")
    rows = "path,label,split\n./1.png,1.0,test\n2.png,,test\n3.png,None,TEST\n4.png,0,fold7\n"
    (tmp_path / "labels.csv").write_text(rows)
    found = read_tcga_til("tcga-til", tmp_path, "test", CLASSES, "luad")
    assert found.labels.tolist() == [1, 0]
    assert {Path(each.image).name: each.reason for each in found.rejects} == {
        "2.png": "label is empty",
        "4.png": "split 'fold7' is none of train, validation and test",
        "unlisted.png": "not in labels.csv",
    }


def test_a_table(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label,split\n1.png,1,test\n2.png,none,\nno.png,0,test\n1.png,til,train\n")
    for where in (tmp_path, table):
        found = read_tcga_til("tcga-til", where, "test", CLASSES, "luad")
        assert found.labels.tolist() == [1, 0] and [r.row for r in found.rejects] == ["3"]
    assert len(read_tcga_til("tcga-til", tmp_path, "train", CLASSES, "luad")) == 1
    for content, message in (
        ("path,label\n1.png,maybe\n", "row 1: label 'maybe'; expected 0 or none, 1 or til"),
        ("file,label\n1.png,1\n", "no column 'path'"),
    ):
        table.write_text(content)
        with pytest.raises(UserError, match=message):
            read_tcga_til("tcga-til", tmp_path, "test", CLASSES, "luad")
