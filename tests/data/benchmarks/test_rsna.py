"""RSNA pneumonia: JPEG-compressed DICOM files and the two tables, both definitions of negative, and all divisions."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks import NotOnDisk
from biomedclip_jax.data.benchmarks.rsna import halves, read_rsna
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.errors import UserError

pydicom = pytest.importorskip("pydicom")
CLASSES = ("normal lung", "pneumonia")
PATIENTS = [f"{number:08x}-0000" for number in range(20)]
SICK = set(PATIENTS[::4])  # with four boxes each
HEALTHY = set(PATIENTS[1::4])


def write_dicom(path: Path, shade: int) -> None:
    """As in the challenge: 8 bits, MONOCHROME2, JPEG baseline."""
    jpeg = io.BytesIO()
    Image.new("L", (16, 16), shade).save(jpeg, "JPEG", quality=100)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientID, dataset.Modality = path.stem, "CR"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = pydicom.encaps.encapsulate([jpeg.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stage_2_train_images").mkdir()
    boxes, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number, patient in reversed(list(enumerate(PATIENTS))):  # not in the order of the patients
        write_dicom(tmp_path / "stage_2_train_images" / f"{patient}.dcm", 10 * number)
        kind = "Lung Opacity" if patient in SICK else "Normal" if patient in HEALTHY else "No Lung Opacity / Not Normal"
        for box in ["264.0,152.0,213.0,379.0,1", "562.0,152.0,256.0,453.0,1"] * 2 if patient in SICK else [",,,,0"]:
            boxes.append(f"{patient},{box}")
            classes.append(f"{patient},{kind}")
    (tmp_path / "stage_2_train_labels.csv").write_text("\n".join(boxes) + "\n")
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
    return tmp_path


def read(folder: Path, split: str = "test", negative: str = "all", division: str = "patients") -> Any:
    return read_rsna("rsna", folder, split, CLASSES, negative=negative, division=division)


def patients(found: Any) -> list[str]:
    return [Path(name).stem for name in found.names]


def test_the_division_is_that_of_glorias_code(folder: Path) -> None:
    """Which calls scikit-learn's train_test_split twice on the sorted patients, and takes test first."""
    split = pytest.importorskip("sklearn.model_selection").train_test_split
    train, others = split(sorted(PATIENTS), test_size=0.15 * 2, random_state=0)
    test, validation = split(others, test_size=0.5, random_state=0)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        found = read(folder, name)
        assert patients(found) == expected
        assert found.labels.tolist() == [int(patient in SICK) for patient in expected]


def test_the_published_sizes() -> None:
    train, others = halves(26_684, 0.3)
    assert len(train) == 18_678 and [len(half) for half in halves(len(others), 0.5)] == [4_003, 4_003]
    assert len(halves(30_227, 0.3)[1]) == 9_069
    assert sorted([*train, *others]) == list(range(26_684))


def test_rows_of_boxes_count_images_more_than_once(folder: Path) -> None:
    found = read(folder, division="boxes")
    assert len(found) == 11  # 30 % of 35 rows
    assert max(Counter(patients(found)).values()) > 1 and found.labels.tolist() == [int(p in SICK) for p in patients(found)]
    with pytest.raises(UserError, match="no split 'train'; there are: test"):
        read(folder, "train", division="boxes")


def test_both_definitions_of_negative(folder: Path) -> None:
    everybody, healthy = read(folder, division="none"), read(folder, negative="normal", division="none")
    assert patients(everybody) == PATIENTS
    assert set(patients(healthy)) == SICK | HEALTHY and healthy.labels.sum() == everybody.labels.sum() == 5
    assert set(patients(read(folder, "train", "normal"))) < set(patients(read(folder, "train")))


def test_the_balanced_lists(folder: Path) -> None:
    lines = [",Path,Normal,Pneumonia,bbox", f'5,stage_2_train_images/{PATIENTS[4]}.dcm,0,1,"[[1.0, 2.0, 3.0, 4.0], [1.0]]"']
    lines += [f"7,stage_2_train_images/{PATIENTS[1]}.dcm,1,0,"]
    (folder / "rsna_pneumonia_test.csv").write_text("\n".join(lines) + "\n")
    found = read(folder, division="balanced")
    assert patients(found) == [PATIENTS[4], PATIENTS[1]] and found.labels.tolist() == [1, 0]
    with pytest.raises(NotOnDisk, match=r"no rsna_pneumonia_train\.csv"):
        read(folder, "train", division="balanced")


