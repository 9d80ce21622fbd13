"""Captions to token ids: the tokenizer of a model folder, with open_clip's cleaning before it."""

import gzip
import html
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biomedclip_jax.errors import UserError, first_line

if TYPE_CHECKING:
    import tokenizers

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def clean_caption(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities, collapse whitespace (open_clip `_clean_whitespace`)."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _load(path: Path) -> "tokenizers.Tokenizer":
    """Load the tokenizer of a folder, or the one file that is named."""
    readers = {
        "tokenizer.json": _from_json,
        "vocab.txt": _from_word_pieces,
        "vocab.json": _from_byte_pairs,
        CLIP_VOCABULARY: _from_clip_vocabulary,
    }
    files = [path] if path.is_file() else [path / name for name in readers]
    file = next((file for file in files if file.is_file() and file.name in readers), None)
    if file is None:
        raise UserError(
            f"{path}: no tokenizer here; expected tokenizer.json, vocab.txt, vocab.json and merges.txt, or {CLIP_VOCABULARY}"
        )
    read = readers[file.name]
    try:
        return read(file)
    except Exception as error:  # the libraries raise bare Exception, too
        raise UserError(
            f"{file}: not a readable tokenizer ({first_line(error)}); put the model's tokenizer.json here"
        ) from error


def _from_json(file: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def _from_word_pieces(file: Path) -> "tokenizers.Tokenizer":
    # what transformers' BertTokenizer builds, without importing transformers, which would import torch where it is
    # installed
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    path = file.with_name("tokenizer_config.json")
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    special = {key: config.get(f"{key}_token") or name for key, name in names.items()}
    tokenizer = Tokenizer(WordPiece.from_file(str(file), unk_token=special["unk"]))
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    separator, first = (special[key] for key in ("sep", "cls"))
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing((separator, ids[separator]), (first, ids[first]))
    return tokenizer


def _from_byte_pairs(file: Path) -> "tokenizers.Tokenizer":
    # CLIP's and GPT-2's differ in more than their files: transformers knows how
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(file.parent, local_files_only=True).backend_tokenizer


def _from_clip_vocabulary(file: Path) -> "tokenizers.Tokenizer":
    """CLIP's own file: a line of version, then merges, of which `SimpleTokenizer` takes those that make 49,408 tokens."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    merges = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1:48_895]
    # bytes as the printable characters that stand for them, in CLIP's order: those that are printable themselves
    # come first
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    start, end = "<start_of_text>", "<end_of_text>"
    ids = {word: i for i, word in enumerate([*words, start, end])}
    pairs: list[tuple[str, str]] = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(ids, pairs, end_of_word_suffix="</w>", unk_token=None))
    tokenizer.add_special_tokens([start, end])
    final_sigma = normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς")  # as Python lowers it; Lowercase gives "σ"
    tokenizer.normalizer = normalizers.Sequence([final_sigma, normalizers.Lowercase()])
    parts = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(parts, "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    return tokenizer


@dataclass(frozen=True)
class Unread:
    """Positions of texts that a model does not see as their writer meant them.

    cut: longer than the context. unknown: more than half of the tokens say nothing of the signs that they stand for, as
    in a script that the vocabulary does not have; also texts of which no token is left.
    """

    cut: list[int]
    unknown: list[int]


class Tokenizer:
    """Makes token ids of texts, cut to `context_length` (the end token stays) and padded with `pad_id`.

    Equal to open_clip's `HFTokenizer` on the same folder. Raises UserError if there is no tokenizer in the folder, or
    if it can give ids that the model has no embedding for.
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
        """The token ids of n texts as int32 [n, context_length]."""
        ids = np.full((len(texts), self.context_length), self.pad_id, np.int32)
        for row, encoding in zip(ids, self._tokenizer.encode_batch([clean_caption(t) for t in texts]), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids

    def unread(self, texts: Sequence[str]) -> Unread:
        """The positions of texts that are cut at the context length, and of those that are mostly unknown signs."""
        encodings = self._tokenizer.encode_batch([clean_caption(text) for text in texts])
        unk = getattr(self._tokenizer.model, "unk_token", None)
        return Unread(
            cut=[position for position, encoding in enumerate(encodings) if encoding.overflowing],
            unknown=[position for position, encoding in enumerate(encodings) if _known_share(encoding, unk) < 0.5],
        )


def _known_share(encoding: "tokenizers.Encoding", unknown_token: str | None) -> float:
    """The share of a text's signs that are in a token which stands for them; 0 where no token is left.

    An unknown token stands for nothing. Neither do the bytes that a sign is taken apart into, nor the letters that a whole
    word of another script is spelt with: the model has hardly seen them.
    """
    rows = zip(encoding.word_ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    own = [(word, token, place) for word, token, place, special in rows if not special or token == unknown_token]
    stands: dict[tuple[int, int], bool] = {}  # from, to in the text -> whether a token stands for these signs
    for _, word in itertools.groupby(own, key=lambda row: row[0]):
        pieces = [(token, place) for _, token, place in word]
        spelt = len(pieces) >= 3 and all(place[1] - place[0] == 1 for _, place in pieces)
        spelt &= not any(token.removeprefix("##").isascii() for token, _ in pieces)
        for token, place in pieces:
            stands[place] = not spelt and token != unknown_token and place not in stands
    lengths = {place: max(1, place[1] - place[0]) for place in stands}
    return sum(lengths[place] for place, known in stands.items() if known) / max(1, sum(lengths.values()))


def used_length(ids: np.ndarray, pad_id: int) -> int:
    """The number of tokens up to the last one that is not padding, in the longest row of int [n, N]; at least 1."""
    used = (ids != pad_id).any(axis=0).nonzero()[0]
    return int(used[-1]) + 1 if len(used) else 1


def token_counter(folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """A function that counts the tokens of each text, those at its ends included and nothing cut.

    folder: with the files of a tokenizer; UserError without one.
    """
    tokenizer = _load(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch([clean_caption(text) for text in texts])]
