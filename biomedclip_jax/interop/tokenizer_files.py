"""The files of a tokenizer: their names, where they are for weights that come as a single file, and copying them."""

import shutil
from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.model import Model

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    CLIP_VOCABULARY,
)

_OF_CLIP = (CLIP_VOCABULARY, "tokenizer.json", "vocab.json")
_OF_BERT = ("vocab.txt", "tokenizer.json")
_CLIP_SOURCE = f"{CLIP_VOCABULARY} from https://github.com/openai/CLIP/raw/main/clip/{CLIP_VOCABULARY}"
_BERT_SOURCE = "vocab.txt from https://huggingface.co/microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def clip_tokenizer(weights: Path) -> Path:
    """CLIP's tokenizer in the folder of a weight file. UserError says where to fetch it."""
    return _beside(weights, _OF_CLIP, _CLIP_SOURCE)


def bert_tokenizer(weights: Path) -> Path:
    """BiomedBERT's tokenizer in the folder of a weight file. UserError says where to fetch it."""
    return _beside(weights, _OF_BERT, _BERT_SOURCE)


def _beside(weights: Path, names: tuple[str, ...], source: str) -> Path:
    found = next((weights.parent / name for name in names if (weights.parent / name).is_file()), None)
    if found is None:
        raise UserError(f"{weights}: no tokenizer beside it; fetch {source} into {weights.parent}")
    return weights.parent if found.name == "vocab.json" else found  # merges.txt belongs to it


def tokenizer_files(model: Model) -> list[Path]:
    """The files of a model's tokenizer."""
    if model.tokenizer.is_file():
        return [model.tokenizer]
    return [model.tokenizer / name for name in TOKENIZER_FILES if (model.tokenizer / name).is_file()]


def copy_tokenizer(model: Model, folder: Path) -> None:
    """Copy the files of a model's tokenizer into a folder."""
    for file in tokenizer_files(model):
        shutil.copyfile(file, folder / file.name)
