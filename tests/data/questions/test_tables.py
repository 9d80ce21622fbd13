"""Questions of one's own in tables, PathVQA's files, and what `open_questions` makes of a name."""

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from biomedclip_jax.data.questions._pathvqa import read_pathvqa
from biomedclip_jax.data.questions.open import open_questions
from biomedclip_jax.data.questions.pairs import open_question_pairs
from biomedclip_jax.data.questions.table import QuestionColumns
from biomedclip_jax.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"image": "a.png", "question": "Is it an x-ray?", "answer": "Yes", "split": "train"},
    {"image": "a.png", "question": "Where?", "answer": "left, below", "split": "Training"},
    {"image": "b.png", "question": "Is it an x-ray?", "answer": "no", "split": "val"},
    {"image": "b.png", "question": "How many?", "answer": "3", "split": "test"},
    {"image": "c.png", "question": "Any?", "answer": "None", "split": "test"},
    {"image": "c.png", "question": "Empty?", "answer": "", "split": "test"},
    {"image": "", "question": "No image?", "answer": "no", "split": "test"},
    {"image": "c.png", "question": "No split?", "answer": "no", "split": "extra"},
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl", "own.parquet"])
def test_a_table_with_a_column_of_splits(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.png").write_bytes(b"b")
    data = open_questions(str(write(tmp_path / name)))
    assert data.name == "own" and data.split == "own"
    assert [(each.question, each.answer, each.closed) for each in data.train] == [
        ("Is it an x-ray?", "Yes", True),
        ("Where?", "left, below", False),
    ]
    assert [each.answer for each in data.test] == ["3", "None"] and len(data.validation) == 1
    assert data.images == {"b.png": tmp_path / "b.png"}
    assert sorted(each.reason for each in data.rejects) == [
        "answer is empty",
        "image is not named",
        "split 'extra' is none of train, validation and test",
    ]
    assert "1 of 2 test images are in the validation part, too" in data.notes
    assert any(text.startswith("2 of 3 image files are not there") for text in data.notes)


def test_two_tables_and_other_columns(tmp_path: Path) -> None:
    def rows(*answers: str) -> list[dict[str, Any]]:
        return [{"picture": "a.png", "q": "Is it?", "a": each, "answer_type": "closed"} for each in answers]

    train, test = write(tmp_path / "train.csv", rows("maybe", "yes")), write(tmp_path / "test.csv", rows("left"))
    data = open_questions(f"mine={test}", train=train, columns=QuestionColumns("picture", "q", "a"))
    assert data.name == "mine" and [each.answer for each in data.train] == ["maybe", "yes"]
    assert data.test[0].closed  # as the table says
    assert "1 of 1 test images are in the train part, too" in data.notes


def test_a_table_divided_by_image(tmp_path: Path) -> None:
    rows = [{"image": f"{n // 2}.png", "question": "Is it?", "answer": "yes"} for n in range(80)]
    table = write(tmp_path / "own.csv", rows)
    with pytest.raises(UserError, match=r"own\.csv: no column 'split' with train and test in it; .* --split ours"):
        open_questions(str(table))
    data = open_questions(str(table), split="ours")
    assert not {each.image for each in data.train} & {each.image for each in data.test}
    with pytest.raises(UserError, match="own: no split 'mevf'"):
        open_questions(str(table), split="mevf")


def test_pathvqa_of_its_authors(tmp_path: Path) -> None:
    parts = {
        "train": [{"image": "train_0001", "question": "is this a cell?", "answer": "yes"}],
        "val": [{"image": "val_0001", "question": "what is shown?", "answer": "nuclei"}],
        "test": [
            {"image": "test_0001", "question": "where?", "answer": "left"},
            {"image": "", "question": "?", "answer": "no"},
        ],
    }
    for name, rows in parts.items():
        (tmp_path / "qas" / name).mkdir(parents=True)
        (tmp_path / "qas" / name / f"{name}_qa.pkl").write_bytes(pickle.dumps(rows))
    (tmp_path / "images/test").mkdir(parents=True)
    (tmp_path / "images/test/test_0001.jpg").write_bytes(b"1")
    data = read_pathvqa(tmp_path)
    assert [len(own) for own in (data.train, data.validation, data.test)] == [1, 1, 1]
    assert data.train[0].closed and not data.test[0].closed and list(data.images) == ["test_0001"]
    assert [each.reason for each in data.rejects] == ["image is not named"]


class _Bad:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_a_pickle_that_would_run_something_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}_qa.pkl").write_bytes(pickle.dumps([_Bad()]))
    with pytest.raises(UserError, match=r"train_qa\.pkl: not readable .*it names builtins\.print, which data need not"):
        read_pathvqa(tmp_path)
    assert "run" not in capsys.readouterr().out
    (tmp_path / "train_qa.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="expected a list of objects with image, question and answer"):
        read_pathvqa(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vqa-rad", "vqa-rad: where is it"),
        ("vqa-rad=", "expected NAME=PATH"),
        ("=own.csv", "expected NAME=PATH"),
        ("nothing.csv", "no such file or folder"),
        ("mine={folder}", "a folder; say which it is"),
        ("slake={folder}", "no SLAKE here"),
        ("pathvqa={folder}", "no PathVQA here"),
        ("vqa-rad={folder}", "no VQA-RAD here"),
    ],
)
def test_a_name_that_is_nothing(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_questions(text.format(folder=tmp_path))


def test_words_for_no_value_are_no_answers(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "Which?", "answer": each, "split": "test"} for each in ("N/A", "nan", "None", "no")]
    rows.append(rows[-1] | {"split": "train"})
    data = open_questions(str(write(tmp_path / "own.csv", rows)))
    assert [each.answer for each in data.test] == ["None", "no"]
    assert [each.reason for each in data.rejects] == ["answer is missing ('N/A')", "answer is missing ('nan')"]
    assert not any("train" in text for text in data.notes if text.startswith("left out"))


