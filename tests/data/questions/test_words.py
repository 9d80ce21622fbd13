"""Questions as words: what a word is, what padding and unknown words become, which questions are not read as meant."""

import numpy as np
import pytest

from biomedclip_jax.data.questions.words import QuestionWords, question_words
from biomedclip_jax.errors import UserError

QUESTIONS = (
    "Is the patient's heart enlarged, or not?",
    "Is this a chest X ray? - Open",
    "Is this a chest x-ray ...",
    "What  is\tseen? -yes/no",
)
WORDS = ("is", "the", "patient", "'s", "heart", "enlarged", "or", "not", "this", "a", "chest", "x-ray", "what", "seen")


def test_words_are_listed_once_in_the_order_in_which_they_occur() -> None:
    assert question_words(QUESTIONS) == WORDS
    assert question_words(["x. ray", "X... RAY", "v1.5"]) == ("x", "ray", "x-ray", "v15")


def test_questions_are_cut_and_padded() -> None:
    words = QuestionWords(WORDS, 5)
    found = words(QUESTIONS)
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 1, 2, 3, 4], [0, 8, 9, 10, 11], [0, 8, 9, 10, 11], [12, 0, 13, 14, 14]]
    assert (words.context_length, words.pad_id) == (5, 14)
    assert words([]).shape == (0, 5)


def test_an_unknown_word_is_read_as_the_last_of_the_list() -> None:
    words = QuestionWords(WORDS, 4)
    assert words(["is it seen", "?"]).tolist() == [[0, 13, 13, 14], [14] * 4]
    assert words.whole(["is it seen", "?", QUESTIONS[0]]) == [[0, 13], [], list(range(8))]


def test_questions_that_are_not_read_as_meant_are_told() -> None:
    unread = QuestionWords(WORDS, 4).unread(
        ["is it seen", "is it", "it is not that", "why is it", "??", "is this a x-ray or not"]
    )
    assert unread.cut == [5]
    assert unread.unknown == [3, 4]


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UserError, match=r"QCRConfig.words = \(\)"):
        QuestionWords((), 12)
