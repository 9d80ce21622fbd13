"""The demos as sources, made when asked for: `demo:NAME:SPLIT` is a table, `demo:NAME` a tokenizer.

All have the same pictures and captions; "causal" adds a vocabulary of words for a causal language model, "vqa" has
tables of questions instead, and a tokenizer that knows their words, too.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.config import DEFAULT_TEMPLATE
from biomedclip_jax.data.demo._questions import make_vqa_demo
from biomedclip_jax.data.demo._quickstart import MODALITIES, make_demo
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_folder

PREFIX = "demo:"
_SPLITS = ("train", "held_out")
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


@dataclass(frozen=True)
class _Demo:
    make: Callable[[Path], None]  # writes all below a folder, whole or not at all; nothing where it is complete
    tokenizer: str  # below that folder
    tables: str = "data"  # below that folder


_DEMOS = {
    "quickstart": _Demo(make_demo, "data/tokenizer"),
    "causal": _Demo(make_causal_demo, "words"),
    "vqa": _Demo(make_vqa_demo, "questions/tokenizer", "questions"),
}


def make_demo_of(source: str, folder: Path) -> None:
    """Write the data of a demo source below `folder`, unless they are complete; any other source needs nothing.

    UserError for a demo or split that does not exist, or a package that is missing.
    """
    if source.startswith(PREFIX):
        _parse(source)[0].make(folder)


def demo_path(source: str, folder: Path) -> str:
    """The file or folder below `folder` that a demo source stands for; any other source is returned as it is.

    UserError for a demo or split that does not exist.
    """
    if not source.startswith(PREFIX):
        return source
    demo, split = _parse(source)
    return str(folder / (f"{demo.tables}/{split}.csv" if split else demo.tokenizer))


def _parse(source: str) -> tuple[_Demo, str]:
    name, _, split = source.removeprefix(PREFIX).partition(":")
    if name not in _DEMOS or split not in ("", *_SPLITS):
        names = " or ".join(f"{PREFIX}{name}" for name in _DEMOS)
        raise UserError(
            f"{source}: no such demo; expected {names} (a tokenizer), with :train or :held_out behind it "
            f"(pairs; of {PREFIX}vqa questions)"
        )
    return _DEMOS[name], split
