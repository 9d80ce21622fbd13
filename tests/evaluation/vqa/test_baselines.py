"""The four answers without an image, on questions of which all are known."""

from typing import Any

import pytest

from biomedclip_jax.data.questions.types import Question, QuestionSet
from biomedclip_jax.evaluation.vqa import _baselines as tested
from biomedclip_jax.evaluation.vqa._baselines import NEAREST, OF_TYPE, SAME_IMAGE, SAME_QUESTION, blind_answers


def question(image: str, text: str, answer: str, closed: bool = False) -> Question:
    return Question(id="1", image=image, question=text, answer=answer, closed=closed)


def data(train: list[Question], test: list[Question]) -> QuestionSet:
    known: dict[str, Any] = {"name": "own", "split": "own", "language": "en", "validation": (), "images": {}}
    return QuestionSet(train=tuple(train), test=tuple(test), **known)


TRAIN = [
    question("a", "Is there a pneumothorax?", "No", True),
    question("b", "is there a PNEUMOTHORAX", "yes", True),
    question("c", "Is there a pneumothorax ?", "Yes.", True),
    question("a", "Is there a fracture of the rib?", "no", True),
    question("d", "Are the lungs clear?", "No", True),
    question("a", "Where is the mass?", "The left lobe"),
    question("b", "Where is the lesion?", "right lobe"),
    question("c", "Which plane?", "axial"),
    question("d", "In which plane?", "Left lobe"),
]


def answers(*test: Question) -> dict[str, tuple[str, ...]]:
    return {each.model: each.answers for each in blind_answers(data(TRAIN, list(test)))}


def test_the_four() -> None:
    found = answers(
        question("a", "Is there a pneumothorax?", "yes", True),
        question("b", "Where is the mass, please?", "x"),
        question("z", "Is there any rib fracture?", "no", True),
    )
    # "no" is three of five closed answers, "left lobe" two of four open ones
    assert found[OF_TYPE] == ("no", "left lobe", "no")
    # "yes" is two of three answers to this question; the others are asked nowhere
    assert found[SAME_QUESTION] == ("yes", "left lobe", "no")
    assert found[NEAREST] == ("yes", "left lobe", "no")
    # on image a the answer was no; b has only the lesion's; z has nothing, so that the nearest of all counts
    assert found[SAME_IMAGE] == ("no", "right lobe", "no")


def test_what_they_fall_back_on_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "_AT_ONCE", 1)
    test = [question("a", "Where is the mass?", "x"), question("z", "zzz", "x")]
    found = {each.model: each for each in blind_answers(data(TRAIN, test))}
    assert found[SAME_QUESTION].details == {"answered_by_type": 0.5}
    assert found[SAME_IMAGE].details == {"answered_from_other_images": 0.5}
    # words that no training question has: all are as near, and the most frequent answer is "no"
    assert found[NEAREST].answers == ("left lobe", "no")


def test_a_rare_word_counts_more_than_a_frequent_one() -> None:
    train = [question("a", f"is there a {word}", "no") for word in ("mass", "cyst", "tube", "clip")]
    train.append(question("a", "hepatomegaly", "liver"))
    (found,) = [
        each.answers
        for each in blind_answers(data(train, [question("b", "is there a hepatomegaly", "x")]))
        if each.model == NEAREST
    ]
    assert found == ("liver",)


def test_chinese_is_compared_sign_by_sign() -> None:
    train = [question("a", "图像中有肝脏吗", "有", True), question("a", "这是什么模态", "CT")]
    found = {each.model: each.answers for each in blind_answers(data(train, [question("b", "图中有肝吗", "有", True)]))}
    assert found[NEAREST] == ("有",)


def test_of_no_words_and_of_no_such_type() -> None:
    found = blind_answers(data([question("a", "?", "left"), question("a", "??", "left")], [question("b", "!", "yes", True)]))
    assert [each.answers for each in found] == [("left",)] * 4
