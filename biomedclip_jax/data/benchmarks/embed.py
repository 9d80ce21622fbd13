"""EMBED, the mammograms of Emory University: BI-RADS assessments and breast densities.

`tables/EMBED_OpenData_metadata_reduced.csv`: a row for each image; anon_dicom_path, empi_anon (the patient), acc_anon
(the exam), FinalImageType ("2D", "3D", "cview" ...), ImageLateralityFinal (L, R), ViewPosition (MLO, CC ...),
StudyDescription. Or three such tables, `..._{train,valid,test}.csv`, as CLEFT has it; its split was not published.
`tables/EMBED_OpenData_clinical_reduced.csv` and `EMBED_OpenData_clinical.csv`: a row for each finding of an exam;
acc_anon, side (L, R, B or nothing), asses (a letter), tissueden (1 to 5, 5 for men), age_at_study, RACE_DESC,
ETHNIC_GROUP_DESC; the second also massshape, massdens, calcfind and calcdistri, codes whose meaning is in
`AWS_Open_Data_Clinical_Legend.csv`: Header in export, Code, Meaning. Images: DICOM, in `images/`, arranged as below
/mnt/NAS2/mammo/anon_dicom/ in the table.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

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
_FINDING_COLUMNS = ("asses", "tissueden", "age_at_study", "RACE_DESC", "ETHNIC_GROUP_DESC", *_CODES)


def read_embed(
    name: str, where: Path, split: str, classes: Sequence[str], label: str, per_class: int | None = None
) -> Labelled:
    """A split of the 2D images. label: "birads", seven classes, or "density", four: men are left out.

    per_class: of the test split only so many images of each class, drawn with a fixed seed; of a class with fewer,
    all. Where there are no tables for the splits, 70/10/20 % of the patients, drawn with a fixed seed. Images without
    a label, an exam in the clinical table or a file are in `rejects`. UserError for tables that are missing or miss a
    column.
    """
    check_split(name, split, tuple(_SPLITS))
    sentence = packaged_captions("embed").label(label)
    pool: list[tuple[Path, int]] = []
    rejects: list[Reject] = []
    for number, mammogram in enumerate(mammograms(where, split), 1):
        reason = mammogram.skip
        if not reason:
            try:
                pool.append((mammogram.image, int(sentence.fill(mammogram.row).partition(":")[0]) - (label == "density")))
            except Empty as error:
                reason = f"{error} is empty, or a code that is no class"
        if reason:
            rejects.append(Reject(str(number), str(mammogram.image), reason))
    if split == "test" and per_class is not None:
        labels = [label_index for _, label_index in pool]
        pool = [pool[i] for i in some_of_each(labels, per_class)]
    found, missing = existing_files(("", *each) for each in pool)
    return labelled_files(name, classes, found, rejects + missing)


def embed_rows(where: Path) -> Iterator[LabelledRow]:
    """Rows for captions: the images of all splits, divided as `read_embed` does. UserError as of `read_embed`."""
    for split in _SPLITS:
        yield from mammograms(where, split)


def mammograms(where: Path, split: str) -> Iterator[LabelledRow]:
    """All images of a split, also those that are not to be used, with what the tables say of each.

    UserError for tables that are missing or miss a column.
    """
    tables = where / _TABLES if (where / _TABLES).is_dir() else where
    own = [tables / f"EMBED_OpenData_metadata_reduced_{part}.csv" for part in _SPLITS.values()]
    divided = any(path.is_file() for path in own)
    table = (
        existing(tables, f"EMBED_OpenData_metadata_reduced_{_SPLITS[split]}.csv")
        if divided
        else existing(tables, "EMBED_OpenData_metadata_reduced.csv", "EMBED_OpenData_metadata.csv")
    )
    findings = _findings(tables)
    patients = None if divided else _patients(table, split)
    for _, row in table_rows(table, _IMAGE_COLUMNS):
        if patients is not None and code_of(row["empi_anon"]) not in patients:
            continue
        path = text_of(row["anon_dicom_path"])
        image = where / _IMAGES / (path.removeprefix(_THEIRS) if path.startswith(_THEIRS) else path.removeprefix(f"{_IMAGES}/"))
        exam = findings.get(code_of(row["acc_anon"]))
        skip = ""
        if text_of(row["FinalImageType"]) != "2D":
            skip = "FinalImageType is not 2D"
        elif exam is None:
            skip = "no row of its exam in the clinical table"
        about = {column: row[column] for column in _IMAGE_COLUMNS}
        finding = (exam or _Exam()).finding(text_of(row["ImageLateralityFinal"]))
        yield LabelledRow(image, {**about, **finding}, split, skip)


class _Exam:
    """The first finding of an exam, and the first of each side: the one that an image is described with, as CLEFT
    does.
    """

    def __init__(self) -> None:
        self._first: Row = {}
        self._by_side: dict[str, Row] = {}

    def add(self, side: str, finding: Row) -> None:
        self._first = self._first or finding
        self._by_side.setdefault(side, finding)

    def finding(self, side: str) -> Row:
        return self._by_side.get(side, self._first)

    def merge(self, other: "_Exam") -> None:
        """What the other table says of the same findings, where this one is silent."""
        both = [(self._by_side[side], finding) for side, finding in other._by_side.items() if side in self._by_side]
        for mine, finding in (*both, (self._first, other._first)):
            for column, value in finding.items():
                mine.setdefault(column, value)


def _findings(tables: Path) -> dict[str, _Exam]:
    """By exam."""
    legend = _legend(tables)
    first = existing(tables, "EMBED_OpenData_clinical_reduced.csv", "EMBED_OpenData_clinical.csv")
    exams = _exams(first, ("acc_anon", "side", "asses", "tissueden"), legend)
    full = tables / "EMBED_OpenData_clinical.csv"
    if full != first and full.is_file():
        for exam, other in _exams(full, ("acc_anon", "side"), legend).items():
            if exam in exams:
                exams[exam].merge(other)
    return exams


def _exams(table: Path, columns: Sequence[str], legend: dict[tuple[str, str], str]) -> dict[str, _Exam]:
    exams: dict[str, _Exam] = {}
    for _, row in table_rows(table, columns):
        finding = {column: text_of(row[column]) for column in _FINDING_COLUMNS if column in row}
        for column in _CODES:
            if column in finding:
                finding[column] = legend.get((column, code_of(finding[column])), "")
        exams.setdefault(code_of(row["acc_anon"]), _Exam()).add(text_of(row["side"]), finding)
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
