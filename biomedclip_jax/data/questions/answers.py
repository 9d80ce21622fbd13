"""When two answers are the same, and the vocabulary of answers that a model may give.

`normalised` follows the description of VQA's evaluation (Antol et al. 2015, "VQA Evaluation Code"): lower case, no
punctuation, number words as digits, no articles, contractions with their apostrophe.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from biomedclip_jax.data.questions.types import Question, QuestionSet

Policy = Literal["train", "train+test", "model"]

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
# commas, full stops, brackets, quotes ... of Chinese texts and of typesetting, which VQA's evaluation does not know
_OTHER_SIGNS = str.maketrans(
    "\uff0c\u3001\u3002\uff1b\uff1f\uff01\uff08\uff09\u3010\u3011\u201c\u201d\u2018\u2019\uff02\uff0f\uff0e",
    ';;.;?!()[]""\'\'"/.',
)
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")  # that of 3.5 stays
_ARTICLES = frozenset(["a", "an", "the"])
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ENDINGS = {  # of words that are no other word without the apostrophe, as "were" and "well" are
    "n't": "are could did does do had has have is might must need should was were would ca wo ai",
    "'ve": "could might must should they you would who",
    "'ll": "it that they what who you there",
    "'re": "they you what",
    "'s": "that there what where who how he she let when why somebody someone something everybody everyone",
    "'d": "there they who you what where",
}
_CONTRACTIONS = {
    f"{word}{end.replace(chr(39), '')}": f"{word}{end}" for end, words in _ENDINGS.items() for word in words.split()
}
_CONTRACTIONS |= {"oclock": "o'clock", "yall": "y'all", "maam": "ma'am"}


def normalised(text: str) -> str:
    """An answer in the form in which two are compared: "The Left-Lung." is "left lung", "Two" is "2".

    A sign goes without a trace where it stands beside a blank, or where a number has a comma; else a blank takes its
    place. An answer of signs and articles alone stays, in lower case. Chinese and typeset signs count as the plain ones
    ("是。" is "是"), accents stored as signs of their own as one with their letter.
    """
    plain = " ".join(unicodedata.normalize("NFC", text).translate(_OTHER_SIGNS).lower().split())
    found, no_trace = plain, _NUMBER_WITH_COMMA.search(plain) is not None
    for sign in _SIGNS:
        if sign in plain:
            gone = no_trace or f"{sign} " in plain or f" {sign}" in plain
            found = found.replace(sign, "" if gone else " ")
    words = _FULL_STOP.sub("", found).split()
    words = [_NUMBERS.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words) or plain


@dataclass(frozen=True)
class Vocabulary:
    """The answers that a model may give, `normalised`: the most frequent first, equally frequent ones in their order.

    policy: the parts they are from. "train+test", as some have published, knows answers that only the test has.
    "model": those that a model knows, which was trained on other data.
    """

    answers: tuple[str, ...]
    policy: Policy

    def holds(self, questions: Sequence[Question]) -> list[bool]:
        """For each question whether its answer is among these, which is what a model can be right in at most."""
        known = frozenset(self.answers)
        return [normalised(each.answer) in known for each in questions]


def vocabulary(data: QuestionSet, policy: Policy = "train") -> Vocabulary:
    """The answers of the training part, or with "train+test" those of the test part, too."""
    questions = data.train if policy == "train" else (*data.train, *data.test)
    counts = Counter(normalised(each.answer) for each in questions)
    return Vocabulary(tuple(answer for answer, _ in counts.most_common()), policy)
