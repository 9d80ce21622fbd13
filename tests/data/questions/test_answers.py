"""When two answers are the same, and which answers a vocabulary has."""

import pytest

from biomedclip_jax.data.questions.answers import normalised, vocabulary
from biomedclip_jax.data.questions.types import Question, QuestionSet


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("  The\tleft   lung. ", "left lung"),
        ("An aneurysm", "aneurysm"),
        ("Two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("right-sided", "right sided"),
        ("x-ray", "x ray"),
        ("yes, both", "yes both"),
        ("kidney/liver", "kidney liver"),
        ("1,000 ml", "1000 ml"),
        ("3.5 cm.", "3.5 cm"),
        ("MRI (T2)", "mri t2"),
        ("it isnt", "it isn't"),
        ("cant tell", "can't tell"),
        ("were", "were"),
        ("thats it", "that's it"),
        ("A", "a"),
        ("?", "?"),
        ("肺", "肺"),
        ("是\u3002", "是"),
        ("左肺\uff0c右肺", "左肺 右肺"),
        ("1\u30012", "1 2"),
        ("it isn\u2019t", "it isn't"),
        ("caf\u00e9 au lait", "caf\u00e9 au lait"),
        ("cafe\u0301 au lait", "caf\u00e9 au lait"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    assert normalised(text) == expected
    assert normalised(expected) == expected


def test_the_vocabulary_knows_no_test_answer_unless_asked() -> None:
    def asked(answer: str) -> Question:
        return Question(id="1", image="a", question="?", answer=answer, closed=False)

    train = tuple(map(asked, ["left lung", "CT", "The left lung", "Liver"]))
    data = QuestionSet(
        name="own", split="own", language="en", train=train, validation=(), test=(asked("ct."), asked("Spleen")), images={}
    )
    own = vocabulary(data)
    assert own.answers == ("left lung", "ct", "liver") and own.policy == "train"
    assert own.holds(data.test) == [True, False]
    both = vocabulary(data, "train+test")
    assert both.answers == ("left lung", "ct", "liver", "spleen") and both.holds(data.test) == [True, True]
