"""VQA-RAD in its three forms, with the oddities of its real files, on small ones of the same layout."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biomedclip_jax.data.questions._vqa_rad import question_types, read_vqa_rad
from biomedclip_jax.errors import UserError

Write = Callable[..., Path]


def row(qid: Any, image: int, question: str, answer: Any, phrase: str = "freeform", **more: Any) -> dict[str, Any]:
    """A row of MEVF's files."""
    kind = "CLOSED" if answer in ("yes", "no") else "OPEN"
    own = {"qid": qid, "image_name": f"synpic{image}.jpg", "image_organ": "HEAD", "answer": answer, "answer_type": kind}
    return own | {"question_type": "PRES", "question": question, "phrase_type": phrase} | more


# A question, its second wording (numbered one above), the question in other words, and that one's second wording.
# Image 1 is in both parts, as all test images of the data set are; 2 is of a test question alone, 3 of training alone.
TRAIN = [
    row(1, 1, "Is the heart large?", "no"),
    row(2, 1, "Is/Are the heart large?", "no", "frame"),
    row(5, 1, "Is/Are there fluid?", "yes", "frame"),  # of the test question 4
    row(7, 1, "Is/Are there fluid?", "yes", "frame"),  # of the test question 6, which is 4 in other words
    row(8, 3, "Where is the mass?", "left lobe"),
    row(9, 3, "Where is/are the mass?", "left lobe", "frame"),
    row(12, 1, "Is/Are there fluid?", "no", "frame"),  # word for word that of a test question, made from 11
    row(11, 1, "Is fluid there, below?", "no"),
]
TEST = [
    row(4, 1, "Is there fluid?", "yes"),
    row(6, 1, "Do you see fluid?", "yes", "para"),
    row(10, 2, "What organ is this?", "brain"),
    row(13, 1, "IS the heart large?", "no"),  # stands word for word in the training part
]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the rows as MEVF's two files, with images."""

    def write(train: Any = TRAIN, test: Any = TEST) -> Path:
        (tmp_path / "trainset.json").write_text(json.dumps(train), encoding="utf-8")
        (tmp_path / "testset.json").write_text(json.dumps(test), encoding="utf-8")
        (tmp_path / "images").mkdir(exist_ok=True)
        for image in range(1, 5):
            (tmp_path / "images" / f"synpic{image}.jpg").write_bytes(b"%d" % image)
        return tmp_path

    return write


def test_the_three_splits_of_two_files(write: Write) -> None:
    folder = write()
    official, clean, mevf = (read_vqa_rad(folder, split) for split in ("official", "clean", "mevf"))
    assert [each.id for each in official.train] == ["1", "8", "11"]
    assert [each.id for each in clean.train] == ["1", "2", "8", "9", "11"]
    assert [each.id for each in mevf.train] == ["1", "2", "5", "7", "8", "9", "12", "11"]
    for data in (official, clean, mevf):
        assert [each.id for each in data.test] == ["4", "6", "10", "13"]
        assert any(text.startswith("1 of 2 test images are in the train part") for text in data.notes)
        assert any(text.startswith("1 test questions stand word for word") for text in data.notes)
        assert any("not its numbers" in text for text in data.caveats)
        assert "1 images that no question is about: synpic4.jpg" in data.notes
    assert official.leaked is clean.leaked is None
    assert mevf.leaked == (True, True, False, False)
    assert any("2 of 4 test questions have a paraphrase" in text for text in mevf.caveats)
    assert read_vqa_rad(folder).split == "official"


def public(test: bool, frame: str = "NULL", **own: Any) -> dict[str, Any]:
    """A row of the official file: other numbers, the second wording in a column, the test marked in phrase_type."""
    phrase = own["phrase_type"]
    own |= {"phrase_type": f"test_{phrase}" if test else phrase, "question_frame": frame, "qid_linked_id": "x"}
    return own | {"qid": str(own["qid"])}


PUBLIC = [
    public(False, "Is/Are the heart large?", **TRAIN[0]),
    public(True, " Is/Are there fluid?", **TEST[0]),
    public(True, "Is/Are there fluid?", **TEST[1]),
    public(False, "Where is/are the mass?", **TRAIN[4]),
    public(True, **TEST[2]),
    public(False, "Is/Are there fluid?", **TRAIN[7]),
    public(True, **TEST[3]),
]
del PUBLIC[4]["question_frame"]  # it is missing in some rows


@pytest.mark.parametrize("split", ["official", "clean", "mevf"])
def test_the_official_file_gives_the_same(write: Write, tmp_path: Path, split: str) -> None:
    two = read_vqa_rad(write(), split)
    one = tmp_path / "one"
    one.mkdir()
    file = one / "VQA_RAD Dataset Public.json"
    file.write_text(json.dumps(PUBLIC), encoding="utf-8-sig")
    for where in (one, file):
        data = read_vqa_rad(where, split)
        for part in ("train", "test"):
            own, other = (
                sorted((each.image, each.question, each.answer, each.closed) for each in found.part(part))
                for found in (data, two)
            )
            assert own == other
        assert data.leaked == two.leaked


