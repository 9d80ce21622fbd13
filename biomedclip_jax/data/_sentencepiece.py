"""A sentencepiece model file (`spiece.model`) as a tokenizer of the `tokenizers` library, without sentencepiece.

The file is a protocol buffer: pieces with their scores, and how texts are normalised before. SigLIP and MedSigLIP are
released with one; its unigram model is what is read here. Source: google/sentencepiece `sentencepiece_model.proto`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    import tokenizers

END = "</s>"
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # numbers of the fields of a ModelProto
_PIECE, _SCORE, _TYPE = 1, 2, 3  # of a SentencePiece
_MODEL_TYPE, _UNIGRAM = 3, 1  # of the TrainerSpec
_CHARACTER_MAP, _BEGUN_WITH_BLANK = 2, 3  # of the NormalizerSpec
_UNKNOWN, _CONTROL = 2, 3  # types of a piece


def read_sentencepiece(file: Path) -> "tokenizers.Tokenizer":
    """The unigram tokenizer in a model file, with the end token after a text, as T5's and SigLIP's are used.

    UserError if the file holds another kind of model. ValueError, struct.error or IndexError if it is none.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    model = list(_fields(file.read_bytes()))
    pieces = [dict(_fields(value)) for number, value in model if number == _PIECES]
    (trainer, normalizer) = (dict(_fields(dict(model).get(number, b""))) for number in (_TRAINER, _NORMALIZER))
    if not pieces:
        raise ValueError("no pieces in it")
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM or not normalizer.get(_BEGUN_WITH_BLANK, 1):
        raise UserError(f"{file}: no unigram model that begins texts with a blank; put the model's tokenizer.json here")
    vocabulary = [(piece[_PIECE].decode(), struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0]) for piece in pieces]
    kinds = [piece.get(_TYPE, 1) for piece in pieces]
    tokenizer = Tokenizer(Unigram(vocabulary, kinds.index(_UNKNOWN)))
    special = [word for (word, _), kind in zip(vocabulary, kinds, strict=True) if kind in (_UNKNOWN, _CONTROL)]
    tokenizer.add_special_tokens(special)
    blanks = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    characters = [normalizers.Precompiled(normalizer[_CHARACTER_MAP])] if normalizer.get(_CHARACTER_MAP) else []
    tokenizer.normalizer = normalizers.Sequence([*characters, *blanks])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    end = (END, [word for word, _ in vocabulary].index(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[end])
    return tokenizer


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer: an int, or the bytes of a string, a message or a float."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
            continue
        length = {1: 8, 5: 4}.get(wire) or (varint() if wire == 2 else None)
        if length is None or position + length > len(message):
            raise ValueError("not a protocol buffer")
        yield number, message[position : position + length]
        position += length
