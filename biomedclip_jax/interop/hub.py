"""The Hugging Face hub: a snapshot of a model's files, fetched only when the user names a hub address."""

from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.folders import TOKENIZER_FILES
from biomedclip_jax.interop.weights import WEIGHT_FILES

PREFIX = "hf-hub:"
_DESCRIPTIONS = ("open_clip_config.json", "config.json", "preprocessor_config.json", *TOKENIZER_FILES)
_PARTS = ("", "vision/", "text/")
_EXAMPLE = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


def fetch(address: str, *, weights: bool = True) -> Path:
    """ "hf-hub:org/name" or "hf-hub:org/name@revision" -> the folder of its snapshot in the hub's local cache.

    Only configs, tokenizer and (if `weights`) one weight file are fetched, safetensors before PyTorch's pickle. Works offline
    when the snapshot is in the cache (`HF_HUB_OFFLINE=1`). Raises UserError with the reason otherwise.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"{address}: expected hf-hub:org/name, such as hf-hub:{_EXAMPLE}")
    from huggingface_hub import snapshot_download

    files = [*_DESCRIPTIONS, "heads.safetensors"]
    safe = [file for file in WEIGHT_FILES if file.endswith(".safetensors")]
    wanted = [part + file for part in _PARTS for file in (files + safe if weights else files)]
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
        if weights and not any(folder.rglob("*.safetensors")):
            wanted += [file for file in WEIGHT_FILES if file not in safe]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{address}: cannot be fetched ({reason}); check name and network, or give a local folder") from error
    return folder
