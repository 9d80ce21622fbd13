"""What can be answered without looking at an image, from the training questions alone: four baselines.

A model that looks at images must beat all four; where a split leaks, the last two say how much.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from biomedclip_jax.data.questions.answers import normalised
from biomedclip_jax.data.questions.types import Question, QuestionSet
from biomedclip_jax.evaluation.vqa._tokens import words

BLIND = "blind: "
OF_TYPE = f"{BLIND}most frequent answer of the type"
SAME_QUESTION = f"{BLIND}most frequent answer to the same question"
NEAREST = f"{BLIND}nearest training question"
SAME_IMAGE = f"{BLIND}nearest training question on the same image"

_AT_ONCE = 256  # test questions compared with all training questions
_EQUAL = 1e-9  # cosines that differ by rounding alone are one


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One model's answer to each test question. details: what else there is to say of them, by name."""

    model: str
    answers: tuple[str, ...]
    details: dict[str, str | float] = field(default_factory=dict)


def blind_answers(data: QuestionSet) -> list[Answers]:
    """The answers of the four baselines, `normalised`, each from the training part alone.

    Of the type: the most frequent answer to open, or closed, questions, as the test question is. Same question: the most
    frequent answer to the same words; that of the type where no training question has them. Nearest: the answer to the
    question whose TF-IDF vector of words has the largest cosine; of several as near, the most frequent. On the same
    image: of the training questions about that image; the nearest of all where it has none. Of equally frequent answers
    the one that comes first in the training part counts.
    """
    learned = [normalised(each.answer) for each in data.train]
    of_type = {closed: _of_type(data.train, learned, closed) for closed in (True, False)}
    typical = [of_type[each.closed] for each in data.test]
    nearest, same_image, on_others = _nearest(data, learned)
    same, unseen = _same_question(data, learned, typical)
    n = len(data.test)
    return [
        Answers(model=OF_TYPE, answers=tuple(typical), details={"closed": of_type[True], "open": of_type[False]}),
        Answers(model=SAME_QUESTION, answers=same, details={"answered_by_type": unseen / n}),
        Answers(model=NEAREST, answers=nearest),
        Answers(model=SAME_IMAGE, answers=same_image, details={"answered_from_other_images": on_others / n}),
    ]


def _most_frequent(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


def _of_type(train: Sequence[Question], learned: Sequence[str], closed: bool) -> str:
    own = [answer for each, answer in zip(train, learned, strict=True) if each.closed == closed]
    return _most_frequent(own or learned)


def _same_question(data: QuestionSet, learned: Sequence[str], typical: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The answers, and how many test questions are no training question."""
    known: dict[tuple[str, ...], list[str]] = {}
    for each, answer in zip(data.train, learned, strict=True):
        known.setdefault(tuple(words(each.question)), []).append(answer)
    asked = [known.get(tuple(words(each.question))) for each in data.test]
    found = tuple(_most_frequent(own) if own else other for own, other in zip(asked, typical, strict=True))
    return found, sum(own is None for own in asked)


def _nearest(data: QuestionSet, learned: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """The answers to the nearest question of all and on the same image, and how many images have no training question."""
    on_image: dict[str, list[int]] = {}
    for position, each in enumerate(data.train):
        on_image.setdefault(each.image, []).append(position)
    found, same_image = list[str](), list[str]()
    on_others = 0
    for question, cosines in zip(data.test, _cosines(data.train, data.test), strict=True):
        found.append(_answer(cosines, np.arange(len(learned)), learned))
        own = on_image.get(question.image)
        same_image.append(_answer(cosines, np.array(own), learned) if own else found[-1])
        on_others += own is None
    return tuple(found), tuple(same_image), on_others


def _answer(cosines: np.ndarray, among: np.ndarray, learned: Sequence[str]) -> str:
    own = cosines[among]
    nearest: list[int] = among[own >= own.max() - _EQUAL].tolist()
    return _most_frequent([learned[position] for position in nearest])


def _cosines(train: Sequence[Question], test: Sequence[Question]) -> Iterator[np.ndarray]:
    """For each test question the cosine with each training question: of counts of words, times ln((1 + n)/(1 + n_word)) + 1.

    n: training questions, n_word: those with this word. Words of no training question count for nothing.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=words)  # type: ignore[arg-type]
    try:
        learned = vectorizer.fit_transform([each.question for each in train]).T.tocsr()
    except ValueError:  # not one word
        yield from (np.zeros(len(train)) for _ in test)
        return
    for start in range(0, len(test), _AT_ONCE):
        asked = vectorizer.transform([each.question for each in test[start : start + _AT_ONCE]])
        yield from (asked @ learned).toarray()
