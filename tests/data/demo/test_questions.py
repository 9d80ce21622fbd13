"""The demo's questions: true answers, all of them equally often, no pixel in both splits, the same bytes every time."""

import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.demo import _question_facts as facts
from biomedclip_jax.data.demo import _questions as demo
from biomedclip_jax.data.demo import _quickstart as quickstart
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.table import read_question_table
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.vqa._baselines import NEAREST, OF_TYPE, SAME_IMAGE, SAME_QUESTION, blind_answers

SPLITS = ("train", "held_out")
CONTEXT_LENGTH = 32  # what the quickstart's text tower reads of a question
WORDS = 12  # what QCR's question encoder reads of one
Row = dict[str, str]
Box = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With fewer training regions than the demo has."""
    folder = tmp_path_factory.mktemp("vqa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "TRAIN_REGIONS", 50)
        demo.make_vqa_demo(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["data", "questions"]
        yield folder


@pytest.fixture(scope="module")
def rows(workdir: Path) -> dict[str, list[Row]]:
    return {split: read(workdir / "questions" / f"{split}.csv") for split in SPLITS}


@pytest.fixture(scope="module")
def regions(workdir: Path) -> dict[str, Row]:
    """The rows of the quickstart's tables, by the image's name in the tables of questions."""
    return {f"../data/{row['image']}": row for split in SPLITS for row in read(workdir / "data" / f"{split}.csv")}


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_kind(rows: dict[str, list[Row]], kind: str, answer_type: str) -> list[Row]:
    found = [
        row for split in SPLITS for row in rows[split] if (row["question_type"], row["answer_type"]) == (kind, answer_type)
    ]
    assert found
    return found


def known(row: Row) -> facts.Known:
    return facts.KNOWN[Path(row["source"]).name]


def test_tables(workdir: Path, rows: dict[str, list[Row]]) -> None:
    for split, least, most in (("train", 1_500, 3_000), ("held_out", 300, 600)):
        assert least < len(rows[split]) < most
        assert tuple(rows[split][0]) == demo.COLUMNS
        asked = [(row["image"], row["question"]) for row in rows[split]]
        assert len(set(asked)) == len(asked)
        assert all((workdir / "questions" / image).is_file() for image, _ in asked)
    data = read_question_table("demo", workdir / "questions" / "held_out.csv", workdir / "questions" / "train.csv")
    assert [len(data.train), len(data.test), len(data.rejects)] == [len(rows["train"]), len(rows["held_out"]), 0]
    assert data.images.keys() == {each.image for each in (*data.train, *data.test)}
    assert [each.closed for each in data.test] == [row["answer_type"] == "closed" for row in rows["held_out"]]


def test_every_answer_of_a_question_is_right_equally_often(rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        counts: dict[str, Counter[str]] = {}
        for row in rows[split]:
            counts.setdefault(row["question"], Counter())[row["answer"]] += 1
        for question, answers in counts.items():
            assert len(set(answers.values())) == 1 and len(answers) > 1, (split, question, answers)
            if question.split()[0] not in ("what", "which", "how", "where", "by", "of", "in"):
                assert answers.keys() == {"yes", "no"} or all(answer.split()[0] in question for answer in answers), question


def test_both_splits_have_the_same_kinds_and_answers(rows: dict[str, list[Row]]) -> None:
    train, held_out = ({(row["question_type"], row["answer_type"], row["answer"]) for row in rows[split]} for split in SPLITS)
    assert train == held_out
    texts = {row["question"] for row in rows["train"]}
    seen = sum(row["question"] in texts for row in rows["held_out"])
    assert seen > 0.8 * len(rows["held_out"])


def test_no_pixel_is_in_both_splits(rows: dict[str, list[Row]], regions: dict[str, Row]) -> None:
    boxes: dict[str, dict[str, set[Box]]] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for row in rows[split]:
            region = regions[row["image"]]
            assert row["source"] == region["source"]
            boxes[split].setdefault(row["source"], set()).add(box_of(region))
    assert boxes["train"].keys() == boxes["held_out"].keys()
    for source, held_out in boxes["held_out"].items():
        for a in held_out:
            assert not any(overlap(a, b) for b in boxes["train"][source])


def box_of(region: Row) -> Box:
    x0, y0, x1, y1 = map(int, region["region"].split())
    return x0, y0, x1, y1


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("kind", ["modality", "organ", "view", "plane"])
def test_open_answers_and_choices_are_what_is_known_of_the_picture(rows: dict[str, list[Row]], kind: str) -> None:
    for row in of_kind(rows, kind, "open"):
        assert row["answer"] == getattr(known(row), kind)
    for row in of_kind(rows, kind, "closed"):
        if row["answer"] not in ("yes", "no"):
            assert row["answer"] == getattr(known(row), kind)
            assert row["answer"].split()[0] in row["question"] and " or " in row["question"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("modality", lambda region, each: facts.A_MODALITY[each.modality]),
        ("organ", lambda region, each: each.organ),
        ("view", lambda region, each: each.view),
        ("plane", lambda region, each: each.plane),
    ],
)
def test_yes_is_said_where_the_question_names_what_is_known(
    rows: dict[str, list[Row]], regions: dict[str, Row], kind: str, named: Callable[[Row, facts.Known], str | None]
) -> None:
    for row in of_kind(rows, kind, "closed"):
        if row["answer"] in ("yes", "no"):
            name = named(regions[row["image"]], known(row))
            assert (name is not None and f" {name}" in row["question"]) == (row["answer"] == "yes"), row


def test_kinds_of_picture(rows: dict[str, list[Row]], regions: dict[str, Row]) -> None:
    for row in of_kind(rows, "kind of picture", "closed"):
        phrases = quickstart.MODALITIES[regions[row["image"]]["label"]]
        assert any(phrase.lower() in row["question"] for phrase in phrases) == (row["answer"] == "yes"), row


def test_what_is_said_to_show_shows_and_nothing_of_what_is_said_not_to(
    rows: dict[str, list[Row]], regions: dict[str, Row]
) -> None:
    sources = {source.path: source for source in quickstart.SOURCES}
    sizes = {path: load_image(quickstart.find_packages()[path.split("/")[0]].parent / path).size for path in sources}
    in_its_picture = 0
    for row in of_kind(rows, "presence", "closed"):
        name = next((name for name in facts.STRUCTURES if name in row["question"]), None)
        if name is None:
            assert " flow " in row["question"] and known(row).modality == "ultrasound"
            continue
        source, size = sources[row["source"]], sizes[row["source"]]
        box, marks = box_of(regions[row["image"]]), facts.STRUCTURES[name].marks
        if row["answer"] == "yes":
            assert set(quickstart.visible(source, box, *size)).intersection(marks), row
        else:
            assert source.label not in facts.STRUCTURES[name].unsure
            places = [place for mark in marks for place in source.landmarks.get(mark, "").split(",") if place]
            in_its_picture += bool(places)
            for place in places:
                assert not overlap(quickstart.to_pixels([int(number) for number in place.split()], *size), box), row
    assert in_its_picture > 20, "some questions cannot be answered by the kind of picture"


def test_marks_are_landmarks() -> None:
    landmarks = {name for source in quickstart.SOURCES for name in source.landmarks}
    for name, structure in facts.STRUCTURES.items():
        assert {*structure.marks, *structure.near} <= landmarks, name
        assert set(structure.unsure) <= quickstart.MODALITIES.keys(), name
    assert set(facts.FLOWS) <= landmarks and len(facts.KNOWN) == len(quickstart.SOURCES)


def test_colours_are_those_of_the_pixels(workdir: Path, rows: dict[str, list[Row]]) -> None:
    for row in of_kind(rows, "colour", "closed"):
        pixels = np.asarray(Image.open(workdir / "questions" / row["image"]).convert("RGB")).astype(int)
        share = (np.ptp(pixels, axis=2) > 40).mean()
        assert share <= demo.GRAY or share >= demo.COLOURED
        coloured = share >= demo.COLOURED
        said = {"colour": True, "gray": False}.get(row["answer"])
        if said is None:  # yes or no
            said = (row["answer"] == "yes") == ("colour" in row["question"])
        assert said == coloured, row


def test_answers_are_in_the_form_in_which_they_are_compared(rows: dict[str, list[Row]]) -> None:
    answers = {row["answer"] for split in SPLITS for row in rows[split]}
    assert {answer for answer in answers if normalised(answer) != answer} == set()
    assert 20 < len(answers) < 50


def test_words_alone_do_not_tell(workdir: Path) -> None:
    """Fewer training regions leave more held-out questions that were never asked, which is no help."""
    data = read_question_table("demo", workdir / "questions" / "held_out.csv", workdir / "questions" / "train.csv")
    found = {each.model: each.answers for each in blind_answers(data)}
    assert found.keys() == {OF_TYPE, SAME_QUESTION, NEAREST, SAME_IMAGE}
    for model, answers in found.items():
        right = np.array([answer == each.answer for answer, each in zip(answers, data.test, strict=True)])
        closed = np.array([each.closed for each in data.test])
        assert right.mean() < 0.45 and right[closed].mean() < 0.52 and right[~closed].mean() < 0.25, model


def test_every_word_has_a_token_and_nothing_is_cut(workdir: Path, rows: dict[str, list[Row]]) -> None:
    texts = sorted({row["question"] for split in SPLITS for row in rows[split]})
    captions = [row["caption"] for row in read(workdir / "data" / "train.csv")]
    assert max(len(text.split()) for text in texts) <= WORDS
    own, others = (
        (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        for folder in (workdir / "questions" / "tokenizer", workdir / "data" / "tokenizer")
    )
    assert len(set(own)) == len(own) <= 512
    assert own[: len(others)] == others, "a tower that knows the quickstart's tokens knows these"
    tokens = Tokenizer(workdir / "questions" / "tokenizer", CONTEXT_LENGTH, 0, 512)([*texts, *captions])
    pieces = [index for index, token in enumerate(own) if token.startswith("##")]
    assert not np.isin(tokens, [own.index("[UNK]"), *pieces]).any()
    assert (tokens[: len(texts), 18:] == 0).all(), "12 words, x-ray as three of them, a question mark and both ends"
    spelled = Tokenizer(workdir / "data" / "tokenizer", 128, 0, 512)(texts)
    assert not (spelled == others.index("[UNK]")).any(), "the quickstart's own tokenizer spells them"


def test_another_process_writes_the_same_bytes(workdir: Path, tmp_path: Path) -> None:
    command = (
        "import sys; from pathlib import Path; import biomedclip_jax.data.demo._questions as d; "
        "d._fill(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(demo.__file__).parents[3])}
    arguments = [sys.executable, "-W", "error", "-c", command, tmp_path, workdir / "data"]
    subprocess.run(arguments, check=True, env=environment)
    first, again = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (workdir / "questions", tmp_path)
    )
    assert first == again and len(first) == 5


def test_complete_questions_are_left_alone(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_fill", lambda *_: pytest.fail("written again"))
    demo.make_vqa_demo(workdir)


def test_an_interrupted_run_leaves_no_questions(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").symlink_to(workdir / "data")

    def interrupt(folder: Path, data: Path) -> None:
        (folder / "train.csv").write_text("half")
        raise UserError("power cut")

    monkeypatch.setattr(demo, "_fill", interrupt)
    with pytest.raises(UserError, match="power cut"):
        demo.make_vqa_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
