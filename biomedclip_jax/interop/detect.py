"""What a file or folder is, and how it is read: one table, from which everything here that takes a model's path reads.

| kind                   | recognised by                                                                     |
| ---------------------- | --------------------------------------------------------------------------------- |
| a run                  | metrics.jsonl or checkpoints/; its model is in model/ once it is finished         |
| a fine-tuning          | finetune.json; its model is in model/ once it is finished                         |
| an adapter of a run    | biomedclip_adapter.json; names the model that it belongs to                       |
| our pair of towers     | biomedclip_config.json                                                            |
| a pair of towers       | vision/config.json and text/config.json                                           |
| open_clip              | open_clip_config.json                                                             |
| BioViL, BioViL-T       | the name of its image model                                                       |
| transformers' CLIP     | config.json that says so                                                          |
| transformers' SigLIP   | config.json that says so                                                          |
| MedCLIP                | its tensors' names                                                                |
| PMC-CLIP (three files) | the name of its image encoder                                                     |
| bare weights           | one weight file and no description: by its tensors' names                         |

| weight file | names                                                            | tokenizer beside it          |
| ----------- | ---------------------------------------------------------------- | ---------------------------- |
| OpenAI CLIP | ViT-B-32.pt, ViT-B-16.pt, ViT-L-14.pt, RN50.pt ...               | bpe_simple_vocab_16e6.txt.gz |
| PubMedCLIP  | PubMedCLIP_ViT32.pth, PubMedCLIP_RN50.pth, PubMedCLIP_RN50x4.pth | the same                     |
| UniMed-CLIP | unimed-clip-vit-b16.pt, unimed_clip_vit_l14_base_text_encoder.pt | vocab.txt of BiomedBERT      |
| PMC-CLIP    | checkpoint.pt, or image_encoder(resnet50).pth and two more       | vocab.txt of PubMedBERT      |
| CLEFT       | a Lightning checkpoint, *.ckpt                                   | tokenizer.json of BioMedLM   |
| Open-PMC    | OPEN_PMC_CLIP.ckpt, a Lightning checkpoint of mmlearn            | vocab.txt of BiomedBERT      |

A tokenizer.json in the place of these, or CLIP's vocab.json and merges.txt, will do. Open-PMC-18M needs no entry:
it is released in open_clip's layout, with BiomedCLIP's architecture.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import held
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.answering_folder import holds_answering, with_answering
from biomedclip_jax.interop.baselines.biovil import reader as biovil
from biomedclip_jax.interop.baselines.medclip import reader as medclip
from biomedclip_jax.interop.baselines.mmlearn import reader as mmlearn
from biomedclip_jax.interop.baselines.openai_clip import reader as openai_clip
from biomedclip_jax.interop.baselines.pmc_clip import reader as pmc_clip
from biomedclip_jax.interop.baselines.unimed_clip import reader as unimed_clip
from biomedclip_jax.interop.formats import adapter_folder, tower_pair
from biomedclip_jax.interop.formats.cleft.checkpoint import is_cleft, read_cleft
from biomedclip_jax.interop.formats.huggingface.clip import is_clip, read_clip
from biomedclip_jax.interop.formats.huggingface.siglip import is_siglip, read_siglip
from biomedclip_jax.interop.formats.open_clip.config import CONFIG_FILE as OPEN_CLIP_CONFIG
from biomedclip_jax.interop.formats.open_clip.folder import read_open_clip
from biomedclip_jax.interop.formats.peft.folders import is_peft, with_peft
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import bert_tokenizer, clip_tokenizer
from biomedclip_jax.interop.tensor_files import WEIGHT_FILES, TensorFile, find_weights

UNFINISHED_RUN = "a run that is not finished"

_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class Found:
    """What a file or folder was recognised as.

    path: where the model's files are, of a finished run its `model/`. read: reads them.
    """

    kind: str
    path: Path
    read: Callable[[], Model]


class _Contents:
    """What is looked at to tell what a file or folder is. Weights are opened when they are first asked for."""

    def __init__(self, path: Path):
        self.path = path

    def has(self, *names: str) -> bool:
        return all((self.path / name).is_file() for name in names)

    @functools.cached_property
    def tensors(self) -> TensorFile:
        return read_unwrapped(self.path if self.path.is_file() else find_weights(self.path))


@dataclass(frozen=True)
class _Kind:
    name: str
    is_it: Callable[[_Contents], bool]
    read: Callable[[_Contents], Model]


# The first that says yes counts.
_FOLDERS = (
    _Kind(
        "an adapter of a run",
        lambda c: c.has(adapter_folder.CONFIG_FILE),
        lambda c: adapter_folder.read_adapted(c.path, read_model),
    ),
    _Kind("our pair of towers", lambda c: c.has(tower_pair.CONFIG_FILE), lambda c: tower_pair.read_towers(c.path)),
    _Kind(
        "a pair of towers",
        lambda c: c.has("vision/config.json", "text/config.json"),
        lambda c: tower_pair.read_pair(c.path),
    ),
    _Kind("open_clip", lambda c: c.has(OPEN_CLIP_CONFIG), lambda c: read_open_clip(c.path)),
    _Kind("BioViL", lambda c: biovil.find_image_file(c.path) is not None, lambda c: biovil.read_biovil(c.path)),
    _Kind("transformers' CLIP", lambda c: is_clip(c.path), lambda c: read_clip(c.path)),
    _Kind("transformers' SigLIP", lambda c: is_siglip(c.path), lambda c: read_siglip(c.path)),
    _Kind(
        "MedCLIP",
        lambda c: any(map(c.has, WEIGHT_FILES)) and medclip.is_medclip(c.tensors),
        lambda c: medclip.read_medclip(c.path),
    ),
)
_FILES = (
    _Kind(
        "PMC-CLIP (three files)",
        lambda c: c.path == pmc_clip.find_image_file(c.path.parent),
        lambda c: pmc_clip.read_three_files(c.path, bert_tokenizer(c.path)),
    ),
    _Kind("CLEFT", lambda c: is_cleft(c.tensors), lambda c: read_cleft(c.path)),
    _Kind(
        "mmlearn",
        lambda c: mmlearn.is_mmlearn(c.tensors),
        lambda c: mmlearn.read_mmlearn(c.tensors, c.path, bert_tokenizer(c.path)),
    ),
    _Kind(
        "OpenAI's CLIP",
        lambda c: openai_clip.is_openai_clip(c.tensors),
        lambda c: openai_clip.read_openai_clip(c.tensors, c.path, clip_tokenizer(c.path)),
    ),
    _Kind(
        "UniMed-CLIP",
        lambda c: unimed_clip.is_unimed_clip(c.tensors),
        lambda c: unimed_clip.read_unimed_clip(c.tensors, c.path, bert_tokenizer(c.path)),
    ),
    _Kind(
        "PMC-CLIP",
        lambda c: pmc_clip.is_pmc_clip(c.tensors),
        lambda c: pmc_clip.read_pmc_clip(c.tensors, c.path, bert_tokenizer(c.path)),
    ),
)


def read_model(path: Path) -> Model:
    """The model in a file or folder of a kind above. UserError names what is missing, unknown, misshapen or not finite."""
    return detect(path).read()


def detect(path: Path) -> Found:
    """What a file or folder is. UserError if it is no model, or if it could be several."""
    if path.is_file():
        return _detect_file(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a model folder, a run folder or hf-hub:org/name")
    if (path / "metrics.jsonl").is_file() or (path / "checkpoints").is_dir():
        return detect(path / "model") if (path / "model").is_dir() else _unfinished(path)
    if (path / "finetune.json").is_file():
        if not (path / "results.json").is_file():
            raise UserError(f"{path}: this fine-tuning is not finished; let `biomedclip finetune` go on")
        return detect(path / "model")
    contents = _Contents(path)
    for kind in _FOLDERS:
        if kind.is_it(contents):
            return Found(kind.name, path, functools.partial(_read, kind, contents))
    found = _detect_file(_only_weights(path))
    return Found(found.kind, path, found.read)


def _read(kind: _Kind, contents: _Contents) -> Model:
    model = kind.read(contents)
    return with_answering(model, contents.path) if holds_answering(contents.path) else model


def _detect_file(path: Path) -> Found:
    if path.suffix not in _SUFFIXES:
        raise UserError(f"{path}: not a model; expected a folder, or a weight file ending in {', '.join(_SUFFIXES)}")
    contents = _Contents(path)
    for kind in _FILES:
        if kind.is_it(contents):
            return Found(kind.name, path, functools.partial(kind.read, contents))
    raise UserError(
        f"{path}: not a weight file that explains itself (OpenAI CLIP, PubMedCLIP, UniMed-CLIP, PMC-CLIP, CLEFT, mmlearn); "
        "put it as open_clip_pytorch_model.bin into a folder with its open_clip_config.json, and name the folder; "
        f"{held(contents.tensors)}"
    )


def _unfinished(run: Path) -> Found:
    def read() -> Model:
        raise UserError(f"{run}: this run is not finished, so there is no {run / 'model'}; let `biomedclip train` go on")

    return Found(UNFINISHED_RUN, run, read)


def _only_weights(folder: Path) -> Path:
    """The weight file of a folder without a description. UserError if there is none, or several."""
    if image_file := pmc_clip.find_image_file(folder):
        return image_file
    if is_peft(folder):
        raise UserError(f"{folder}: an adapter of PEFT; expected a model, to which this can be given as its adapter")
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UserError(f"{folder}: {len(found)} weight files and no description of a model ({names}); name one of the files")
    if not found:
        raise UserError(
            f"{folder}: not a model folder; expected {OPEN_CLIP_CONFIG}, config.json of a CLIPModel or SiglipModel, or the "
            "released files of OpenAI CLIP, PubMedCLIP, PMC-CLIP, UniMed-CLIP, CLEFT, MedCLIP, BioViL or Open-PMC (README)"
        )
    return found[0]


def check_adapter(folder: Path) -> None:
    """UserError if the folder holds neither the adapter of a run nor one of PEFT."""
    if not ((folder / adapter_folder.CONFIG_FILE).is_file() or is_peft(folder)):
        raise UserError(
            f"{folder}: no {adapter_folder.CONFIG_FILE} in it; expected the adapter/ folder of a run, or one of PEFT"
        )


def read_adapter(folder: Path) -> Callable[[Model, object], Model]:
    """What puts the adapter in a folder on its base: called with the base and its name, it gives the model of both.

    UserError if the folder holds neither the adapter of a run nor one of PEFT.
    """
    check_adapter(folder)
    if is_peft(folder):
        return lambda base, source: with_peft(base, folder)
    adapter = adapter_folder.read_adapter(folder)
    return lambda base, source: adapter_folder.with_adapter(base, adapter, source)
