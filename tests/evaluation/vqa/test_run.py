"""`biomedclip evaluate vqa --blind`, as it is called: rows, tables, and one line for what is wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from biomedclip_jax.cli.main import main
from biomedclip_jax.evaluation.report.results import read_results

Captured = pytest.CaptureFixture[str]
MODELS = [
    "blind: most frequent answer of the type",
    "blind: most frequent answer to the same question",
    "blind: nearest training question",
    "blind: nearest training question on the same image",
]


def row(qid: int, image: int, question: str, answer: str, phrase: str = "freeform") -> dict[str, Any]:
    kind = "CLOSED" if answer in ("yes", "no") else "OPEN"
    own = {"qid": qid, "image_name": f"synpic{image}.jpg", "answer": answer, "answer_type": kind, "question_type": "PRES"}
    return own | {"question": question, "phrase_type": phrase}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MEVF's layout: 12 images, each with a test question whose second wording is in training, and one without."""
    train, test = [], []
    for n in range(12):
        answer = "yes" if n % 3 else "no"
        train += [row(10 * n, n, f"Is organ{n} large?", "no"), row(10 * n + 4, n, f"Where is organ{n}?", f"at {n % 4}")]
        test += [row(10 * n + 6, n, f"Is there fluid by organ{n}?", answer), row(10 * n + 8, n, "What is it?", "ct")]
        train += [row(10 * n + 7, n, f"Is/Are there fluid by organ{n}?", answer, "frame")]
    made = tmp_path / "vqa"
    made.mkdir()
    (made / "trainset.json").write_text(json.dumps(train))
    (made / "testset.json").write_text(json.dumps(test))
    return made


def run(*words: object) -> int:
    return main(["evaluate", "vqa", "--blind", "--resamples", "50", *map(str, words)])


def test_rows_and_tables(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    for split in ([], ["--split", "mevf"], ["--split", "mevf"]):  # again: it replaces its rows
        assert run("--data", f"vqa-rad={folder}", "--out", out, *split) == 0
    printed = capsys.readouterr().out
    assert "vqa-rad, split official: 24 training, 0 validation and 24 test questions (12 closed, 12 open)" in printed
    assert "12 of 12 test images are in the train part, too" in printed
    assert "token F1 counts" in printed and "this split leaks" in printed
    rows = json.loads((out / "results.json").read_text())
    assert [(each["model"], each["split"]) for each in rows] == [(m, s) for s in ("official", "mevf") for m in MODELS]
    assert all(each["task"] == "vqa" and each["dataset"] == "vqa-rad" and each["n"] == 24 for each in rows)
    for each in rows:
        assert {"accuracy", "accuracy_open", "accuracy_closed", "token_f1", "vocabulary_reach"} <= each.keys()
        assert each["vocabulary_reach"] == pytest.approx(1 / 2 if each["split"] == "mevf" else 4 / 24)  # no "yes", no "ct"
        assert 0 <= each.get("intervals", {}).get("accuracy", [0, 1])[0] <= each["accuracy"]
        assert ("accuracy_leaked" in each) == (each["split"] == "mevf")
    by_name = {(each["model"], each["split"]): each for each in rows}
    leak, sound = by_name[MODELS[3], "mevf"], by_name[MODELS[3], "official"]
    assert leak["accuracy_leaked"] == 1 and leak["accuracy_not_leaked"] == 0 and leak["accuracy_closed"] == 1
    assert sound["accuracy_closed"] == pytest.approx(1 / 3)
    assert leak["settings"]["vocabulary"] == "train" and leak["details"]["leaked_questions"] == 12
    assert len({each["id"] for each in rows}) == len(rows) == len(read_results(out))
    shown = (out / "results.md").read_text()
    for text in (
        "## Question answering: vqa-rad, split official, 24 test questions",
        "## Leaked questions: vqa-rad, split mevf, 24 test questions",
        "| paper: BiomedCLIP (METER) | 72.70 | 76.50 | 67.00 | 73.13 |",
        "12 of 24 test questions have a paraphrase of their own",
        "no other split can be compared",
        "not its numbers",
        "## Differences, vqa: vqa-rad, split mevf, 24 test questions",
        "| PRES (24) |",
    ):
        assert text in shown
    assert "Question answering: vqa-rad, split mevf" in (out / "report.html").read_text()
    with (out / "answers/vqa-rad_mevf.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 24 and table[0][MODELS[3]] == table[0]["answer"] == "no" and table[0]["id"] == "6"


def test_a_table_and_the_vocabulary_of_others(tmp_path: Path, capsys: Captured) -> None:
    table = tmp_path / "own.csv"
    table.write_text("image,question,answer,split\na.png,Is it?,yes,train\nb.png,Where?,left,test\nb.png,Is it?,,test\n")
    assert run("--data", table, "--out", tmp_path / "out", "--vocabulary", "train+test") == 0
    rows = read_results(tmp_path / "out")
    assert [each.metrics["vocabulary_reach"] for each in rows] == [1.0] * 4 and rows[0].dataset == "own"
    assert rows[0].left_out.startswith("left out: 1 (answer is empty 1)") and rows[0].n == 1
    assert "paper" not in (tmp_path / "out/results.md").read_text()
    assert "2 different answers (train+test)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "vqa", "--data", "x", "--out", "o"], "expected a model that answers questions, or --blind"),
        (["evaluate", "vqa", "model", "--blind", "--data", "x", "--out", "o"], "--blind measures no model"),
        (["evaluate", "vqa", "--blind", "--out", "o"], "--data: expected vqa-rad=DIR"),
        (["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}"], "--out DIR: expected a folder"),
        (["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}", "--out", "o", "--language", "zh"], "is of slake"),
        (
            ["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}", "--out", "o", "--train", "t"],
            "has its own training part",
        ),
        (["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}", "--out", "o", "--split", "own"], "no split 'own'"),
        (["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}", "--out", "o", "--labels", "5"], "is of other tasks"),
        (["evaluate", "vqa", "--blind", "--data", "slake={folder}", "--out", "o"], "no SLAKE here"),
        (["evaluate", "zero-shot", "m", "--data", "x", "--out", "o", "--blind"], "--blind: is of the task vqa"),
        (
            ["evaluate", "vqa", "--blind", "--data", "vqa-rad={folder}", "vqa-rad={folder}", "--out", "o"],
            "two sources are called 'vqa-rad'",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, capsys: Captured, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(folder=folder) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "o").exists()


def test_names_that_are_alike_have_answers_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("image,question,answer,split\na.png,Is it?,yes,train\nb.png,Where?,left,test\n")
    assert run("--data", f"a b={table}", f"a-b={table}", "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out/answers").iterdir())) == 2
