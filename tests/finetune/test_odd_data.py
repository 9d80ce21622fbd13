"""Data as strangers have them: what contradicts, leaks or tells nothing is refused or said, before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.own_data import divide, images, labelled, write

from biomedclip_jax.data.own_rows import Columns, read_own
from biomedclip_jax.errors import UserError
from biomedclip_jax.finetune import _besides as besides
from biomedclip_jax.finetune._besides import check_place, kept
from biomedclip_jax.finetune.main import _verdict
from biomedclip_jax.finetune.request import Request


def ask(data: Any, **more: Any) -> Request:
    return Request(model="unused", data=str(data), **more)


@pytest.mark.parametrize("column", ["patient_id", "PatientID", "patientId", "Patient ID", "PATIENT_ID", "subjectId"])
def test_one_patient_in_two_spellings_is_one(tmp_path: Path, column: str) -> None:
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 20, 0, **{column: lambda i: f"{i}.0"}))
    held_out = labelled(tmp_path, 10, first=50, **{column: lambda i: f"0{i - 50}" if i < 53 else f"q{i}"})
    parts = divide(tmp_path, data, held_out=write(tmp_path / "h.jsonl", held_out))
    assert images(parts, "train") == {f"{i}.png" for i in range(3, 20)}


def test_groups_of_columns_of_different_meaning_are_not_compared_and_that_is_said(tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 20, patient_id=lambda i: i))
    held_out = write(tmp_path / "h.jsonl", labelled(tmp_path, 10, first=50, study_id=lambda i: i - 50))
    parts = divide(tmp_path, data, held_out=held_out)
    assert len(parts.train) == 20
    assert any("nothing shows whether a patient is in both" in line and "study_id" in line for line in parts.lines)


def test_a_group_that_later_lines_have_is_asked_of_the_first_too(tmp_path: Path) -> None:
    rows = labelled(tmp_path, 20) + labelled(tmp_path, 40, first=20, patient=lambda i: f"p{i}")
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", rows))
    assert [reject.row for reject in parts.rejects] == [str(i) for i in range(1, 21)]
    assert "patient is empty" in parts.rejects[0].reason


def test_a_group_column_of_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column 'patient', because it is no table"):
        read_own(str(tmp_path), Columns(group="patient"), tmp_path)


def test_a_folder_without_classes_says_what_is_expected(tmp_path: Path) -> None:
    labelled(tmp_path, 4)
    with pytest.raises(UserError, match="no folders in it; expected a folder of pictures for each class, or a table"):
        read_own(str(tmp_path), Columns(), tmp_path)


def test_a_reject_has_the_number_of_its_own_row(tmp_path: Path) -> None:
    rows = labelled(tmp_path, 40)
    rows[2]["image"] = "missing.png"
    (tmp_path / "7.png").write_bytes(b"broken")
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", rows))
    assert [(reject.row, Path(reject.image).name) for reject in parts.rejects] == [("3", "missing.png"), ("8", "7.png")]


def test_copies_of_a_picture_with_two_labels_are_left_out(tmp_path: Path) -> None:
    rows = labelled(tmp_path, 40)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", [*rows, {"image": "copy.png", "label": "heart"}]))
    assert [Path(reject.image).name for reject in parts.rejects] == ["0.png", "copy.png"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("A", "B", "A|B"), "names several classes"),
        (("lung aca", "Lung_ACA", "x"), "say the same"),
        (("0", "1", "2"), "is a number"),
    ],
)
def test_labels_that_are_no_classes_are_refused_or_beside_captions_not_used(
    tmp_path: Path, labels: tuple[str, ...], said: str
) -> None:
    rows = [row | {"label": labels[i % 3]} for i, row in enumerate(labelled(tmp_path, 60))]
    with pytest.raises(UserError, match=said):
        divide(tmp_path, write(tmp_path / "t.jsonl", rows))
    captioned = [row | {"caption": f"text {i}"} for i, row in enumerate(rows)]
    parts = divide(tmp_path, write(tmp_path / "u.jsonl", captioned))
    assert not parts.classes and not parts.labelled
    assert any("only the captions are used" in line and said in line for line in parts.lines)


def test_held_out_labels_that_nothing_was_learned_of_are_refused(tmp_path: Path) -> None:
    other = [row | {"label": f"other {i % 2}"} for i, row in enumerate(labelled(tmp_path, 10, first=50))]
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 20))
    with pytest.raises(UserError, match=r"its labels \(other 0, other 1\) are none of the training data's \(heart, lung_aca\)"):
        divide(tmp_path, data, held_out=write(tmp_path / "h.jsonl", other))


def test_held_out_rows_of_one_caption_are_refused(tmp_path: Path) -> None:
    rows = [{"image": row["image"], "caption": "the same" if i else "other"} for i, row in enumerate(labelled(tmp_path, 40))]
    with pytest.raises(UserError, match="pictures of the part validation are 'the same'; expected two or more"):
        divide(tmp_path, write(tmp_path / "t.jsonl", rows))


def test_a_split_beside_held_out_data_is_no_training_data(tmp_path: Path) -> None:
    split = {"split": lambda i: ("train", "test")[i // 2 % 2]}
    data = write(tmp_path / "t.jsonl", labelled(tmp_path, 40, 0, **split))
    held_out = write(tmp_path / "h.jsonl", labelled(tmp_path, 10, first=50))
    with pytest.raises(UserError, match=r"with --held-out take one split of it, such as .*t.jsonl:train"):
        divide(tmp_path, data, held_out=held_out)
    assert len(divide(tmp_path, f"{data}:train", held_out=held_out).train) == 20
    with pytest.raises(UserError, match=r"h.jsonl: some of its rows are of the split train"):
        divide(tmp_path, f"{data}:train", held_out=write(tmp_path / "h.jsonl", labelled(tmp_path, 10, first=50, split="train")))


def test_words_that_are_no_split_are_named(tmp_path: Path) -> None:
    rows = labelled(tmp_path, 40, split=lambda i: ("train", "holdout")[i // 2 % 2])
    with pytest.raises(UserError, match=r"of the split train alone.*split 'holdout' is none of"):
        divide(tmp_path, write(tmp_path / "t.jsonl", rows))


def test_validation_rows_of_a_tested_group_are_left_out_with_a_line(tmp_path: Path) -> None:
    split = {
        "split": lambda i: ("train", "val", "test")[i // 2 % 3],
        "patient": lambda i: f"p{0 if i in (2, 4) else i}" if i else "q",
    }
    parts = divide(tmp_path, write(tmp_path / "t.jsonl", labelled(tmp_path, 60, **split)))
    assert "2.png" not in images(parts, "validation")
    assert any("1 validation rows have" in line for line in parts.lines)


def test_training_pictures_are_no_forgetting_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = labelled(tmp_path, 30)
    train = read_own(write(tmp_path / "t.jsonl", rows), Columns(), tmp_path).rows
    parts: Any = SimpleNamespace(train=train)
    with pytest.raises(UserError, match="each of its pictures is in the training data"):
        kept(ask("t", keep=str(tmp_path / "t.jsonl")), parts, tmp_path / "out")
    more = write(tmp_path / "k.jsonl", rows[:3] + labelled(tmp_path, 20, first=50))
    keep = kept(ask("t", keep=more), parts, tmp_path / "out")
    assert keep is not None and keep.choice.rows == keep.judged.rows and len(keep.judged.rows) == 20
    said = capsys.readouterr().out
    assert "3 of its 23 pictures are in the training data, too: left out" in said
    assert "its 20 rows are too few to halve" in said


def test_a_large_forgetting_check_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(besides, "_FEWEST_HALVED", 20)
    parts: Any = SimpleNamespace(train=read_own(write(tmp_path / "t.jsonl", labelled(tmp_path, 4)), Columns(), tmp_path).rows)
    check = write(tmp_path / "k.jsonl", labelled(tmp_path, 20, first=50))
    keep = kept(ask("t", keep=check), parts, tmp_path / "out")
    assert keep is not None and len(keep.choice.rows) == len(keep.judged.rows) == 10
    assert not {row.image for row in keep.choice.rows} & {row.image for row in keep.judged.rows}
    assert {row.label for row in keep.choice.rows} == {row.label for row in keep.judged.rows}, "each label by turns"
    assert "too few to halve" not in capsys.readouterr().out


def test_out_neither_holds_nor_lies_in_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = tmp_path / "data" / "train.jsonl"
    table.write_text("{}")
    for data in (table, f"{table}:train"):
        with pytest.raises(UserError, match="which is read; choose a folder of its own"):
            check_place(ask(data), tmp_path)
    with pytest.raises(UserError, match="whose pictures are read; choose a folder outside it"):
        check_place(ask(tmp_path / "data"), tmp_path / "data" / "out")
    check_place(ask(table), tmp_path / "data" / "out")


@pytest.mark.parametrize("field", ["rate", "epochs"])
def test_numbers_without_end_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"{field} = inf: expected"):
        ask("t", **{field: float("inf")})


@pytest.mark.parametrize(("gain", "said"), [(0.1, "It got better:"), (0.0, "Its scores are the same")])
def test_only_a_higher_score_is_called_better(tmp_path: Path, gain: float, said: str) -> None:
    comparison: Any = SimpleNamespace(gain=gain, certain=True)
    about = {"step": 3, "share_of_trained_weights": 1}
    assert _verdict(comparison, "best", about, tmp_path, [])[0].startswith(said)
