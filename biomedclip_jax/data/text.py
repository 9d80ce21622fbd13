"""Captions to token ids: the tokenizer of a model folder, with open_clip's cleaning before it."""

import html
import itertools
import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from biomedclip_jax.data._tokenizer_config import ROBERTAS, read_config
from biomedclip_jax.data._tokenizers import load_tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.support.fields import choice, flag

if TYPE_CHECKING:
    import tokenizers

_OPEN_CLIP = "open_clip_config.json"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_AT_ONCE = 1_024  # texts that are looked at together: what the library keeps of each is many times its ids


def clean_caption(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities, collapse whitespace (open_clip `_clean_whitespace`)."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _lowered(text: str) -> str:
    return clean_caption(text).lower()


def _canonical(text: str) -> str:
    """Without punctuation and capital letters (open_clip `canonicalize_text`)."""
    return " ".join(clean_caption(text).replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


def _siglip(text: str) -> str:
    """As `_canonical`, but an underscore is taken away as other punctuation is (transformers `SiglipTokenizer`)."""
    return " ".join(clean_caption(text).lower().translate(_NO_PUNCTUATION).split())


_CLEANERS: dict[str, Callable[[str], str]] = {"whitespace": clean_caption, "lower": _lowered, "canonicalize": _canonical}
# transformers' tokenizers of SigLIP and SigLIP 2, which is trained on small letters whatever its config says of them
_BY_CLASS = {"SiglipTokenizer": _siglip, "Siglip2Tokenizer": _lowered, "GemmaTokenizer": _lowered}


def cleaner(folder: Path) -> Callable[[str], str]:
    """What is done to a text before it becomes tokens: as `clean_caption` does, unless a config says otherwise.

    folder: the tokenizer's; `text_cfg.tokenizer_kwargs.clean` of an open_clip_config.json in it counts, without one the
    class of the tokenizer: SigLIP's have no punctuation or capital letters, SigLIP 2's no capital letters. UserError for a
    way of cleaning that is not known.
    """
    path = folder / _OPEN_CLIP
    if not path.is_file():
        kind = str(read_config(folder).get("tokenizer_class", "")).removesuffix("Fast") if folder.is_dir() else ""
        return _BY_CLASS.get(kind, clean_caption)
    return choice(_options(path), "clean", "whitespace", _CLEANERS, f"{path}: tokenizer_kwargs")  # type: ignore[no-any-return]


def _options(path: Path) -> dict[str, Any]:
    """The tokenizer_kwargs of an open_clip_config.json, {} without one."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"].get("tokenizer_kwargs") or {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable as open_clip's config ({error!r}); write the folder again") from error


def check_padding(folder: Path, pad_id: int) -> None:
    """UserError if the tokenizer of a BERT, RoBERTa or SigLIP fills texts up with another token than its text tower does.

    open_clip takes the first from the tokenizer and the second from the tower: a BERT would then look at what fills a text
    up, and a SigLIP, which does so in any case, at the wrong thing.
    """
    from tokenizers import normalizers

    tokenizer, _ = load_tokenizer(folder)
    config = read_config(folder)
    kind = str(config.get("tokenizer_class"))
    name = str(config.get("pad_token", "<pad>" if kind in ROBERTAS else "[PAD]"))
    number = tokenizer.token_to_id(name)
    read = kind.startswith(("Siglip", "Gemma", "T5")) or kind in ROBERTAS
    if (read or isinstance(tokenizer.normalizer, normalizers.BertNormalizer)) and number not in (None, pad_id):
        raise UserError(
            f"{folder}: the tokenizer fills texts up with {name!r}, id {number}, but the text tower's pad_id is {pad_id}; make "
            "the two the same, in the text model's config.json as pad_token_id"
        )


@dataclass(frozen=True)
class Unread:
    """Positions of texts that a model does not see as their writer meant them.

    cut: longer than the context. unknown: more than half of the tokens say nothing of the signs that they stand for, as
    in a script that the vocabulary does not have; also texts of which no token is left.
    """

    cut: list[int]
    unknown: list[int]


class TokenMaker(Protocol):
    """What makes token ids of texts, int32 [n, context_length], padded with `pad_id`: `Tokenizer`, or a list of words."""

    context_length: int
    pad_id: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of n texts."""
        ...

    def unread(self, texts: Sequence[str]) -> Unread:
        """The positions of texts that are cut, and of those that are mostly unknown."""
        ...


class Tokenizer:
    """Makes token ids of texts, cut to `context_length` (the end token stays) and padded with `pad_id`.

    Equal to open_clip's `HFTokenizer` on the same folder. Raises UserError if there is no tokenizer in the folder, if its
    config asks for what it cannot be made to do, if open_clip would not fill its texts up with `pad_id`, or if it can give
    ids that the model has no embedding for.
    """

    def __init__(self, folder: Path, context_length: int, pad_id: int, vocab_size: int):
        self._tokenizer, side = load_tokenizer(folder)
        self._clean = cleaner(folder)
        self._sep: int | None = None
        if flag(_options(folder / _OPEN_CLIP), "strip_sep_token", False, str(folder / _OPEN_CLIP)):
            self._sep = self._tokenizer.token_to_id(str(read_config(folder).get("sep_token", "[SEP]")))
        if (folder / _OPEN_CLIP).is_file() or self._clean in _BY_CLASS.values():
            check_padding(folder, pad_id)
        largest = max(self._tokenizer.get_vocab().values(), default=0)
        if largest >= vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has ids up to {largest}, the text tower has {vocab_size}; they do not belong together"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context_length, direction=side)
        self.context_length = context_length
        self.pad_id = pad_id

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The token ids of n texts as int32 [n, context_length]."""
        ids = np.full((len(texts), self.context_length), self.pad_id, np.int32)
        for row, encoding in zip(ids, self._tokenizer.encode_batch([self._clean(t) for t in texts]), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids if self._sep is None else np.where(ids == self._sep, np.int32(0), ids)

    def save(self, file: Path, length: int | None) -> None:
        """Write a tokenizer.json that cuts and pads as this does, for the tokenizers package alone; texts are not cleaned.

        length: what texts are padded to; None: the longest of a batch. UserError where ids are changed afterwards (CLIPA).
        """
        if self._sep is not None:
            raise UserError("strip_sep_token: no tokenizer.json can say that, so that this model's cannot be written alone")
        copy = self._tokenizer.from_str(self._tokenizer.to_str())
        copy.enable_padding(pad_id=self.pad_id, pad_token=copy.id_to_token(self.pad_id) or "", length=length)
        copy.save(str(file))

    @property
    def ends_alone(self) -> bool:
        """Whether a text has an end token and no start token, as SigLIP's have, or its end token is taken away (CLIPA)."""
        plain, text = (self._tokenizer.encode(given).ids for given in ("", "a"))
        return self._sep is not None or (len(plain) == 1 and text[-1] == plain[0] and text[0] != plain[0])

    def unread(self, texts: Sequence[str]) -> Unread:
        """The positions of texts that are cut at the context length, and of those that are mostly unknown signs."""
        cut, unknown = [], []
        unk = getattr(self._tokenizer.model, "unk_token", None)
        for start in range(0, len(texts), _AT_ONCE):
            part = [self._clean(text) for text in texts[start : start + _AT_ONCE]]
            for position, encoding in enumerate(self._tokenizer.encode_batch(part), start):
                if encoding.overflowing:
                    cut.append(position)
                if _known_share(encoding, unk) < 0.5:
                    unknown.append(position)
        return Unread(cut, unknown)


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
    tokenizer, clean = load_tokenizer(folder)[0], cleaner(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch([clean(text) for text in texts])]