def test_the_official_file_beside_the_two_tells_what_numbers_do_not(write: Write, tmp_path: Path) -> None:
    """Where a second wording's number says nothing, its text does; without both it counts as one that may leak."""
    train = [each | ({"qid": 100 + each["qid"]} if each["phrase_type"] == "frame" else {}) for each in TRAIN]
    folder = write(train)
    alone = read_vqa_rad(folder, "clean")
    assert [each.id for each in alone.train] == ["1", "8", "11"]
    assert any(text.startswith("5 second wordings of a question that is not here") for text in alone.notes)
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(PUBLIC))
    # both wordings of fluid are known to be of test questions; the others are known not to be
    assert [each.id for each in read_vqa_rad(folder, "clean").train] == ["1", "102", "8", "109", "11"]
    assert read_vqa_rad(folder, "mevf").leaked == (True, True, False, False)


def test_ours_divides_the_official_questions_by_image(write: Write) -> None:
    rows = [row(3 * n, n // 2, f"Is this {n}?", "yes") for n in range(80)]
    frames = [row(3 * n + 1, n // 2, f"Is/Are this {n}?", "yes", "frame") for n in range(40)]
    data = read_vqa_rad(write(rows[:60] + frames, rows[60:]), "ours")
    parts = [{each.image for each in own} for own in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40 and all(parts)
    assert sum(map(len, (data.train, data.validation, data.test))) == 80
    assert any("divided by image" in text for text in data.notes) and not data.caveats


def test_oddities_of_the_real_rows(write: Write) -> None:
    odd = [
        row(21, 1, "Is it closed?", "yes", answer_type="CLOSED "),
        row(22, 1, "How many?", 4, question_type="ATRIB, PRES"),
        row(23, 1, "Which \torgans?", " lungs \tbony thoracic cavit y\tvessels ", question_type="Other"),
        row(24, 1, "How can you tell if it\ufffds a duct?", "trace it"),
        row(25, 1, "Empty?", ""),
        row(26, 1, "Null?", None),
        row(27, 1, "List?", ["yes"]),
        row(28, 1, "Type?", "yes", answer_type="MAYBE"),
        row(29, 1, "", "yes"),
        row(30, 1, "None?", "None"),
    ]
    data = read_vqa_rad(write([row(1, 2, "Is?", "no")], odd))
    assert [each.id for each in data.test] == ["21", "22", "23", "24", "30"]
    closed, number, tabs, lost, none = data.test
    assert closed.closed and not number.closed
    assert number.answer == "4" and number.types == ("ATTRIB", "PRES") and tabs.types == ("OTHER",)
    assert tabs.question == "Which organs?" and tabs.answer == "lungs bony thoracic cavit y vessels"
    assert "\ufffd" in lost.question and none.answer == "None"
    assert {each.row: each.reason for each in data.rejects} == {
        "25": "answer is empty",
        "26": "answer is empty",
        "27": "answer is no text",
        "28": "answer type 'MAYBE' is neither OPEN nor CLOSED",
        "29": "question is empty",
    }
    for expected in (
        "an answer that is a number, read as text: 1 row",
        "tabs, read as blanks: 1 row",
        "blanks round an answer, left off: 1 row",
        "blanks round an answer type, left off: 1 row",
        "a letter was lost before the file was made (U+FFFD): 1 row",
        "question type 'ATRIB', read as 'ATTRIB': 1 row",
        "left out of test: answer is empty: 2 (such as 25)",
    ):
        assert expected in data.notes


def test_question_types() -> None:
    assert question_types("SIZE, PRES") == (("SIZE", "PRES"), [])
    assert question_types("ATRIB") == (("ATTRIB",), [("ATRIB", "ATTRIB")])
    assert question_types("PRES, PRES") == (("PRES",), [])
    assert question_types("") == ((), []) and question_types("Zzz")[0] == ("ZZZ",)


def test_one_picture_under_two_names_is_one_image(write: Write) -> None:
    folder = write()
    (folder / "images/synpic2.jpg").write_bytes((folder / "images/synpic3.jpg").read_bytes())
    data = read_vqa_rad(folder)
    assert data.test[2].image == data.train[1].image
    assert any("2 of 2 test images are in the train part" in text for text in data.notes)
    assert any("the same as another under another name" in text for text in data.notes)


def parquet(path: Path, rows: list[tuple[int, str, str]], **more: list[str]) -> None:
    """A file of the hub's layout: picture, question, answer."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    def picture(seed: int) -> dict[str, Any]:
        content = io.BytesIO()
        Image.fromarray(np.full((4, 4, 3), seed, np.uint8)).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": None}

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "image": [picture(each[0]) for each in rows],
        "question": [q for _, q, _ in rows],
        "answer": [a for *_, a in rows],
    }
    write_table(pa.table(columns | more), path)


def test_the_copy_of_the_hub(tmp_path: Path) -> None:
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [(1, "Is it?", "yes"), (2, "Where?", "left")])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [(1, "Is it so?", "No"), (3, "What?", "ct"), (3, "Is it?", "yes")])
    data = read_vqa_rad(tmp_path)
    assert [each.closed for each in data.test] == [True, False, True]
    assert data.test[1].image == data.test[2].image != data.test[0].image == data.train[0].image
    assert any("1 of 2 test images are in the train part" in text for text in data.notes)
    assert any("do not say which questions are closed" in text for text in data.notes)
    assert any("answered by yes or no" in text for text in data.caveats)
    assert data.images[data.test[1].image].load().getpixel((0, 0)) == (3, 3, 3)  # type: ignore[union-attr]
    assert any("2, 0, 3 questions" in text and "1,793, 0, 451" in text for text in data.caveats)
    with pytest.raises(UserError, match="no split 'mevf': the Parquet copy has no second wordings"):
        read_vqa_rad(tmp_path, "mevf")


def test_what_is_no_vqa_rad(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no VQA-RAD here; expected trainset\.json and testset\.json"):
        read_vqa_rad(tmp_path)
    with pytest.raises(UserError, match="no split 'all'"):
        read_vqa_rad(tmp_path, "all")
    folder = write(TRAIN, {"a": 1})
    with pytest.raises(UserError, match=r"testset\.json: expected a list of questions, found dict"):
        read_vqa_rad(folder)
    write(TRAIN, [{"qid": 1}])
    with pytest.raises(UserError, match=r"testset\.json, row 1: no 'image_name' in it; there are qid"):
        read_vqa_rad(folder)
    write(TRAIN, [])
    with pytest.raises(UserError, match="an empty list"):
        read_vqa_rad(folder)
    write(TRAIN, [row(1, 1, "Is?", "")])
    with pytest.raises(UserError, match=r"no question to test .split official; 1 left out, the first: 1: answer is empty"):
        read_vqa_rad(folder)
    (folder / "testset.json").write_text("[{", encoding="utf-8")
    with pytest.raises(UserError, match=r"testset\.json: not readable as JSON"):
        read_vqa_rad(folder)
    (folder / "testset.json").unlink()
    with pytest.raises(UserError, match=r"testset\.json: not there; expected it beside trainset\.json"):
        read_vqa_rad(folder)
    file = folder / "VQA_RAD Dataset Public.json"
    file.write_text(json.dumps([public(False, **each) for each in TRAIN[:2]]))
    with pytest.raises(UserError, match="no row has phrase_type test_freeform or test_para"):
        read_vqa_rad(file)


def test_images_and_the_official_file_under_other_names(write: Write, tmp_path: Path) -> None:
    folder = write(TRAIN, [*TEST[:2], row(20, 1, "Another?", "yes", image_name="SYNPIC3.JPG")])
    (folder / "images/synpic1.jpg").rename(folder / "images/Synpic1.JPEG")
    data = read_vqa_rad(folder)
    assert data.images["synpic1.jpg"].name == "Synpic1.JPEG"  # type: ignore[union-attr]
    assert {each.image for each in data.test} == {"synpic1.jpg", "synpic3.jpg"}  # one image, however it is written
    assert any(text.startswith("2 images are files whose name has another case or ending") for text in data.notes)
    with pytest.raises(UserError, match="has them: give that folder"):
        read_vqa_rad(tmp_path.parent)
    other = tmp_path / "other"
    other.mkdir()
    (other / "vqa_rad_dataset_public (1).JSON").write_text(json.dumps(PUBLIC))
    assert read_vqa_rad(other).test
    (other / "VQA-RAD Dataset Public.json").write_text(json.dumps(PUBLIC[:1]))
    with pytest.raises(UserError, match="differ; give the one that is the official file"):
        read_vqa_rad(other)


def test_names_that_differ_in_case_alone_are_one_image(write: Write) -> None:
    test = [row(40, 7, "Is it so?", "yes"), row(41, 7, "Is it large?", "no", image_name="SYNPIC7.jpg")]
    data = read_vqa_rad(write([*TRAIN, row(42, 7, "Is it large?", "no", image_name="Synpic7.JPG")], test))
    assert {each.image for each in data.test} == {"Synpic7.JPG"}
    assert "image names that differ from another in case alone, and count as it: 2 (such as SYNPIC7.jpg)" in data.notes
    assert any("1 of 1 test images are in the train part, too" in text for text in data.notes)


def test_test_questions_that_stand_there_twice_or_in_training(write: Write) -> None:
    data = read_vqa_rad(write(TRAIN, [TEST[0], TEST[0], *TEST[2:]]))
    assert "1 of 4 test questions stand there before, with image and answer; each counts" in data.notes
    same = read_vqa_rad(write(TEST, TEST))
    assert "4 test questions stand word for word, about the same image, in the training part" in same.caveats
    assert not set(same.caveats) & set(same.notes)
