"""EMBED: its tables as they are published (image by image, finding by finding), its splits, labels and what is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.embed import mammograms, read_embed
from biomedclip_jax.data.names import some_of_each
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import benchmark, load_benchmark

IMAGES = "empi_anon,acc_anon,anon_dicom_path,study_date_anon,StudyDescription,FinalImageType,ImageLateralityFinal,ViewPosition"
REDUCED = "empi_anon,acc_anon,desc,tissueden,asses,numfind,side,age_at_study,RACE_DESC,ETHNIC_GROUP_DESC"
FULL = "empi_anon,acc_anon,asses,tissueden,side,massshape,massdens,calcfind,calcdistri"
LEGEND = "Header in export,Discription,Code,Meaning"
LETTERS = "ANBPSMK"
BIRADS, DENSITY = benchmark("embed-birads"), benchmark("embed-density")


def image_row(patient: int, exam: int, side: str = "L", kind: str = "2D", view: str = "MLO") -> str:
    path = f"/mnt/NAS2/mammo/anon_dicom/cohort_1/{patient}/{exam}/{side}{view}{kind}.dcm"
    return f"{patient},{exam},{path},2013-05-07,MG Screening Bilateral w/CAD,{kind},{side},{view}"


def finding(patient: int, exam: int, letter: str, density: str, side: str = "", race: str = "Asian") -> str:
    return f"{patient},{exam},MG Screening,{density},{letter},1,{side},52.41,{race},Non-Hispanic or Latino"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty patients: BI-RADS and density by their number; every fourth image a synthetic one."""
    images, findings = [], []
    for number in range(40):
        patient, exam = 10_000 + number, 5_000 + number
        images += [image_row(patient, exam, side) for side in "LR"]
        findings.append(finding(patient, exam, LETTERS[number % 7], f"{number % 4 + 1}.0"))
        if number % 4 == 0:
            images.append(image_row(patient, exam, kind="cview"))
    (tmp_path / "tables").mkdir()
    write(tmp_path, "EMBED_OpenData_metadata_reduced.csv", IMAGES, images)
    write(tmp_path, "EMBED_OpenData_clinical_reduced.csv", REDUCED, findings)
    return tmp_path


def write(folder: Path, name: str, header: str, rows: list[str]) -> Path:
    path = folder / "tables" / name
    path.write_text("\n".join([header, *rows]) + "\n")
    for row in rows if header == IMAGES else []:
        image = folder / "images" / row.split(",")[2].removeprefix("/mnt/NAS2/mammo/anon_dicom/")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(image, "PNG")
    return path


def read(folder: Path, split: str = "test", label: str = "birads", per_class: int | None = None) -> Any:
    classes = (BIRADS if label == "birads" else DENSITY).classes
    return read_embed("embed", folder, split, classes, label, per_class)


def patients(found: Any) -> list[int]:
    return [int(Path(name).parts[-3]) - 10_000 for name in found.names]


def test_labels_and_the_division_by_patient(folder: Path) -> None:
    splits = {split: read(folder, split) for split in ("train", "validation", "test")}
    assert {split: len(set(patients(found))) for split, found in splits.items()} == {"train": 28, "validation": 4, "test": 8}
    assert sorted(number for found in splits.values() for number in patients(found)) == sorted([*range(40)] * 2)
    for found in splits.values():
        assert found.labels.tolist() == [number % 7 for number in patients(found)]
        assert {each.reason for each in found.rejects} <= {"FinalImageType is not 2D"}
    assert sum(len(found.rejects) for found in splits.values()) == 10
    density = read(folder, label="density")
    assert density.labels.tolist() == [number % 4 for number in patients(density)] and density.names == splits["test"].names


def test_the_tables_of_splits_are_preferred(folder: Path) -> None:
    for part, number in (("train", 1), ("valid", 2), ("test", 3)):
        write(folder, f"EMBED_OpenData_metadata_reduced_{part}.csv", IMAGES, [image_row(10_000 + number, 5_000 + number)])
    assert [patients(read(folder, split)) for split in ("train", "validation", "test")] == [[1], [2], [3]]
    (folder / "tables" / "EMBED_OpenData_metadata_reduced_valid.csv").unlink()
    with pytest.raises(NotOnDisk, match=r"no EMBED_OpenData_metadata_reduced_valid\.csv"):
        read(folder, "validation")


