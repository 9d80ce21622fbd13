"""A text as the words or tokens that token F1 and the nearest question count."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")  # Chinese has no blanks: each sign is one
_GPT2 = ("openai-community/gpt2", "gpt2")

Tokenise = Callable[[str], Sequence[object]]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without signs; of Chinese the single signs."""
    return _WORD.findall(text.lower())


@functools.cache
def answer_tokens() -> tuple[str, Tokenise]:
    """What token F1 counts, and its name: GPT-2's tokens where the Hugging Face cache has its tokenizer, else words."""
    from huggingface_hub import try_to_load_from_cache

    for repository in _GPT2:
        found = try_to_load_from_cache(repository, "tokenizer.json")
        if isinstance(found, str) and Path(found).is_file():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(found)
            return "GPT-2 tokens", functools.partial(_ids, tokenizer)
    return "words", words


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def token_f1(answer: str, gold: str, tokenise: Tokenise) -> float:
    """The harmonic mean of precision and recall of the answer's tokens, each as often as it occurs; of none at all, 0."""
    own, true = Counter(tokenise(answer)), Counter(tokenise(gold))
    both = (own & true).total()
    return 2 * both / (own.total() + true.total()) if both else 0.0
