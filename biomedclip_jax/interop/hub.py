"""The Hugging Face hub: a snapshot of a model's files, fetched only when the user names a hub address."""

from pathlib import Path

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.interop.baselines.biovil.reader import IMAGE_FILES
from biomedclip_jax.interop.tensor_files import WEIGHT_FILES, with_shards
from biomedclip_jax.interop.tokenizer_files import TOKENIZER_FILES

_PREFIX = "hf-hub:"
_DESCRIPTIONS = ("open_clip_config.json", "biomedclip_config.json", "config.json", "preprocessor_config.json", *TOKENIZER_FILES)
_PARTS = ("", "vision/", "text/")
_EXAMPLE = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


def fetch(address: str, *, weights: bool = True) -> Path:
    """ "hf-hub:org/name" or "hf-hub:org/name@revision" -> the folder of its snapshot in the hub's local cache.

    Only configs, tokenizer and (if `weights`) the weights in one form are fetched: the first of `WEIGHT_FILES` that
    is there. Works offline when the snapshot is in the cache (`HF_HUB_OFFLINE=1`). Raises UserError with the reason
    otherwise.
    """
    name, _, revision = address.removeprefix(_PREFIX).partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"{address}: expected hf-hub:org/name, such as hf-hub:{_EXAMPLE}")
    from huggingface_hub import snapshot_download

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
    """A folder, or "hf-hub:org/name" -> the folder (which need not be there), fetched in the second case only."""
    return fetch(str(source), weights=weights) if str(source).startswith(_PREFIX) else Path(source)