def test_the_same_image_from_tables_in_two_folders(tmp_path: Path) -> None:
    """Images are named from the folder of the test table, so that moving all of it changes nothing."""
    (tmp_path / "other").mkdir()
    rows = [{"image": "../a.png", "question": "Is it?", "answer": "yes"}]
    train = write(tmp_path / "other/train.csv", rows)
    test = write(tmp_path / "test.csv", [rows[0] | {"image": "a.png"}])
    data = open_questions(str(test), train=train)
    assert data.train[0].image == data.test[0].image == "a.png"


def test_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("image,question,answer,split\n")
    with pytest.raises(UserError, match=r"own\.csv: no row with an image, a question and an answer"):
        open_questions(str(tmp_path / "own.csv"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    table = write(tmp_path / "own.csv", [{"image": "a.png", "Question": "?", "answer": "yes", "split": "test"}])
    with pytest.raises(UserError, match=r"no column 'question'; there are .*; did you mean 'Question'"):
        open_questions(str(table))


def test_whole_numbers_and_types_as_others_write_them(tmp_path: Path) -> None:
    """Pandas writes 1 as 1.0 where a cell of the column is empty; VQA calls the types of answers yes/no, number, other."""
    kinds = [("1", "number", "train"), ("1.0", "Number", "test"), ("1.5", "other", "test"), ("yes", "Yes/No", "test")]
    rows = [{"image": "a.png", "question": "Q?", "answer": a, "Answer_Type": b, "split": c} for a, b, c in kinds]
    data = open_questions(str(write(tmp_path / "own.csv", rows)))
    assert [(each.answer, each.closed) for each in data.test] == [("1", False), ("1.5", False), ("yes", True)]
    assert "an answer such as '1.0', read as '1': 1 row" in data.notes


def test_answer_types_in_some_rows_alone_are_said(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[3] | {"answer_type": "CLOSED"}]
    notes = open_questions(str(write(tmp_path / "own.jsonl", rows))).notes
    assert "answer_type is in some rows or files alone, and is not read" in notes


def test_a_column_of_splits_counts_beside_a_table_to_learn_from(tmp_path: Path) -> None:
    table = write(tmp_path / "own.csv")
    data = open_questions(str(table), train=table)
    assert [[each.answer for each in own] for own in (data.train, data.validation, data.test)] == [
        ["Yes", "left, below"],
        ["no"],
        ["3", "None"],
    ]
    assert any(text.startswith("own.csv: 2 rows of the split train, which is not what this table is") for text in data.notes)
    only = write(tmp_path / "validation.csv", [ROWS[2], ROWS[2] | {"answer": "yes"}])
    assert len(open_questions(str(only), train=table).test) == 2  # of one split alone: all of it is meant


def test_rows_that_a_run_cannot_learn_from_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    table = write(tmp_path / "own.csv", [*ROWS, ROWS[0] | {"answer": ""}, ROWS[2] | {"question": ""}])
    pairs = open_question_pairs(f"{table}:train", QuestionColumns())
    assert len(pairs) == 2 and [each.reason for each in pairs.rejects] == [
        "answer is empty",
        "split 'extra' is none of train, validation and test",
    ]
    divided = open_questions(str(write(tmp_path / "many.csv", [*_many("answer"), *_many("")])), split="ours")
    assert len(divided.rejects) + sum(map(len, divided.not_learned.values())) == 40
    assert {each.image for each in divided.not_learned["train"]} == {each.image for each in divided.train}


def _many(answer: str) -> list[dict[str, Any]]:
    return [{"image": f"{number}.png", "question": "What?", "answer": answer} for number in range(40)]


def test_half_a_letter_is_no_crash(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[3] | {"question": "How \ud83d?"}, ROWS[3] | {"image": "\ud83d.png"}]
    data = open_questions(str(write(tmp_path / "own.jsonl", rows)))
    assert [each.question for each in data.test] == ["How \ufffd?"]
    assert [each.reason for each in data.rejects] == ["image name holds half a letter"]
    assert "a letter was lost before the file was made (U+FFFD): 1 row" in data.notes


def test_too_few_images_to_divide_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no question .*there are: .* about 1 images, of which each goes to one part as a whole"
    ):
        open_questions(str(write(tmp_path / "own.csv", ROWS[:2])), split="ours")
