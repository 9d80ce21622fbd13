"""NIH ChestX-ray14, as its makers lay it out: one table, two lists of file names, and folders of images.

`Data_Entry_2017.csv` (or `_v2020`): "Image Index" and "Finding Labels", names of 14 findings joined by |, or "No
Finding"; "Patient ID", over which intervals are. `train_val_list.txt` and `test_list.txt` share no patient. Images lie
in `images/`, or in the folders of the twelve archives, `images_001/images/` to `images_012/images/`.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from biomedclip_jax.data._table_rows import not_there, table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.groups import one_spelling
from biomedclip_jax.data.labelled.multi_label import PRESENT, MultiLabelled, Policy
from biomedclip_jax.data.labelled.multi_label_table import FindingRow, is_no_finding, multi_labelled_files, names_joined
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_IMAGE, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"


def read_nih(name: str, where: Path, split: str, policy: Policy) -> MultiLabelled:
    """The images of "train" (training and validation images are one list) or "test", in the list's order.

    What cannot be used is in `rejects`. UserError for a missing table or list, and for a label that is no finding.
    """
    check_split(name, split, tuple(_LISTS))
    table = existing(where, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
    listed = existing(where, _LISTS[split]).read_text(encoding="utf-8-sig").split()
    rejects: list[Reject] = []
    labels: dict[str, str] = {}
    patients: dict[str, str | None] = {}
    for _, row in table_rows(table, [_IMAGE, _LABELS], [_PATIENT], rejects):
        image = text_of(row[_IMAGE])
        labels[image], patients[image] = text_of(row[_LABELS]), one_spelling(text_of(row.get(_PATIENT)))
    rows = [replace(row, group=patients.get(row.image.name)) for row in _rows(listed, labels, table, rejects)]
    kind = "patient" if any(patients.values()) else ""
    return multi_labelled_files(name, FINDINGS, rows, rejects, policy=policy, grouped_by=kind)


def _rows(listed: list[str], labels: dict[str, str], table: Path, rejects: list[Reject]) -> Iterator[FindingRow]:
    where = table.parent
    files = _files(where)
    for number, image in enumerate(listed, 1):
        names = names_joined(labels.get(image, ""), "|")
        found = [each for each in names if not is_no_finding(each)]
        if unknown := [each for each in found if each not in FINDINGS]:
            raise UserError(f"{table}: {image}: unknown finding {unknown[0]!r}; expected some of {', '.join(FINDINGS)}")
        path = files.get(image, where / "images" / image)
        reason = "" if image in files else not_there(path)
        if not names:
            reason = "has no label" if image in labels else f"is not in {table.name}"
        elif found and len(found) < len(names):
            reason = "says both 'No Finding' and a finding"
        if reason:
            rejects.append(Reject(str(number), str(path), reason))
        else:
            yield FindingRow(str(number), path, dict.fromkeys(found, PRESENT), only_names=True)


def _files(where: Path) -> dict[str, Path]:
    """Every file of the image folders by its name."""
    folders = [each for path in sorted(where.glob("images*")) for each in (path, path / "images") if each.is_dir()]
    found: dict[str, Path] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            found |= {entry.name: folder / entry.name for entry in entries if entry.is_file()}
    return found
