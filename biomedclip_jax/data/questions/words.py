"""Questions as the words of a list of their own, the way QCR reads them (github.com/Awenbocc/med-vqa)."""

from collections.abc import Sequence

import numpy as np

from biomedclip_jax.data.text import Unread
from biomedclip_jax.errors import UserError

_ENDINGS = ("? -yes/no", "? -open", "? - open")  # what some of VQA-Med's questions say of their type
# in this order: "x... ray" becomes x-ray, "x. ray" two words
_CHANGES = ((",", ""), ("?", ""), ("'s", " 's"), ("...", ""), ("x ray", "x-ray"), (".", ""))


def _words(question: str) -> list[str]:
    """In small letters, without commas, question marks and full stops, "'s" apart and "x ray" as one word."""
    question = question.lower()
    for ending in _ENDINGS:
        question = question.replace(ending, "")
    for old, new in _CHANGES:
        question = question.replace(old, new)
    return question.split()


def question_words(questions: Sequence[str]) -> tuple[str, ...]:
    """The words of the questions, each once, in the order in which they first occur."""
    return tuple(dict.fromkeys(word for question in questions for word in _words(question)))


class QuestionWords:
    """Makes ids of the words of questions, cut to `context_length` words and padded with `pad_id`, the length of the list.

    A word that the list does not have gets the id of its last word, as in the original; `unread` finds the questions with
    many of them. Words are what stands between blanks, so Chinese is not taken apart.
    """

    def __init__(self, words: Sequence[str], length: int):
        """UserError for an empty list."""
        if not words:
            raise UserError("QCRConfig.words = (): expected at least one word; leave it empty only where training fills it")
        self._ids = {word: number for number, word in enumerate(words)}
        self.context_length = length
        self.pad_id = len(words)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The word ids of n questions as int32 [n, context_length]."""
        ids = np.full((len(texts), self.context_length), self.pad_id, np.int32)
        for row, text in zip(ids, texts, strict=True):
            found = [self._ids.get(word, self.pad_id - 1) for word in _words(text)[: self.context_length]]
            row[: len(found)] = found
        return ids

    def whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of all words of each question, uncut, without those that the list does not have."""
        return [[self._ids[word] for word in _words(text) if word in self._ids] for text in texts]

    def unread(self, texts: Sequence[str]) -> Unread:
        """The positions of questions that are cut, and of those with more unknown words than known ones, or without words."""
        cut, unknown = [], []
        for position, text in enumerate(texts):
            words = _words(text)
            if len(words) > self.context_length:
                cut.append(position)
            if 2 * sum(word in self._ids for word in words) < max(1, len(words)):
                unknown.append(position)
        return Unread(cut, unknown)
