"""The tokenizer of a model folder, from whichever files it is released in."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from biomedclip_jax.data._sentencepiece import read_sentencepiece
from biomedclip_jax.data._tokenizer_config import BERTS, FILE, apply_config, read_config
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.fields import flag

if TYPE_CHECKING:
    import tokenizers

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def load_tokenizer(path: Path) -> tuple["tokenizers.Tokenizer", str]:
    """The tokenizer of a folder, or of the one file that is named, and the side on which it cuts long texts.

    UserError if there is none, if it cannot be read, and for a field of its config that cannot be done.
    """
    readers = {
        "tokenizer.json": _from_json,
        "vocab.txt": _from_word_pieces,
        "vocab.json": _from_byte_pairs,
        CLIP_VOCABULARY: _from_clip_vocabulary,
        "spiece.model": read_sentencepiece,
    }
    files = [path] if path.is_file() else [path / name for name in readers]
    file = next((file for file in files if file.is_file() and file.name in readers), None)
    if file is None:
        raise UserError(
            f"{path}: no tokenizer here; expected tokenizer.json, vocab.txt, vocab.json and merges.txt, spiece.model, or "
            f"{CLIP_VOCABULARY}"
        )
    read = readers[file.name]
    config = read_config(file.parent) if file.name != CLIP_VOCABULARY else {}  # the others' files
    try:
        tokenizer = read(file)
    except UserError:
        raise
    except Exception as error:  # the libraries raise bare Exception, too
        raise UserError(
            f"{file}: not a readable tokenizer ({first_line(error)}); put the model's tokenizer.json here"
        ) from error
    return tokenizer, apply_config(tokenizer, config, str(file.parent / FILE))


def _from_json(file: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def _from_word_pieces(file: Path) -> "tokenizers.Tokenizer":
    # what transformers' BertTokenizer builds, without importing transformers, which would import torch where it is
    # installed
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    config, where = read_config(file.parent), str(file.with_name(FILE))
    if config.get("tokenizer_class", BERTS[0]) not in BERTS:
        kind = config["tokenizer_class"]
        raise UserError(f"{where}: tokenizer_class = {kind!r} has a tokenizer.json; put it beside {file.name}")
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    special = {key: str(config.get(f"{key}_token") or name) for key, name in names.items()}
    tokenizer = Tokenizer(WordPiece.from_file(str(file), unk_token=special["unk"]))
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=flag(config, "do_lower_case", True, where),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=flag(config, "tokenize_chinese_chars", True, where),
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
