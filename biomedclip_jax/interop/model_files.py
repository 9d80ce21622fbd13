"""The files of a model around its weights: what they are called, where they come from, and how they are copied.

A model is a local folder, or a snapshot from the Hugging Face hub, which is fetched only when the user names a hub
address. A tokenizer is in the model's folder or, where weights come as a single file, beside it.
"""

import shutil
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError, fetched_from, first_line
from biomedclip_jax.interop.formats.huggingface.mapping import read_json, write_json
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import WEIGHT_FILES, with_shards
from biomedclip_jax.support.remote_run import fetched
from biomedclip_jax.support.storage import is_address

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
OPEN_CLIP = "open_clip_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    CLIP_VOCABULARY,
)

_TOKENIZER_CONFIG = "tokenizer_config.json"
# how open_clip calls what these classes of transformers' SigLIPs do to a text
_CLEANING = {"SiglipTokenizer": "canonicalize", "Siglip2Tokenizer": "lower", "GemmaTokenizer": "lower"}
# where a tokenizer was loaded from: nobody needs them again, and they name folders of the machine that wrote it
_NOTED_PLACES = ("name_or_path", "special_tokens_map_file", "tokenizer_file", "full_tokenizer_file")

_OF_CLIP = (CLIP_VOCABULARY, "tokenizer.json", "vocab.json")
_OF_BERT = ("vocab.txt", "tokenizer.json")
_CLIP_SOURCE = f"{CLIP_VOCABULARY} from https://github.com/openai/CLIP/raw/main/clip/{CLIP_VOCABULARY}"
_BERT_SOURCE = "vocab.txt from https://huggingface.co/microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_HUB = "hf-hub:"
_DESCRIPTIONS = (
    *(OPEN_CLIP, "biomedclip_config.json", "config.json", "preprocessor_config.json", "processor_config.json"),
    *TOKENIZER_FILES,
)
_PARTS = ("", "vision/", "text/")
_EXAMPLE = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


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


def tokenizer_options(tokenizer: Path) -> dict[str, Any]:
    """open_clip's tokenizer_kwargs for a model's tokenizer, from the open_clip_config.json of its folder, where there is one.

    They say how texts are cleaned, which stands in no file of the tokenizer itself.
    """
    path = tokenizer / OPEN_CLIP
    text = ((read_json(path).get("model_cfg") or {}).get("text_cfg") or {}) if path.is_file() else {}
    return text.get("tokenizer_kwargs") or {}


def open_clip_options(tokenizer: Path) -> dict[str, Any]:
    """The tokenizer_kwargs with which open_clip cleans texts as they are cleaned here, `tokenizer_options` or by its class."""
    path = tokenizer / _TOKENIZER_CONFIG
    kind = str(read_json(path).get("tokenizer_class")).removesuffix("Fast") if path.is_file() else ""
    by_class = {"clean": _CLEANING[kind]} if kind in _CLEANING and not (tokenizer / OPEN_CLIP).is_file() else {}
    return by_class or tokenizer_options(tokenizer)


def padding_id(tokenizer: Path) -> int | None:
    """The id of the token that a tokenizer's config names as padding; None where its files do not say it."""
    path = tokenizer / _TOKENIZER_CONFIG
    config = read_json(path) if path.is_file() else {}
    token = config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    added = {int(number): entry for number, entry in (config.get("added_tokens_decoder") or {}).items()}
    whole = tokenizer / "tokenizer.json"
    if token is not None and not added and whole.is_file():
        added = {entry["id"]: entry for entry in read_json(whole).get("added_tokens") or ()}
    return next((number for number, entry in added.items() if entry.get("content") == token), None)


def check_cleaning(tokenizer: Path, format: str) -> None:
    """UserError if texts are cleaned in a way of open_clip's that only its own folder can say."""
    options = {"clean": "whitespace", "strip_sep_token": False} | tokenizer_options(tokenizer)
    if (options["clean"] != "whitespace" or options["strip_sep_token"]) and format not in ("open_clip", "open_clip-bin"):
        raise UserError(
            f"{tokenizer}: texts are cleaned with tokenizer_kwargs {options} of open_clip, which the {format} format "
            "cannot say; write the model in the open_clip format, or train with another tokenizer"
        )


def copy_tokenizer(model: Model, folder: Path) -> None:
    """Copy the files of a model's tokenizer into a folder, without the places that transformers notes in its config."""
    for file in tokenizer_files(model):
        content = read_json(file) if file.name == _TOKENIZER_CONFIG else {}
        if noted := {name for name in _NOTED_PLACES if _is_place(content.get(name))}:
            write_json(folder / file.name, {name: value for name, value in content.items() if name not in noted})
        else:
            shutil.copyfile(file, folder / file.name)


def _is_place(value: object) -> bool:
    # also of another machine, and of Windows; a name of the hub stays
    return isinstance(value, str) and (value[:1] in ("/", "~", ".", "\\") or value[1:3] in (":\\", ":/"))


def fetch(address: str, *, weights: bool = True) -> Path:
    """ "hf-hub:org/name" or "hf-hub:org/name@revision" -> the folder of its snapshot in the hub's local cache.

    Only configs, tokenizer and (if `weights`) the weights in one form are fetched: the first of `WEIGHT_FILES` that
    is there. Works offline when the snapshot is in the cache (`HF_HUB_OFFLINE=1`). Raises UserError with the reason
    otherwise.
    """
    name, _, revision = address.removeprefix(_HUB).partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"{address}: expected hf-hub:org/name, such as hf-hub:{_EXAMPLE}")
    from huggingface_hub import snapshot_download

    from biomedclip_jax.interop.baselines.biovil.reader import IMAGE_FILES

    def snapshot(*files: str) -> Path:
        wanted = [part + file for part in _PARTS for file in (*_DESCRIPTIONS, "heads.safetensors", *files)]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))

    try:
        folder = snapshot()
        for file in WEIGHT_FILES if weights else ():
            # in the order in which `find_weights` looks: a repository often holds the same weights in several forms
            folder = snapshot(*with_shards(file), *IMAGE_FILES)
            if any(folder.rglob(file)):
                break
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        raise UserError(
            f"{address}: cannot be fetched ({first_line(error)}); check name and network, or give a local folder"
        ) from error
    return folder


def local_folder(source: str | Path, *, weights: bool = True) -> Path:
    """The folder that a name means, which need not be there: itself, or what is fetched of "hf-hub:org/name" or "s3://..."."""
    if not (hub := str(source).startswith(_HUB)) and not is_address(source):
        return Path(source)
    folder = fetch(str(source), weights=weights) if hub else fetched(str(source))
    fetched_from(folder, str(source))
    return folder