def test_the_images_are_decoded(folder: Path) -> None:
    found = read(folder, division="none")
    assert [int(np.asarray(load_image(image))[8, 8]) for image in found.images[:4]] == pytest.approx([0, 10, 20, 30], abs=1)


def test_a_patient_without_a_file_is_listed(folder: Path) -> None:
    (folder / "stage_2_train_images" / f"{PATIENTS[3]}.dcm").unlink()
    found = read(folder, division="none")
    assert len(found) == 19 and [(r.row, r.reason) for r in found.rejects] == [("4", "no .dcm for this patient")]
    for path in (folder / "stage_2_train_images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"no usable image, 20 left out; the first: .*\.dcm, no \.dcm for this patient"):
        read(folder, division="none")


def test_patients_whose_class_is_not_known_are_listed(folder: Path) -> None:
    """Where only healthy ones are negative, the class decides; a sick patient has a box, whatever the table of classes says."""
    info = folder / "stage_2_detailed_class_info.csv"
    lines = [each for each in info.read_text().splitlines() if PATIENTS[1] not in each and PATIENTS[4] not in each]
    lines = [each.replace("Normal", " normal ") if PATIENTS[5] in each else each for each in lines]
    lines += [f"{PATIENTS[9]},Lung Opacity", f"{PATIENTS[2]},Normal", "unknown,Normal"]
    lines = [f"{PATIENTS[13]},what" if each.startswith(PATIENTS[13]) else each for each in lines]
    info.write_text("\n".join(lines) + "\n")
    found = read(folder, negative="normal", division="none")
    assert set(patients(found)) == SICK | HEALTHY - {PATIENTS[n] for n in (1, 9, 13)}
    where = "in stage_2_detailed_class_info.csv"
    assert {Path(each.image).stem: each.reason for each in found.rejects} == {
        PATIENTS[1]: f"not {where}",
        PATIENTS[2]: f"several classes {where}",
        PATIENTS[9]: f"several classes {where}",
        PATIENTS[13]: f"no known class {where}",
        "unknown": "not in stage_2_train_labels.csv",
    }
    assert found.caveats == ("without 9 of class 'No Lung Opacity / Not Normal', by definition",)
    assert len(read(folder, division="none")) == 20, "all negatives: no class is asked for"


def test_images_and_labels_that_do_not_fit(folder: Path) -> None:
    write_dicom(folder / "stage_2_train_images" / "unlisted.dcm", 0)
    labels = folder / "stage_2_train_labels.csv"
    labels.write_text(labels.read_text() + f"{PATIENTS[0]},,,,,0\n,,,,,0\n")
    found = read(folder, division="none")
    assert len(found) == 19 and {Path(each.image).stem: each.reason for each in found.rejects} == {
        PATIENTS[0]: "Target is 0 in one row and 1 in another",
        ".dcm": "patientId is empty",
        "unlisted": "not in stage_2_train_labels.csv",
    }
    assert all(each.reason != "not in stage_2_train_labels.csv" for each in read(folder, "train").rejects), "said once"
    assert "seed of ours" in read(folder, division="boxes").caveats[0]


def test_wrong_layouts(folder: Path) -> None:
    labels, info = folder / "stage_2_train_labels.csv", folder / "stage_2_detailed_class_info.csv"
    content = labels.read_text()
    for text, message in (
        (content.replace("Target", "target"), r"labels\.csv: no column 'Target'; there are .*did you mean 'target'"),
        (content.replace(",1\n", ",2\n"), r"labels\.csv: '2' where 0 or 1 was expected"),
    ):
        labels.write_text(text)
        with pytest.raises(UserError, match=message):
            read(folder)
    labels.write_text(content)
    info.write_text("patientId,class\nx,normal\n")
    with pytest.raises(UserError, match=r"class_info\.csv: no row of class 'Normal'"):
        read(folder, negative="normal")
    for path, name in ((info, r"stage_2_detailed_class_info\.csv"), (labels, r"stage_2_train_labels\.csv")):
        path.unlink()
        with pytest.raises(NotOnDisk, match=f"no {name}"):
            read(folder, negative="normal")
    with pytest.raises(NotOnDisk, match="no stage_2_train_images"):
        read(folder / "none")
