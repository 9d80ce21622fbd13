"""Checkpoints of mmlearn's `ContrastivePretraining` with BiomedCLIP's towers, such as Open-PMC's OPEN_PMC_CLIP.ckpt.

A Lightning `.ckpt`: each tower of open_clip under `encoders`, the temperature among the postprocessors. Beside it
vocab.txt of BiomedBERT. Images and texts are BiomedCLIP's.

Sources: VectorInstitute/mmlearn `tasks/contrastive_pretraining.py`, VectorInstitute/pmc-data-extraction
`openpmcvl/experiment/modules/encoders.py` (0658642).
"""

import dataclasses
from pathlib import Path
from typing import Any

from biomedclip_jax.config import BertConfig, CLIPConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, held, one, to_params
from biomedclip_jax.interop.formats.huggingface.mapping import BERT_IGNORED, bert_config, bert_entries
from biomedclip_jax.interop.formats.open_clip.mapping import timm_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.models import abstract_model

_ENCODERS = "encoders."
_IMAGE, _TEXT = f"{_ENCODERS}rgb.model.", f"{_ENCODERS}text.model."
_SCALE = "log_logit_scale"
_BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_CONTEXT, _HEAD_WIDTH = 256, 64


def is_mmlearn(tensors: TensorFile) -> bool:
    """Whether a weight file is of mmlearn, by its names."""
    return any(name.startswith(_ENCODERS) for name in tensors)


def read_mmlearn(tensors: TensorFile, path: Path, tokenizer: Path) -> Model:
    """The model in `tensors`, which were read from `path`. UserError names what is missing, unknown or misshapen."""
    scale = next((name for name in tensors if name.rpartition(".")[2] == _SCALE), None)
    needed = (f"{_IMAGE}trunk.pos_embed", f"{_IMAGE}trunk.patch_embed.proj.weight", f"{_TEXT}proj.2.weight")
    if scale is None or any(name not in tensors for name in needed):
        raise UserError(
            f"{path}: a checkpoint of mmlearn, but not of BiomedCLIP's two towers ({_IMAGE}trunk, {_TEXT}transformer) with a "
            f"learned temperature ({_SCALE}); {held(tensors)}"
        )
    text = bert_config(tensors, f"{_TEXT}transformer.", path.parent, _BERT)
    text = dataclasses.replace(text, context_length=min(_CONTEXT, text.positions))
    config = CLIPConfig(image=_vit(tensors), text=text, embed_width=tensors.shape(f"{_TEXT}proj.2.weight")[0])
    ignored = {f"{_TEXT}transformer.{pattern}": why for pattern, why in BERT_IGNORED.items()}
    params, report = to_params(tensors, _entries(config, text, scale), abstract_model(config)[1], ignored, path)
    return Model(config, PreprocessConfig(config.image.image_size), params, tokenizer, report, _BERT)


def _vit(tensors: TensorFile) -> ViTConfig:
    width, _, patch, _ = tensors.shape(f"{_IMAGE}trunk.patch_embed.proj.weight")
    depth = sum(name.startswith(f"{_IMAGE}trunk.blocks.") and name.endswith("norm1.weight") for name in tensors)
    side = round((tensors.shape(f"{_IMAGE}trunk.pos_embed")[1] - 1) ** 0.5)
    sizes: dict[str, Any] = {"width": width, "depth": depth, "heads": width // _HEAD_WIDTH, "mlp_width": 4 * width}
    return ViTConfig(image_size=side * patch, patch_size=patch, **sizes)


def _entries(config: CLIPConfig, text: BertConfig, scale: str) -> list[Entry]:
    return [
        *timm_entries(config.vit, f"{_IMAGE}trunk."),
        *dense("image_head/proj", f"{_IMAGE}head.proj", bias=False),
        *bert_entries(text, f"{_TEXT}transformer."),
        *dense("text_head/fc1", f"{_TEXT}proj.0", bias=False),
        *dense("text_head/fc2", f"{_TEXT}proj.2", bias=False),
        one("logit_scale", scale),
    ]
