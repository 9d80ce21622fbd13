"""CheXpert with all of its findings: `train.csv` and `valid.csv`, 14 columns with 1.0, 0.0, -1.0 (uncertain) or nothing.

"No Finding" is no finding of its own: of the 14 columns 13 are measured. `valid.csv`, read by three radiologists, is
the test set here; `train.csv`, whose labels were taken from reports, is to learn from. The two share no patient.
Intervals are over patients.
"""

from collections.abc import Iterator
from pathlib import Path

from biomedclip_jax.data._table_rows import table_rows, text_of
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.benchmarks.chexpert import inside_release, release_root
from biomedclip_jax.data.labelled.multi_label import MultiLabelled, Policy
from biomedclip_jax.data.labelled.multi_label_table import NO_FINDING, FindingRow, multi_labelled_files, said_of_columns
from biomedclip_jax.data.pairs import Reject

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_TABLES = {"train": "train.csv", "test": "valid.csv"}


def read_chexpert_findings(name: str, where: Path, split: str, policy: Policy) -> MultiLabelled:
    """The images of "train" (train.csv) or "test" (valid.csv), frontal and lateral, with `FINDINGS`.

    What cannot be used is in `rejects`. UserError for missing tables and columns.
    """
    check_split(name, split, tuple(_TABLES))
    root = release_root(where)
    rejects: list[Reject] = []
    rows = _rows(existing(root, _TABLES[split]), root, rejects)
    return multi_labelled_files(name, FINDINGS, list(rows), rejects, policy=policy, grouped_by="patient")


def _rows(table: Path, root: Path, rejects: list[Reject]) -> Iterator[FindingRow]:
    columns = (NO_FINDING, *FINDINGS)
    for number, row in table_rows(table, ["Path", *columns], rejects=rejects):
        image = root / inside_release(text_of(row["Path"]))
        patient = next((part for part in reversed(image.parts) if part.startswith("patient")), None)
        said = said_of_columns({column: row[column] for column in columns}, NO_FINDING)
        if isinstance(said, str):
            rejects.append(Reject(str(number), str(image), said))
        else:
            yield FindingRow(str(number), image, said, group=patient)
