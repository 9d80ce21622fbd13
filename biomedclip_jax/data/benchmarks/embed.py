"""EMBED, the mammograms of Emory University: BI-RADS assessments and breast densities.

`tables/EMBED_OpenData_metadata_reduced.csv`: a row for each image; anon_dicom_path, empi_anon (the patient), acc_anon
(the exam), FinalImageType ("2D", "3D", "cview" ...), ImageLateralityFinal (L, R), ViewPosition (MLO, CC ...),
StudyDescription. Or three such tables, `..._{train,valid,test}.csv`, as CLEFT has it; its split was not published.
`tables/EMBED_OpenData_clinical_reduced.csv` and `EMBED_OpenData_clinical.csv`: a row for each finding of an exam;
acc_anon, side (L, R, B or nothing), asses (a letter), tissueden (1 to 5, 5 for men), age_at_study, RACE_DESC,
ETHNIC_GROUP_DESC; the second also massshape, massdens, calcfind and calcdistri, codes whose meaning is in
`AWS_Open_Data_Clinical_Legend.csv`: Header in export, Code, Meaning. Images: DICOM, in `images/`, arranged as below
/mnt/NAS2/mammo/anon_dicom/ in the table.

A finding belongs to a breast, and one of side B or of none to both. An image is labelled with the worst assessment of
its breast; `_WORST` has the order. CLEFT takes the first finding, whatever the others say ("first").
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from biomedclip_jax.data._table_rows import Row, table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.labelled.caption_table import LabelledRow
from biomedclip_jax.data.labelled.captions import Empty, code_of, packaged_captions
from biomedclip_jax.data.labelled.types import Labelled, existing_files, labelled_files
from biomedclip_jax.data.names import some_of_each
from biomedclip_jax.data.pairs import Reject
from biomedclip_jax.errors import UserError

_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
_DIVISION = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of the patients; ours
_TABLES, _IMAGES = "tables", "images"
_THEIRS = "/mnt/NAS2/mammo/anon_dicom/"
_IMAGE_COLUMNS = (
    "anon_dicom_path",
    "empi_anon",
    "acc_anon",
    "FinalImageType",
    "ImageLateralityFinal",
    "ViewPosition",
    "StudyDescription",
)
_CODES = ("massshape", "massdens", "calcfind", "calcdistri")
_OF_EXAM = ("tissueden", "age_at_study", "RACE_DESC", "ETHNIC_GROUP_DESC")  # the same for all findings of an exam
_FINDING_COLUMNS = ("asses", *_OF_EXAM, *_CODES)
# negative, benign, probably benign, incomplete (a recall), suspicious, highly suggestive of malignancy, known malignancy
_WORST = "NBPASMK"
_SIDES = ("L", "R", "B", "")
_DRAWN = "splits by patient drawn with a seed of ours: those of CLEFT were not published"

Findings = Literal["worst", "first"]  # which finding says what an image shows


def read_embed(
    name: str,
    where: Path,
    split: str,
    classes: Sequence[str],
    label: str,
    per_class: int | None = None,
    findings: Findings = "worst",
) -> Labelled:
    """A split of the 2D images. label: "birads", seven classes, or "density", four: men are left out.

    per_class: of the test split only so many images of each class, drawn with a fixed seed; of a class with fewer,
    all. Where there are no tables for the splits, 70/10/20 % of the patients, drawn with a fixed seed. findings: "worst",
    the worst assessment of the image's breast; "first", as CLEFT does. Images without a label, a finding of their side,
    an exam in the clinical table or a file are in `rejects`. UserError for tables that are missing or miss a column.
    """
    check_split(name, split, tuple(_SPLITS))
    sentence = packaged_captions("embed").label(label)
    pool: list[tuple[str, Path, int]] = []
    rejects: list[Reject] = []
    for number, mammogram in enumerate(mammograms(where, split, findings), 1):
        reason = mammogram.skip
        if not reason:
            try:
                index = int(sentence.fill(mammogram.row).partition(":")[0]) - (label == "density")
                pool.append((str(number), mammogram.image, index))
            except Empty as error:
                reason = f"{error} is empty, or a code that is no class"
                if label == "birads" and "asses" not in mammogram.row:
                    reason = "no finding of this side in the clinical table"
        if reason:
            rejects.append(Reject(str(number), str(mammogram.image), reason))
    caveats = [] if _has_own_splits(where) else [_DRAWN]
    if split == "test" and per_class is not None:
        labels = [label_index for *_, label_index in pool]
        pool = [pool[i] for i in some_of_each(labels, per_class)]
        counts = [labels.count(index) for index in range(len(classes))]
        fewer = [f"{count} of {name!r}" for name, count in zip(classes, counts, strict=True) if count < per_class]
        caveats.append(f"at most {per_class} of each class, drawn with a seed of ours")
        if fewer:
            caveats.append(f"there are fewer: {', '.join(fewer)}")
    found, missing = existing_files(pool)
    return labelled_files(name, classes, found, rejects + missing, caveats)


def embed_rows(where: Path, findings: Findings = "worst") -> Iterator[LabelledRow]:
    """Rows for captions: the images of all splits, divided as `read_embed` does. UserError as of `read_embed`."""
    for split in _SPLITS:
        yield from mammograms(where, split, findings)


def mammograms(where: Path, split: str, findings: Findings = "worst") -> Iterator[LabelledRow]:
    """All images of a split, also those that are not to be used, with what the tables say of each.

    A row without "asses" is of an image whose breast has no finding. UserError for tables that are missing or miss a
    column.
    """
    tables, divided = _tables(where), _has_own_splits(where)
    table = (
        existing(tables, f"EMBED_OpenData_metadata_reduced_{_SPLITS[split]}.csv")
        if divided
        else existing(tables, "EMBED_OpenData_metadata_reduced.csv", "EMBED_OpenData_metadata.csv")
    )
    exams = _findings(tables)
    patients = None if divided else _patients(table, split)
    for _, row in table_rows(table, _IMAGE_COLUMNS):
        if patients is not None and code_of(row["empi_anon"]) not in patients:
            continue
        path = text_of(row["anon_dicom_path"])
        image = where / _IMAGES / (path.removeprefix(_THEIRS) if path.startswith(_THEIRS) else path.removeprefix(f"{_IMAGES}/"))
        exam, side = exams.get(code_of(row["acc_anon"])), text_of(row["ImageLateralityFinal"]).upper()
        skip = ""
        if text_of(row["FinalImageType"]) != "2D":
            skip = "FinalImageType is not 2D"
        elif exam is None:
            skip = "no row of its exam in the clinical table"
        elif side not in _SIDES[:3]:
            skip = "ImageLateralityFinal is not L, R or B"
        elif exam.fault:
            skip = exam.fault
        about = {column: row[column] for column in _IMAGE_COLUMNS}
        finding = {} if exam is None else exam.first(side) if findings == "first" else exam.worst(side)
        yield LabelledRow(image, {**about, **finding}, split, skip)


def _tables(where: Path) -> Path:
    return where / _TABLES if (where / _TABLES).is_dir() else where


def _has_own_splits(where: Path) -> bool:
    parts = (_tables(where) / f"EMBED_OpenData_metadata_reduced_{part}.csv" for part in _SPLITS.values())
    return any(path.is_file() for path in parts)


class _Exam:
    """The findings of an exam, in the table's order, with the side of each: L, R, B or nothing."""

    def __init__(self) -> None:
        self._findings: list[tuple[str, Row]] = []
        self.fault = ""  # why it is not known what its images show

    def add(self, side: str, finding: Row) -> None:
        self._findings.append((side, finding))
        if side not in _SIDES:
            self.fault = f"a finding of its exam is of side {side!r}"

    def worst(self, side: str) -> Row:
        """What is known of a breast: of its finding with the worst assessment, and of the exam.

        An assessment that is no class makes that of the breast unknown, too; without a finding there is no "asses".
        """
        own = [row for where, row in self._findings if side == "B" or where in (side, "B", "")]
        row: Row = {}
        if own:
            unknown = next((each for each in own if each["asses"] and each["asses"] not in _WORST), None)
            row = dict(unknown or max(own, key=lambda each: _WORST.find(each["asses"]) if each["asses"] else -1))
        for column in _OF_EXAM:  # a breast's own finding first, then any of the exam
            value = next((each[column] for each in (row, *own, *self._rows()) if each.get(column)), None)
            if value is not None:
                row[column] = value
        return row

    def first(self, side: str) -> Row:
        """The first finding of a side, else the first of the exam: the one that CLEFT describes an image with."""
        return next((row for where, row in self._findings if where == side), self._findings[0][1])

    def merge(self, other: "_Exam") -> None:
        """What the other table says of the same findings, where this one is silent.

        They are the same where side and assessment are; of several such the first, the second and so on.
        """
        rows: dict[tuple[str, str], list[Row]] = {}
        for side, row in other._findings:
            rows.setdefault((side, row["asses"]), []).append(row)
        for side, row in self._findings:
            if same := rows.get((side, row["asses"])):
                row.update((column, value) for column, value in same.pop(0).items() if not row.get(column))

    def _rows(self) -> list[Row]:
        return [row for _, row in self._findings]


