"""NIH ChestX-ray14's own layout: one table, two lists, images in one folder or in those of the archives."""

from pathlib import Path

import pytest

from biomedclip_jax.data.benchmarks.nih import FINDINGS
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.benchmarks import benchmark, load_benchmark, load_findings

HEADER = (  # with commas inside of names, and one at the end
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],"
    "OriginalImagePixelSpacing[x,y],"
)
ROWS = [
    ("00000001_000.png", "Cardiomegaly|Emphysema", 1),
    ("00000001_001.png", "No Finding", 1),
    ("00000002_000.png", "Pleural_Thickening", 2),
    ("00000003_000.png", "Hernia|Hernia", 3),
    ("00000004_000.png", "", 4),
    ("00000005_000.png", "No Finding|Mass", 5),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "nih"
    for archive in ("images_001", "images_012"):
        (root / archive / "images").mkdir(parents=True)
    lines = [HEADER, *(f"{name},{labels},0,{who},058Y,M,PA,2682,2749,0.143,0.143," for name, labels, who in ROWS)]
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    for name, _, who in ROWS:
        (root / ("images_001" if who < 3 else "images_012") / "images" / name).touch()
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (root / "test_list.txt").write_text("\n".join([*(name for name, *_ in ROWS[2:]), "00000009_000.png", "00000002_000.png"]))
    return tmp_path


def test_both_lists(folder: Path) -> None:
    train, test = load_findings("nih-chestxray14", folder, "train"), load_findings("nih-chestxray14", folder / "nih")
    assert train.findings == test.findings == FINDINGS
    assert [FINDINGS[i] for i in train.labels[0].nonzero()[0]] == ["Cardiomegaly", "Emphysema"] and not train.labels[1].any()
    assert [Path(name).name for name in test.names] == ["00000002_000.png", "00000003_000.png"]
    assert test.groups == ("2", "3") and train.groups == ("1", "1") and test.grouped_by == "patient"
    assert test.labels.sum(axis=1).tolist() == [1, 1] and test.whole == 25_596 and train.whole == 86_524
    assert [(Path(reject.image).name, reject.reason) for reject in test.rejects] == [
        ("00000004_000.png", "has no label"),
        ("00000005_000.png", "says both 'No Finding' and a finding"),
        ("00000009_000.png", "is not in Data_Entry_2017.csv"),
    ]
    assert not test.policy_said


def test_what_is_missing(folder: Path) -> None:
    (folder / "nih" / "images_012" / "images" / "00000003_000.png").unlink()
    (reject, *_) = [each for each in load_findings("nih-chestxray14", folder).rejects if "0003" in each.image]
    assert reject.reason == "image file is not there"
    (folder / "nih" / "test_list.txt").unlink()
    with pytest.raises(UserError, match=r"no test_list\.txt\. NIH ChestX-ray14 is to be fetched by hand"):
        load_findings("nih-chestxray14", folder)
    with pytest.raises(UserError, match="no split 'validation'"):
        load_findings("nih-chestxray14", folder, "validation")


def test_an_unknown_finding(folder: Path) -> None:
    path = folder / "nih" / "Data_Entry_2017.csv"
    path.write_text(path.read_text().replace("Emphysema", "Emphysemas"))
    with pytest.raises(UserError, match=r"00000001_000\.png: unknown finding 'Emphysemas'; expected some of Atelectasis"):
        load_findings("nih-chestxray14", folder, "train")


def test_words_for_the_findings() -> None:
    row = benchmark("nih-chestxray14")
    assert row.multi_label and not benchmark("rsna").multi_label
    assert row.classes == tuple(name.lower().replace("_", " ") for name in FINDINGS)
    assert row.finding_prompts.positive.sentences[12] == ("pleural thickening",)
    assert row.finding_prompts.negative.sentences[12] == ("no pleural thickening",)


def test_it_is_no_choice_of_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an image may have several findings there"):
        load_benchmark("nih-chestxray14", tmp_path)
