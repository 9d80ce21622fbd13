"""The demo's pictures, and a vocabulary of their captions for a causal language model."""

import csv
from pathlib import Path

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.data.demo.quickstart import MODALITIES, make_demo
from biomedclip_jax.files import write_folder

_END, _UNKNOWN = "<|endoftext|>", "<unknown>"


def make_causal_demo(workdir: Path) -> None:
    """Write `workdir/data/` as `make_demo` does, and `workdir/words/`, a tokenizer. UserError as of `make_demo`."""
    make_demo(workdir)
    words = workdir / "words"
    if not words.is_dir():
        with (workdir / "data" / "train.csv").open(encoding="utf-8", newline="") as table:
            texts = [row["caption"] for row in csv.DictReader(table)]
        texts += [DEFAULT_TEMPLATE.format(label) for label in MODALITIES]
        write_folder(words, lambda folder: _write_tokenizer(folder, texts))


def _write_tokenizer(folder: Path, texts: list[str]) -> None:
    """A token for each word and none at either end; as with GPT-2's, a text ends where the padding begins."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))})
    ids = {token: number for number, token in enumerate([_END, _UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens([_END])
    tokenizer.save(str(folder / "tokenizer.json"))
