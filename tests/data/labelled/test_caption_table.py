"""From the files of CheXpert, RSNA, EMBED and of anybody to a table of pairs, which training and evaluation then read."""

import csv
import re
from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.cli import main
from biomedclip_jax.data.benchmarks.chexpert import chexpert_rows
from biomedclip_jax.data.labelled.caption_table import write_captions
from biomedclip_jax.data.labelled.captions import packaged_captions
from biomedclip_jax.data.sources import open_labelled, open_pairs
from biomedclip_jax.errors import UserError

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FINDINGS = HEADER.split(",")[5:]
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
START = "this is a chest x ray of a patient with"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(path)
    return path


def film(patient: int, positive: dict[str, str], side: str = "AP", study: int = 1) -> str:
    view = "frontal" if side else "lateral"
    path = f"CheXpert-v1.0/train/patient{patient:05d}/study{study}/view1_{view}.jpg"
    return f"{path},Male,50,{view.title()},{side}," + ",".join(positive.get(finding, "") for finding in FINDINGS)


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """Five films of a single finding each and their list, other films of those patients and of 60 more."""
    folder = tmp_path / "data" / "CheXpert-v1.0"
    tests = [film(number, {FIVE[number]: "1.0"}, "PA") for number in range(5)]
    more = [film(number, {"Edema": "1.0", "Pleural Effusion": "1.0", "Fracture": "-1.0"}) for number in range(10, 70)]
    more += [film(2, {"Fracture": "1.0"}, study=2), film(11, {}, "", 2), film(12, {"No Finding": "1.0"}, "LL", 2)]
    more += [film(13, {"No Finding": "1.0", "Edema": "0.0"}, study=2), film(14, {"Edema": "1.0"}, study=2)]
    for row in tests + more:
        picture(folder.parent / row.split(",")[0])
    (folder / "train.csv").write_text("\n".join([HEADER, *tests, *more]) + "\n")
    (folder.parent / "chexpert_5x200.csv").write_text("\n".join([HEADER, *tests]) + "\n")
    return folder.parent


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_chexpert(chexpert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.csv"
    assert main(["data", "captions", "chexpert", str(chexpert), "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{out}: 67 pairs (test 5, train 59, validation 3)",
        "  left out, not frontal (AP/PA): 2",
        "  left out, of a patient of the test set: 1",
    ]
    rows = rows_of(out)
    assert rows[0] == {
        "image": "data/CheXpert-v1.0/train/patient00000/study1/view1_frontal.jpg",
        "caption": f"{START} atelectasis",
        "label": "atelectasis",
        "split": "test",
    }
    by_image = {row["image"].split("train/")[1]: row for row in rows}
    assert by_image["patient00010/study1/view1_frontal.jpg"]["caption"] == f"{START} edema pleural effusion"
    assert by_image["patient00010/study1/view1_frontal.jpg"]["label"] == ""
    assert by_image["patient00013/study2/view1_frontal.jpg"]["caption"] == f"{START} no finding"
    assert by_image["patient00014/study2/view1_frontal.jpg"]["label"] == "edema"
    splits: dict[str, set[str]] = {}
    for name, row in by_image.items():
        splits.setdefault(name[:12], set()).add(row["split"])
    assert all(len(own) == 1 for own in splits.values())


def test_training_and_evaluation_read_it(chexpert: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    write_captions(out, chexpert_rows(chexpert), packaged_captions("chexpert").style("default"), None)
    train, held_out = open_pairs(f"{out}:train"), open_pairs(f"{out}:valid")
    assert len(train) + len(held_out) == 62 and not train.rejects and train[0].captions[0].startswith(START)
    assert len(open_pairs(str(out))) == 67
    with pytest.raises(UserError, match=r"pairs\.csv: no split 'dev2'; there are: test, train, validation"):
        open_pairs(f"{out}:dev2")
    labels = packaged_captions("chexpert")
    write_captions(out, chexpert_rows(chexpert), labels.style("default"), labels.label("five"))
    found = open_labelled(str(out), "test")
    assert found.classes == tuple(finding.lower() for finding in FIVE) and found.labels.tolist() == [0, 1, 2, 3, 4]
    assert open_labelled(f"{out}:test").names == found.names and len(open_labelled(f"{out}:train")) == 1


def test_a_table_without_splits_has_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(UserError, match=r"t\.csv: no column 'split'; there are 'image', 'caption'"):
        open_pairs(f"{tmp_path / 't.csv'}:train")


def test_rsna(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "rsna"
    lines = ["patientId,x,y,width,height,Target"] + [f"p{n:02d},,,,,{n % 2}" for n in range(20)]
    for number in range(19):
        picture(folder / "stage_2_train_images" / f"p{number:02d}.png").rename(
            folder / "stage_2_train_images" / f"p{number:02d}.dcm"
        )
    (folder / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "rsna.csv"
    assert main(["data", "captions", "rsna", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: 19 pairs (train 1") and printed.endswith("  left out, no .dcm for this patient: 1\n")
    assert {(row["caption"], row["label"]) for row in rows_of(out)} == {
        (f"{START} no findings", "no findings"),
        (f"{START} pneumonia", "pneumonia"),
    }
    assert main(["data", "captions", "rsna", str(folder), "--out", str(out), "--style", "released"]) == 0
    assert f"{START} pneumothorax" in out.read_text()


def test_embed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tmp_path / "embed" / "tables"
    tables.mkdir(parents=True)
    images, findings = [], []
    for number in range(30):
        images.append(f"cohort_1/{number}/{number}/i.dcm,{number},{number},2D,L,CC,MG Diagnostic")
        findings.append(f"{number},,{'NBS'[number % 3]},{number % 5 + 1}")
        picture(tmp_path / "embed" / "images" / f"cohort_1/{number}/{number}/i.png").rename(
            tmp_path / "embed" / "images" / f"cohort_1/{number}/{number}/i.dcm"
        )
    images.append("cohort_1/5/5/j.dcm,5,5,cview,L,CC,MG Diagnostic")
    head = "anon_dicom_path,empi_anon,acc_anon,FinalImageType,ImageLateralityFinal,ViewPosition,StudyDescription"
    (tables / "EMBED_OpenData_metadata_reduced.csv").write_text("\n".join([head, *images]))
    (tables / "EMBED_OpenData_clinical_reduced.csv").write_text("\n".join(["acc_anon,side,asses,tissueden", *findings]))
    out = tmp_path / "e.csv"
    arguments = ["data", "captions", "embed", str(tables.parent), "--out", str(out)]
    assert main([*arguments, "--style", "simple"]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.startswith(f"{out}: 30 pairs (train 21, validation 3, test 6)\n") and "FinalImageType is not 2D: 1" in printed
    )
    rows = {int(row["image"].split("/")[3]): row for row in rows_of(out)}
    ends = "patient with breast tissue density 3 heterogeneously dense with birads score 4 suspicious abnormality"
    assert rows[2]["caption"].endswith(ends) and rows[2]["label"] == "4: suspicious abnormality"
    assert main([*arguments, "--label", "density", "--per-class", "1"]) == 0
    printed = capsys.readouterr().out
    assert "female_density_number is empty, or a code without words: 6" in printed  # men
    tested = [row["label"] for row in rows_of(out) if row["split"] == "test"]
    assert len(tested) == len(set(tested)) and "of the test split, not among those drawn" in printed


def test_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "x" / f"{name}.png")
    table = tmp_path / "x" / "t.csv"
    table.write_text("file,finding,view,split\na.png,Edema,AP,train\nb.png,,PA,test\nb.png,Nodule,,test\nc.png,Mass,,test\n")
    out = tmp_path / "pairs.csv"
    words = ("--image-column", "file", "--template", "An X-ray[, {view}] with {finding}.", "--label", "finding")
    assert main(["data", "captions", str(table), "--out", str(out), *words]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 2 pairs (train 1, test 1)",
        "  left out, finding is empty, or a code without words: 1",
        "  left out, image file is not there: 1",
    ]
    assert [list(row.values()) for row in rows_of(out)] == [
        ["x/a.png", "An X-ray, AP with Edema.", "Edema", "train"],
        ["x/b.png", "An X-ray with Nodule.", "Nodule", "test"],
    ]
    elsewhere = tmp_path / "new" / "pairs.csv"  # where a relative path would have to go up
    assert main(["data", "captions", str(table), "--out", str(elsewhere), *words]) == 0
    assert rows_of(elsewhere)[0]["image"] == str(tmp_path / "x" / "a.png") and len(open_pairs(str(elsewhere))) == 2


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,finding\nnone.png,Edema\n")
    out = tmp_path / "p.csv"
    for arguments, message in (
        (["chexpert"], "chexpert: which FOLDER are its files in"),
        (["chexpret", "x"], "chexpret: no data set of this name, there are chexpert, rsna, embed"),
        (["chexpert", str(tmp_path)], r"no train\.csv"),
        (
            ["embed", str(tmp_path), "--style", "long"],
            "embed: no style 'long'; there are: default, simple, natural, structural",
        ),
        (["embed", str(tmp_path), "--label", "age"], "embed: no label 'age'; there are: birads, density"),
        ([str(table)], "which words"),
        ([str(table), "--template", "a {findings}"], r"t\.csv: no column 'findings'.*did you mean 'finding'"),
        ([str(table), "--template", "no mark"], "expected a sentence with a {column} in it"),
        ([str(table), "--template", "a {finding}", "--style", "x"], "--style x: --template is the only style"),
        ([str(table), "--template", "a {finding}"], r"p\.csv: no usable row \(image file is not there: 1\)"),
        ([str(table), "--templates", "none.toml"], r"none\.toml: cannot be read"),
        ([str(table), "--templates", "chexpert"], "no column 'Enlarged Cardiomediastinum'"),
    ):
        assert main(["data", "captions", *arguments, "--out", str(out)]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and re.search(message, printed.err), printed.err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]
    assert main(["data", "captions", str(table), "--template", "a {finding}", "--out", str(tmp_path / "p.txt")]) == 2
    assert "expected a name that ends in .csv" in capsys.readouterr().err