def _findings(tables: Path) -> dict[str, _Exam]:
    """By exam."""
    legend = _legend(tables)
    first = existing(tables, "EMBED_OpenData_clinical_reduced.csv", "EMBED_OpenData_clinical.csv")
    exams = _exams(first, ("acc_anon", "side", "asses", "tissueden"), legend)
    full = tables / "EMBED_OpenData_clinical.csv"
    if full != first and full.is_file():
        for exam, other in _exams(full, ("acc_anon", "side", "asses"), legend).items():
            if exam in exams:
                exams[exam].merge(other)
    return exams


def _exams(table: Path, columns: Sequence[str], legend: dict[tuple[str, str], str]) -> dict[str, _Exam]:
    exams: dict[str, _Exam] = {}
    for _, row in table_rows(table, columns):
        finding = {column: text_of(row[column]) for column in _FINDING_COLUMNS if column in row}
        finding["asses"] = finding["asses"].upper()
        for column in _CODES:
            if column in finding:
                finding[column] = legend.get((column, code_of(finding[column])), "")
        exams.setdefault(code_of(row["acc_anon"]), _Exam()).add(text_of(row["side"]).upper(), finding)
    return exams


def _legend(tables: Path) -> dict[tuple[str, str], str]:
    """What codes mean, by column. Without the file nothing is known of them, and captions say less."""
    path = tables / "AWS_Open_Data_Clinical_Legend.csv"
    if not path.is_file():
        return {}
    rows = table_rows(path, ["Header in export", "Code", "Meaning"])
    return {(text_of(row["Header in export"]), code_of(row["Code"])): text_of(row["Meaning"]) for _, row in rows}


def _patients(table: Path, split: str) -> set[str]:
    """Those of a split, drawn from all of the table."""
    names = sorted({code_of(row["empi_anon"]) for _, row in table_rows(table, ["empi_anon"])})
    if not names:
        raise UserError(f"{table}: no rows; download it again")
    order = np.random.default_rng(0).permutation(len(names))
    ends = np.rint(np.cumsum([0.0, *_DIVISION.values()]) * len(names)).astype(int)
    part = list(_DIVISION).index(split)
    return {names[i] for i in order[ends[part] : ends[part + 1]]}
