"""Vectors of words: read from a file of GloVe's, and smoothed over the words that they share questions with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from biomedclip_jax.errors import UserError


def read_word_vectors(path: Path, words: Sequence[str], width: int) -> tuple[np.ndarray, list[str]]:
    """float32 [V, width] of these words, zeros for those that the file does not have, and a list of the latter.

    path: of GloVe's text files, a word and its numbers a line. UserError for a file that is not one, or has vectors of
    another width, or none of the words.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected word vectors such as glove.6B.300d.txt (QCRConfig.glove)")
    number_of = {word: number for number, word in enumerate(words)}
    vectors, found = np.zeros((len(words), width), np.float32), set[str]()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            name = line.partition(b" ")[0].decode("utf-8", "replace")
            if number > 1 and (name not in number_of or name in found):
                continue
            word, *values = line.rstrip().rsplit(b" ", width)
            if number == 1 and (b" " in word or len(values) < width):
                told = f"{len(line.split()) - 1} numbers after the word, expected {width} (QCRConfig.word_width)"
                raise UserError(f"{path}: line 1: {told}")
            if len(values) < width:
                raise UserError(f"{path}: line {number}: {len(values)} numbers, expected {width}; fetch the file again")
            if b" " not in word and name in number_of:  # GloVe has a few words with blanks in them
                vectors[number_of[name]] = _numbers(path, number, values)
                found.add(name)
    if not found:
        raise UserError(
            f"{path}: none of the {len(words)} words of the questions is in it; expected word vectors of their language"
        )
    return vectors, [word for word in words if word not in found]


def _numbers(path: Path, line: int, values: list[bytes]) -> np.ndarray:
    try:
        numbers = np.array([float(value) for value in values], np.float32)
    except ValueError:
        raise UserError(f"{path}: line {line}: expected a word and numbers; fetch the file again") from None
    if not np.isfinite(numbers).all():
        raise UserError(f"{path}: line {line}: a number that is not finite; fetch the file again")
    return numbers


def smoothed(vectors: np.ndarray, questions: Iterable[Sequence[int]]) -> np.ndarray:
    """Each word's vector as the mean of those of the words that it stands in a question with, float32 [V, D].

    questions: ids of all their words, uncut. Each pair of places in a question counts, a word repeated there is its own
    neighbour, and a neighbour weighs 1 / (how often it occurs in all questions): the TF-IDF matrix of the QCR and MEVF
    code, whose rows sum to 1. A word that always stands alone has zeros.
    """
    occurs, together = Counter[int](), Counter[tuple[int, int]]()
    for ids in questions:
        occurs.update(ids)
        for one, other in combinations(ids, 2):
            together[one, other] += 1
            together[other, one] += 1
    neighbours: dict[int, list[tuple[int, float]]] = {}
    for (word, other), count in together.items():
        neighbours.setdefault(word, []).append((other, count / occurs[other]))
    result = np.zeros_like(vectors)
    for word, found in neighbours.items():
        others, weights = (np.array(column) for column in zip(*found, strict=True))
        result[word] = (weights / weights.sum()) @ vectors[others]
    return result
