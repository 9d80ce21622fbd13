"""Captions to token ids: the tokenizer of a model folder, with open_clip's cleaning before it."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    import tokenizers


def clean_caption(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities, collapse whitespace (open_clip `_clean_whitespace`)."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _load(folder: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    if (folder / "tokenizer.json").is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{folder / 'tokenizer.json'}: not a readable tokenizer ({error})") from error
    if not any((folder / name).is_file() for name in ("vocab.txt", "vocab.json")):
        raise UserError(f"{folder}: no tokenizer here; expected tokenizer.json, vocab.txt, or vocab.json and merges.txt")
    from transformers import AutoTokenizer, BertTokenizer

    # a vocab.txt is a BERT's; without a config.json beside it AutoTokenizer would not know
    kind = BertTokenizer if (folder / "vocab.txt").is_file() else AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: transformers cannot read the tokenizer ({reason}); put tokenizer.json here") from error


class Tokenizer:
    """texts -> ids, cut to `context_length` (the end token stays) and padded with `pad_id`.

    Equal to open_clip's `HFTokenizer` on the same folder. Raises UserError if there is no tokenizer in the folder, or if
    it can give ids that the model has no embedding for.
    """

    def __init__(self, folder: Path, context_length: int, pad_id: int, vocab_size: int):
        self._tokenizer = _load(folder)
        largest = max(self._tokenizer.get_vocab().values(), default=0)
        if largest >= vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has ids up to {largest}, the text tower has {vocab_size}; they do not belong together"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context_length)
        self.context_length = context_length
        self.pad_id = pad_id

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """int32 [n, context_length]."""
        ids = np.full((len(texts), self.context_length), self.pad_id, np.int32)
        for row, encoding in zip(ids, self._tokenizer.encode_batch([clean_caption(t) for t in texts]), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids


def used_length(ids: np.ndarray, pad_id: int) -> int:
    """Tokens up to the last one that is not padding, in the longest row; at least 1."""
    used = (ids != pad_id).any(axis=0).nonzero()[0]
    return int(used[-1]) + 1 if len(used) else 1
