"""Models released as bare weight files, without a config: whose a file is, is known by the names of its tensors.

| model       | files                                                            | tokenizer beside them        |
| ----------- | ---------------------------------------------------------------- | ---------------------------- |
| OpenAI CLIP | ViT-B-32.pt, ViT-B-16.pt, ViT-L-14.pt, RN50.pt ...               | bpe_simple_vocab_16e6.txt.gz |
| PubMedCLIP  | PubMedCLIP_ViT32.pth, PubMedCLIP_RN50.pth, PubMedCLIP_RN50x4.pth | the same                     |
| UniMed-CLIP | unimed-clip-vit-b16.pt, unimed_clip_vit_l14_base_text_encoder.pt | vocab.txt of BiomedBERT      |
| PMC-CLIP    | checkpoint.pt, or image_encoder(resnet50).pth and two more       | vocab.txt of PubMedBERT      |
| CLEFT       | a Lightning checkpoint, *.ckpt                                   | tokenizer.json of BioMedLM   |

A tokenizer.json in the place of these, or CLIP's vocab.json and merges.txt, will do. Open-PMC-18M needs no entry: it is
released in open_clip's layout, with BiomedCLIP's architecture.
"""

from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.openai_clip.reader import is_openai_clip, read_openai_clip
from biomedclip_jax.interop.baselines.pmc_clip.reader import find_image_file, is_pmc_clip, read_pmc_clip, read_three_files
from biomedclip_jax.interop.baselines.unimed_clip.reader import is_unimed_clip, read_unimed_clip
from biomedclip_jax.interop.formats.cleft.checkpoint import read_cleft
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import read_weights

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"

_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_OF_CLIP = (CLIP_VOCABULARY, "tokenizer.json", "vocab.json")
_OF_BERT = ("vocab.txt", "tokenizer.json")
_CLIP_SOURCE = f"{CLIP_VOCABULARY} from https://github.com/openai/CLIP/raw/main/clip/{CLIP_VOCABULARY}"
_BERT_SOURCE = "vocab.txt from https://huggingface.co/microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def read_file(path: Path) -> Model:
    """The model in one weight file of the table above. UserError if it is of another kind, or without its tokenizer."""
    if path.suffix not in _SUFFIXES:
        raise UserError(f"{path}: not a model; expected a folder, or a weight file ending in {', '.join(_SUFFIXES)}")
    if path.suffix == ".ckpt":
        return read_cleft(path)
    if path == find_image_file(path.parent):
        return read_three_files(path, _tokenizer(path, _OF_BERT, _BERT_SOURCE))
    tensors = read_weights(path)
    if is_openai_clip(tensors):
        return read_openai_clip(tensors, path, _tokenizer(path, _OF_CLIP, _CLIP_SOURCE))
    if is_unimed_clip(tensors):
        return read_unimed_clip(tensors, path, _tokenizer(path, _OF_BERT, _BERT_SOURCE))
    if is_pmc_clip(tensors):
        return read_pmc_clip(tensors, path, _tokenizer(path, _OF_BERT, _BERT_SOURCE))
    raise UserError(
        f"{path}: not a weight file that explains itself (OpenAI CLIP, PubMedCLIP, UniMed-CLIP, PMC-CLIP); "
        "put it as open_clip_pytorch_model.bin into a folder with its open_clip_config.json, and name the folder"
    )


def read_folder(folder: Path) -> Model | None:
    """The model in a folder with files of one line of the table above; None in any other. UserError where there are several."""
    if image_file := find_image_file(folder):
        return read_file(image_file)
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UserError(f"{folder}: {len(found)} weight files and no description of a model ({names}); name one of the files")
    return read_file(found[0]) if found else None


def _tokenizer(weights: Path, names: tuple[str, ...], source: str) -> Path:
    found = next((weights.parent / name for name in names if (weights.parent / name).is_file()), None)
    if found is None:
        raise UserError(f"{weights}: no tokenizer beside it; fetch {source} into {weights.parent}")
    return weights.parent if found.name == "vocab.json" else found  # merges.txt belongs to it
