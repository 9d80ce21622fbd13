"""All findings of CheXpert: train.csv with uncertain and empty labels, valid.csv as the test set."""

from pathlib import Path

import pytest
from PIL import Image

from biomedclip_jax.data.benchmarks.chexpert_findings import FINDINGS
from biomedclip_jax.evaluation.benchmarks import benchmark, load_findings

COLUMNS = ["No Finding", *FINDINGS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "chexpert"
    tables = {
        "train": [
            {"Edema": "1.0", "Mass": ""},
            {"Edema": "-1.0", "Pneumonia": "0.0"},
            {"No Finding": "1.0", "Support Devices": "1.0"},
        ],
        "valid": [dict.fromkeys(COLUMNS, "0.0") | {"Edema": "1.0"}, dict.fromkeys(COLUMNS, "0.0") | {"No Finding": "1.0"}],
    }
    for split, rows in tables.items():
        lines = ["Path,Sex," + ",".join(COLUMNS)]
        for number, row in enumerate(rows):
            image = f"{split}/patient{number:05d}/study1/view1_{'frontal' if number else 'lateral'}.jpg"
            (root / image).parent.mkdir(parents=True)
            Image.new("L", (8, 8)).save(root / image)
            lines.append(f"CheXpert-v1.0-small/{image},Male," + ",".join(row.get(column, "") for column in COLUMNS))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_test_is_valid_csv(folder: Path) -> None:
    data = load_findings("chexpert-14", folder)
    assert data.findings == FINDINGS and len(data) == 2 and data.whole == 234
    assert data.answers[0].tolist() == [int(name == "Edema") for name in FINDINGS] and not data.answers[1].any()
    assert data.policy_said == []


def test_train_has_policies(folder: Path) -> None:
    """What the report does not mention is absent, what is uncertain counts for nothing, unless the user says otherwise."""
    data = load_findings("chexpert-14", folder, "train")
    edema, devices = FINDINGS.index("Edema"), FINDINGS.index("Support Devices")
    assert data.answers[:, edema].tolist() == [1, -1, 0] and data.answers[:, devices].tolist() == [0, 0, 1]
    assert data.answers.min(axis=0).tolist() == [-1 if f == edema else 0 for f in range(len(FINDINGS))]
    assert [said.partition(" are ")[2] for said in data.policy_said] == [
        "uncertain labels, left out",
        "empty labels, counted as negative",
    ]
    other = load_findings("chexpert-14", folder, "train", uncertain="positive", empty="ignore")
    assert other.answers[:, edema].tolist() == [1, 1, 0] and (other.answers[0] == -1).sum() == len(FINDINGS) - 1


def test_prompts_have_a_phrase_for_each_column() -> None:
    assert benchmark("chexpert-14").classes == tuple(name.lower() for name in FINDINGS)