def test_a_balanced_test_split(folder: Path) -> None:
    images = [image_row(10_000 + number % 40, 5_000 + number % 40, view=f"V{number}") for number in range(200)]
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, images)
    found = read(folder, per_class=20)
    assert Counter(found.labels.tolist()) == dict.fromkeys(range(7), 20)
    assert found.names == read(folder, per_class=20).names and len(set(found.names)) == 140
    assert Counter(read(folder, per_class=26).labels.tolist())[6] == 25  # all that there are
    assert some_of_each("aabbb", 2) != some_of_each("aabbb", 2, seed=3) or some_of_each("abcabc" * 9, 2) != some_of_each(
        "abcabc" * 9, 2, seed=3
    )


def test_which_finding_an_image_is_described_with(folder: Path) -> None:
    """The worst of its breast; what only the full table says comes from the same finding, in whatever order."""
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, [image_row(7, 70, side) for side in "LR"])
    rows = [finding(7, 70, "N", "2", "R"), finding(7, 70, "B", "4", "L"), finding(7, 70, "S", "3", "L")]
    write(folder, "EMBED_OpenData_clinical_reduced.csv", REDUCED, rows)
    full = ["7,70,S,3,L,O,+,A,", "7,70,N,2,R,,,,", "7,70,B,4,L,R,,,"]
    write(folder, "EMBED_OpenData_clinical.csv", FULL, full)
    write(folder, "AWS_Open_Data_Clinical_Legend.csv", LEGEND, ["massshape,,O    ,Oval     ", "massdens,,+,High density"])
    left, right = mammograms(folder, "test")
    assert (left.row["asses"], left.row["tissueden"], left.row["massshape"]) == ("S", "3", "Oval")
    assert left.row["massdens"] == "High density" and left.row["calcfind"] == ""  # a code that the legend does not have
    assert (right.row["asses"], right.row["massshape"], right.row["RACE_DESC"]) == ("N", "", "Asian")
    first = next(mammograms(folder, "test", "first"))
    assert (first.row["asses"], first.row["tissueden"], first.row["massshape"]) == ("B", "4", "")
    write(folder, "EMBED_OpenData_clinical_reduced.csv", REDUCED, rows[1:])
    left, right = mammograms(folder, "test")
    assert left.row["asses"] == "S" and "asses" not in right.row, "a finding of the other breast says nothing of this one"
    assert right.row["tissueden"] == "4", "the density is the exam's"
    assert [each.row["asses"] for each in mammograms(folder, "test", "first")] == ["B", "B"], "as CLEFT has it"
    assert [each.reason for each in read(folder).rejects] == ["no finding of this side in the clinical table"]


@pytest.mark.parametrize(
    ("findings", "left", "right"),
    [
        (["R:M"], None, 5),
        (["R:M", "B:N"], 1, 5),
        (["L:N", "L:M", "R:N"], 5, 1),
        ([":N"], 1, 1),
        ([":S", "L:B"], 4, 4),
        (["L:N", "L:A"], 0, None),  # a recall is worse than negative, benign or probably benign ...
        (["L:P", "L:A", "R:A", "R:S"], 0, 4),  # ... and less than suspicious
        (["L:M", "L:K", "R:S", "R:M"], 6, 5),
        (["L:", "L:B"], 2, None),
        (["L:X", "L:B", "R:N"], None, 1),  # an assessment that nobody knows may be the worst
        (["l:m"], 5, None),
        (["L:M", "Q:N"], None, None),
    ],
)
def test_the_worst_finding_of_each_breast(folder: Path, findings: list[str], left: int | None, right: int | None) -> None:
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, [image_row(7, 70, side) for side in "LR"])
    rows = [finding(7, 70, each.partition(":")[2], "2", each.partition(":")[0]) for each in findings]
    write(folder, "EMBED_OpenData_clinical_reduced.csv", REDUCED, [*rows, finding(8, 80, "N", "2")])
    expected = {side: label for side, label in (("L", left), ("R", right)) if label is not None}
    if not expected:
        with pytest.raises(UserError, match=r"no usable image, 2 left out; .*a finding of its exam is of side 'Q'"):
            read(folder)
        return
    found = read(folder)
    assert {Path(name).name[0]: label for name, label in zip(found.names, found.labels, strict=True)} == expected
    assert len(found.rejects) == 2 - len(expected)


