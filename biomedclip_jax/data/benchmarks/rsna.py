"""RSNA Pneumonia Detection Challenge: DICOM files by patient, and two tables.

`stage_2_train_images/<patientId>.dcm` (26,684), one for each patient. `stage_2_train_labels.csv`: patientId, x, y,
width, height, Target; 30,227 rows, one for each box, so that a patient with several opacities has several.
`stage_2_detailed_class_info.csv`: patientId, class ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity"). The
images of stage_2_test_images have no labels.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from biomedclip_jax.data._table_rows import table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.caption_table import LabelledRow
from biomedclip_jax.data.labelled.types import Labelled, labelled_files
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

_IMAGES, _LABELS, _CLASSES = "stage_2_train_images", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
_NORMAL, _OTHER, _SICK = "normal", "no lung opacity / not normal", "lung opacity"  # the three classes, in lower case
_SEED = "the 30 % of the rows are drawn with a seed of ours: BiomedCLIP's own draw is not known"


@dataclass(frozen=True)
class _Division:
    """(patient, Target) of the images of a split, in order, and why others are not among them: (patient, reason)."""

    rows: list[tuple[str, int]]
    rejected: list[tuple[str, str]]
    caveats: tuple[str, ...] = ()


def read_rsna(name: str, where: Path, split: str, classes: Sequence[str], negative: str, division: str) -> Labelled:
    """A split, label 1 where the patient has a box (Target 1).

    negative: "all", every patient without a box; "normal", only those of class "Normal", the others being left away.
    division: "patients", GLoRIA's 70/15/15 of the patients, whose code fixes the seed: 18,678, 4,003 and 4,003 images.
        "boxes", 30 % of the *rows* of the labels, 9,069 as in BiomedCLIP's table; an image counts once for each of its
        boxes. The seed is a guess, and a training set to go with it is not known, so there is a test split only.
        "none", all as test. "balanced", the lists `rsna_pneumonia_{train,test}.csv` (Path, Normal, Pneumonia) of
        MedCLIP's successors.
    In `rejects`: patients without a .dcm, with contradicting labels or, where that decides, in no row of the classes; and,
    of the test split, images that the labels don't list. UserError for tables that are missing or miss a column.
    """
    check_split(
        name, split, {"patients": ("train", "validation", "test"), "balanced": ("train", "test")}.get(division, ("test",))
    )
    folder = existing(where, _IMAGES)
    there = {entry.name for entry in os.scandir(folder)}
    unlisted: list[Reject] = []
    if division == "balanced":
        divided = _listed(existing(where, f"rsna_pneumonia_{split}.csv"))
    else:
        path = existing(where, _LABELS)
        labels = [
            (text_of(row["patientId"]), _target(path, row["Target"])) for _, row in table_rows(path, ["patientId", "Target"])
        ]
        divided = _divided(where, labels, split, negative, division)
        if split == "test":
            known = {f"{patient}.dcm" for patient, _ in labels}
            known |= {f"{patient}.dcm" for patient, _ in divided.rejected}
            others = sorted(file for file in there - known if file.lower().endswith(".dcm"))
            unlisted = [Reject("", str(folder / file), f"not in {_LABELS}") for file in others]
    found = [(folder / f"{patient}.dcm", target) for patient, target in divided.rows if f"{patient}.dcm" in there]
    rejects = [
        Reject(str(number), str(folder / f"{patient}.dcm"), "no .dcm for this patient")
        for number, (patient, _) in enumerate(divided.rows, 1)
        if f"{patient}.dcm" not in there
    ]
    rejects += [Reject("", str(folder / f"{patient}.dcm"), reason) for patient, reason in divided.rejected]
    return labelled_files(name, classes, found, rejects + unlisted, divided.caveats)


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


def _divided(where: Path, labels: Sequence[tuple[str, int]], split: str, negative: str, division: str) -> _Division:
    """labels: (patient, Target) of each row of the labels, a patient's own once for each box."""
    targets: dict[str, set[int]] = {}
    for patient, target in labels:
        targets.setdefault(patient, set()).add(target)
    if division == "boxes":
        chosen = [labels[i] for i in halves(len(labels), 0.3)[1]]
    else:
        chosen = sorted((patient, max(own)) for patient, own in targets.items())
        if division == "patients":
            train, others = halves(len(chosen), 0.3)
            test, validation = (others[half] for half in halves(len(others), 0.5))  # GLoRIA calls the first half test
            chosen = [chosen[i] for i in {"train": train, "validation": validation, "test": test}[split]]
    faults = {patient: "Target is 0 in one row and 1 in another" for patient, own in targets.items() if len(own) > 1}
    faults |= {"": "patientId is empty"}
    caveats = [_SEED] if division == "boxes" else []
    kinds: dict[str, set[str]] = {}
    if negative == "normal":
        info = existing(where, _CLASSES)
        kinds = _classes(info)
        if not any(_NORMAL in kinds.get(patient, ()) for patient in targets):
            raise UserError(f"{info}: no row of class 'Normal' for a patient of {_LABELS}; download both again")
        for patient, target in chosen:
            if not target and (reason := _no_class(kinds.get(patient, set()))):
                faults.setdefault(patient, reason)
        whole = [(patient, target) for patient, target in chosen if patient not in faults]
        kept = [(patient, target) for patient, target in whole if target or kinds[patient] == {_NORMAL}]
        if len(kept) < len(whole):
            caveats.append(f"without {len(whole) - len(kept):,} of class 'No Lung Opacity / Not Normal', by definition")
    else:
        kept = [(patient, target) for patient, target in chosen if patient not in faults]
    rejected = [(patient, faults[patient]) for patient, _ in chosen if patient in faults]
    if negative == "normal" and split == "test":
        rejected += [(patient, f"not in {_LABELS}") for patient in sorted(kinds.keys() - targets.keys()) if patient]
    return _Division(kept, rejected, tuple(caveats))


def _classes(path: Path) -> dict[str, set[str]]:
    """The classes of each patient, in lower case."""
    found: dict[str, set[str]] = {}
    for _, row in table_rows(path, ["patientId", "class"]):
        found.setdefault(text_of(row["patientId"]), set()).add(text_of(row["class"]).lower())
    return found


def _no_class(kinds: set[str]) -> str:
    """Why it is not known whether a patient without a box is healthy; "" where it is."""
    if not kinds:
        return f"not in {_CLASSES}"
    if len(kinds) > 1:
        return f"several classes in {_CLASSES}"
    (kind,) = kinds
    if kind == _SICK:
        return f"Target is 0, but the class is 'Lung Opacity' in {_CLASSES}"
    return "" if kind in (_NORMAL, _OTHER) else f"no known class in {_CLASSES}"


def _listed(path: Path) -> _Division:
    rows = [
        (PurePosixPath(text_of(row["Path"]).replace("\\", "/")).stem, _target(path, row["Pneumonia"]))
        for _, row in table_rows(path, ["Path", "Pneumonia"])
    ]
    targets: dict[str, set[int]] = {}
    for patient, target in rows:
        targets.setdefault(patient, set()).add(target)
    both = [patient for patient, own in targets.items() if len(own) > 1]
    return _Division(
        [(patient, target) for patient, target in rows if patient not in both],
        [(patient, "Pneumonia is 0 in one row and 1 in another") for patient in both],
    )


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
