"""PMC-CLIP as released: CLIP's ResNet-50 beside PubMedBERT, in two forms that are not the same model.

    checkpoint.pt (axiong/pmc_oa_beta, axiong/pmc_oa)   the whole training state. Read as the training code computes:
                                                        32 heads in the attention pool, [CLS] of BERT's last block
    image_encoder(resnet50).pth, text_encoder.pth,      the towers for use (axiong/pmc_oa). Read as their authors'
    text_projection_layer.pth                           notebook and BiomedCoOp compute: 8 heads, BERT's tanh pooler;
                                                        there is no temperature among them, its logarithm is
                                                        BiomedCoOp's 4.4292

Beside them vocab.txt of PubMedBERT. In both forms a text has exactly 77 tokens, and its padding is looked at as if it
were text: no mask was given in training. The fusion module and the masked-word head of the first form have no part in
embeddings.

Sources: WeixiongLin/PMC-CLIP `src/pmc_clip/model/pmc_clip.py`, `blocks.py`, `config.py`, `transform.py`,
`model_configs/RN50_fusion4.json` (b0b81e3); HealthX-Lab/BiomedCoOp `trainers/biomedcoop_pmcclip.py`,
`clip/pmcclip.py`; the notebook as VectorInstitute/pmc-data-extraction `openpmcvl/experiment/modules/pmc_clip.py`
has it.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, CLIPConfig, ComputeConfig, PreprocessConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, one, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.baselines.resnet.mapping import BATCH_COUNTS, clip_resnet_config, resnet_entries
from biomedclip_jax.interop.formats.huggingface.mapping import BERT_IGNORED, bert_config, bert_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import Parts, TensorFile
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.bert import Bert

IMAGE_FILES = ("image_encoder(resnet50).pth", "image_encoder_resnet50.pth")
TEXT_FILE = "text_encoder.pth"
PROJECTION_FILE = "text_projection_layer.pth"

_BERT = "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext"
_CONTEXT = 77
_NOTEBOOK_HEADS = 8
_NOTEBOOK_LOGIT_SCALE = 4.4292
_UNUSED = "made and never used: PubMedBERT has its own"
_FUSION = "fusion of image and text for masked words: not part of the embeddings"


@dataclass(frozen=True)
class PmcClipTextConfig(BertConfig):
    """A BERT whose texts are always as long as `context_length`, padding included."""

    quirk: ClassVar[str] = "it looks at padding, as PMC-CLIP's does"

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "PmcClipText":
        """The tower with fresh parameters."""
        return PmcClipText(self, compute, rngs)


class PmcClipText(Bert):
    """tokens [B, N] -> [B, D]. Whatever padding is missing up to `context_length` is added, so that N does not matter."""

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """Features of word embeddings float32 [B, N, D]; `tokens` only tells pooling what is padding."""
        pad = self.config.pad_id
        missing = self.config.context_length - tokens.shape[1]
        if missing > 0:
            rows = len(tokens)
            tokens = jnp.concatenate([tokens, jnp.full((rows, missing), pad, tokens.dtype)], axis=1)
            padding = jnp.broadcast_to(self.word[pad], (rows, missing, words.shape[-1]))
            words = jnp.concatenate([words, padding.astype(words.dtype)], axis=1)
        return self.pool(self.hidden(words, None, keys)[0], tokens != pad)


def is_pmc_clip(tensors: TensorFile) -> bool:
    """Whether a weight file is PMC-CLIP's whole checkpoint, by its names."""
    return "text_encoder.embeddings.word_embeddings.weight" in tensors and "text_projection" in tensors


def find_image_file(folder: Path) -> Path | None:
    """The image tower of the form in three files; None in a folder without it."""
    return next((folder / name for name in IMAGE_FILES if (folder / name).is_file()), None)


def read_pmc_clip(tensors: TensorFile, path: Path, tokenizer: Path) -> Model:
    """The whole checkpoint, read from `path`. UserError names what is missing, unknown or misshapen."""
    ignored = {
        "text_encoder.pooler.*": BERT_IGNORED["pooler.*"],
        "positional_embedding": _UNUSED,
        "ln_final.*": _UNUSED,
        "fusion_module.*": _FUSION,
        "img_special_token": _FUSION,
        "mlm_projection": _FUSION,
    }
    return _read(
        tensors, ("visual.", "text_encoder.", "text_projection"), ignored, path, path.parent, tokenizer, notebook=False
    )


def read_three_files(image_file: Path, tokenizer: Path) -> Model:
    """The form in three files, of which `image_file` is one. UserError names what is missing, unknown or misshapen."""
    folder = image_file.parent
    for name in (TEXT_FILE, PROJECTION_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; expected it beside {image_file.name}, as PMC-CLIP was released")
    files = {"image": image_file, "text": folder / TEXT_FILE, "projection": folder / PROJECTION_FILE}
    tensors = Parts({part: read_unwrapped(file) for part, file in files.items()})
    return _read(tensors, ("image.", "text.", "projection.tensor"), {}, folder, folder, tokenizer, notebook=True)


def _read(
    tensors: TensorFile,
    names: tuple[str, str, str],
    ignored: dict[str, str],
    source: Path,
    folder: Path,
    tokenizer: Path,
    *,
    notebook: bool,
) -> Model:
    """names: what stands before the image tower's and BERT's, and the projection."""
    image_prefix, bert_prefix, projection = names
    image = clip_resnet_config(tensors, image_prefix, source)
    text = bert_config(tensors, bert_prefix, folder, _BERT)
    text = PmcClipTextConfig(**vars(dataclasses.replace(text, context_length=min(_CONTEXT, text.positions))))
    if notebook:
        image = dataclasses.replace(image, heads=_NOTEBOOK_HEADS)
        text = dataclasses.replace(text, pool="cls_pooler")
    head = f"{image_prefix}attnpool.c_proj"
    if projection not in tensors or f"{head}.weight" not in tensors:
        raise UserError(f"{source}: no tensor {projection} or {head}.weight; expected PMC-CLIP as it was released")
    config = CLIPConfig(
        image=image,
        text=text,
        embed_width=tensors.shape(f"{head}.weight")[0],
        image_head_bias=True,
        text_head="linear",
        init_logit_scale=_NOTEBOOK_LOGIT_SCALE if notebook else CLIPConfig.init_logit_scale,
    )
    table: list[Entry] = [
        *resnet_entries(image, image_prefix),
        *dense("image_head/proj", head),
        *bert_entries(text, bert_prefix),
        one("text_head/proj/kernel", projection),
    ]
    ignored = ignored | BATCH_COUNTS | {f"{bert_prefix}embeddings.position_ids": BERT_IGNORED["*position_ids"]}
    shapes = abstract_model(config)[1]
    fixed: dict[str, Any] = {}
    if notebook:
        del shapes["logit_scale"]
        fixed["logit_scale"] = jnp.float32(_NOTEBOOK_LOGIT_SCALE)
    else:
        table.append(one("logit_scale", "logit_scale"))
    params, report = to_params(tensors, table, shapes, ignored, source)
    return Model(config, PreprocessConfig(image.image_size), params | fixed, tokenizer, report)