def test_an_image_of_no_side_is_left_out(folder: Path) -> None:
    images = [image_row(7, 70, "L"), image_row(7, 70, ""), image_row(7, 70, "B")]
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, images)
    write(
        folder, "EMBED_OpenData_clinical_reduced.csv", REDUCED, [finding(7, 70, "N", "2", "L"), finding(7, 70, "S", "2", "R")]
    )
    found = read(folder)
    assert found.labels.tolist() == [1, 4] and [each.reason for each in found.rejects] == [
        "ImageLateralityFinal is not L, R or B"
    ]


def test_our_own_draws_are_named(folder: Path) -> None:
    assert "drawn with a seed of ours" in " ".join(read(folder).caveats)
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, [image_row(10_000 + n, 5_000 + n) for n in range(10)])
    assert read(folder).caveats == ()
    balanced, fewer = read(folder, per_class=2).caveats
    assert balanced.startswith("at most 2 of each class") and fewer.startswith("there are fewer: 1 of '3: probably benign")


def test_what_is_left_out(folder: Path) -> None:
    rows = [image_row(1, exam) for exam in range(6)]
    write(folder, "EMBED_OpenData_metadata_reduced_test.csv", IMAGES, rows)
    findings = [
        finding(1, 0, "N", "1"),
        finding(1, 1, "", "1"),
        finding(1, 2, "X", "1"),
        finding(1, 3, "N", "5"),
        finding(1, 4, "N", ""),
    ]
    write(folder, "EMBED_OpenData_clinical_reduced.csv", REDUCED, findings)
    birads, density = read(folder), read(folder, label="density")
    assert len(birads) == 3 and len(density) == 3
    reasons = {each.row: each.reason for each in density.rejects}
    assert reasons == {
        "4": "female_density_number is empty, or a code that is no class",
        "5": "female_density_number is empty, or a code that is no class",
        "6": "no row of its exam in the clinical table",
    }
    assert [each.row for each in birads.rejects] == ["2", "3", "6"]
    Path(str(birads.images[0])).unlink()
    assert read(folder).rejects[-1].reason == "image file is not there"


def test_as_benchmarks(folder: Path, tmp_path: Path) -> None:
    found = load_benchmark("embed-density", folder, "train")
    assert found.classes[3] == "4: extremely dense" and set(found.labels) == {0, 1, 2, 3}
    start = "this is a breast 2d full-field digital mammogram of a patient with"
    assert BIRADS.prompts.sentences[4] == (f"{start} birads score 4: suspicious abnormality.",)
    assert DENSITY.prompts.sentences[0] == (f"{start} breast tissue density 1: almost entirely fat.",)
    with pytest.raises(UserError, match=r"no EMBED_OpenData_metadata_reduced\.csv\. .*Emory-HITI.*terms: ") as caught:
        load_benchmark("embed-birads", tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_wrong_layouts(folder: Path) -> None:
    clinical = folder / "tables" / "EMBED_OpenData_clinical_reduced.csv"
    content = clinical.read_text()
    clinical.write_text(content.replace("asses", "assess", 1))
    with pytest.raises(UserError, match=r"clinical_reduced\.csv: no column 'asses'; there are .*did you mean 'assess'"):
        read(folder)
    clinical.unlink()
    with pytest.raises(NotOnDisk, match=r"no EMBED_OpenData_clinical_reduced\.csv"):
        read(folder)
    with pytest.raises(UserError, match="no split 'x'; there are: train, validation, test"):
        read(folder, "x")
