"""TCGA-TIL: the release's folders, own folders, and a table."""

from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks.files import NotOnDisk
from biomedclip_jax.data.benchmarks.tcga_til import read_tcga_til
from biomedclip_jax.errors import UserError

CLASSES = ("none", "tumor infiltrating lymphocytes")


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


def test_a_table(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label,split\n1.png,1,test\n2.png,none,\nno.png,0,test\n1.png,til,train\n")
    for where in (tmp_path, table):
        found = read_tcga_til("tcga-til", where, "test", CLASSES, "luad")
        assert found.labels.tolist() == [1, 0] and [r["row"] for r in found.rejects] == ["3"]
    assert len(read_tcga_til("tcga-til", tmp_path, "train", CLASSES, "luad")) == 1
    for content, message in (
        ("path,label\n1.png,maybe\n", "row 1: label 'maybe'; expected 0 or none, 1 or til"),
        ("file,label\n1.png,1\n", "no column 'path'"),
    ):
        table.write_text(content)
        with pytest.raises(UserError, match=message):
            read_tcga_til("tcga-til", tmp_path, "test", CLASSES, "luad")
