"""RSNA Pneumonia Detection Challenge: DICOM files by patient, and two tables.

`stage_2_train_images/<patientId>.dcm` (26,684), one for each patient. `stage_2_train_labels.csv`: patientId, x, y,
width, height, Target; 30,227 rows, one for each box, so that a patient with several opacities has several.
`stage_2_detailed_class_info.csv`: patientId, class ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity"). The
images of stage_2_test_images have no labels.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from biomedclip_jax.data._table_rows import table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.caption_table import LabelledRow
from biomedclip_jax.data.labelled.types import Labelled, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

_IMAGES, _LABELS, _CLASSES = "stage_2_train_images", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
_NORMAL = "Normal"


def read_rsna(name: str, where: Path, split: str, classes: Sequence[str], negative: str, division: str) -> Labelled:
    """A split, label 1 where the patient has a box (Target 1).

    negative: "all", every patient without a box; "normal", only those of class "Normal", the others being left away.
    division: "patients", GLoRIA's 70/15/15 of the patients, whose code fixes the seed: 18,678, 4,003 and 4,003 images.
        "boxes", 30 % of the *rows* of the labels, 9,069 as in BiomedCLIP's table; an image counts once for each of its
        boxes. The seed is a guess, and a training set to go with it is not known, so there is a test split only.
        "none", all as test. "balanced", the lists `rsna_pneumonia_{train,test}.csv` (Path, Normal, Pneumonia) of
        MedCLIP's successors.
    A patient without a .dcm is in `rejects`. UserError for tables that are missing or miss a column.
    """
    check_split(
        name, split, {"patients": ("train", "validation", "test"), "balanced": ("train", "test")}.get(division, ("test",))
    )
    folder = existing(where, _IMAGES)
    if division == "balanced":
        rows = _listed(existing(where, f"rsna_pneumonia_{split}.csv"))
    else:
        rows = _divided(where, split, negative, division)
    there = {entry.name for entry in os.scandir(folder)}
    found = [(folder / f"{patient}.dcm", target) for patient, target in rows if f"{patient}.dcm" in there]
    rejects = [
        Reject(str(number), str(folder / f"{patient}.dcm"), "no .dcm for this patient")
        for number, (patient, _) in enumerate(rows, 1)
        if f"{patient}.dcm" not in there
    ]
    return labelled_files(name, classes, found, rejects)


def rsna_rows(where: Path) -> Iterator[LabelledRow]:
    """Rows for captions: all patients, divided as `read_rsna` does by "patients", with the column Target (0 or 1).

    UserError as of `read_rsna`.
    """
    for split in ("train", "validation", "test"):
        found = read_rsna("rsna", where, split, ("0", "1"), "all", "patients")
        for image, target in zip(found.images, found.labels, strict=True):
            yield LabelledRow(Path(str(image)), {"Target": str(target)}, split)
        for reject in found.rejects:
            yield LabelledRow(Path(reject.image), {}, split, reject.reason)


def _divided(where: Path, split: str, negative: str, division: str) -> list[tuple[str, int]]:
    path = existing(where, _LABELS)
    rows = [(text_of(row["patientId"]), _target(path, row["Target"])) for _, row in table_rows(path, ["patientId", "Target"])]
    if division == "boxes":
        chosen = [rows[i] for i in halves(len(rows), 0.3)[1]]
    else:
        patients: dict[str, int] = {}
        for patient, target in rows:
            patients[patient] = max(target, patients.get(patient, 0))
        chosen = sorted(patients.items())
        if division == "patients":
            train, others = halves(len(chosen), 0.3)
            test, validation = (others[half] for half in halves(len(others), 0.5))  # GLoRIA calls the first half test
            chosen = [chosen[i] for i in {"train": train, "validation": validation, "test": test}[split]]
    if negative == "normal":
        info = existing(where, _CLASSES)
        normal = {text_of(row["patientId"]) for _, row in table_rows(info, ["patientId", "class"]) if row["class"] == _NORMAL}
        if not normal:
            raise UserError(f"{info}: no row of class {_NORMAL!r}; download it again")
        chosen = [(patient, target) for patient, target in chosen if target or patient in normal]
    return chosen


def _listed(path: Path) -> list[tuple[str, int]]:
    return [
        (Path(text_of(row["Path"])).stem, _target(path, row["Pneumonia"])) for _, row in table_rows(path, ["Path", "Pneumonia"])
    ]


def halves(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's `train_test_split(range(count), test_size=share, random_state=0)`: the positions of both parts."""
    order = np.random.RandomState(0).permutation(count)  # of a generator whose numbers NumPy promises not to change
    second = math.ceil(share * count)
    return order[second:], order[:second]


def _target(path: Path, value: object) -> int:
    text = text_of(value)
    if text not in ("0", "1"):
        raise UserError(f"{path}: {text!r} where 0 or 1 was expected; download it again")
    return int(text)
