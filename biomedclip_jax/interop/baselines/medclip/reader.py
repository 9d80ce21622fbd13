"""MedCLIP as released: Swin-T or ResNet-50 beside Bio_ClinicalBERT.

A folder with

    pytorch_model.bin   from the zip that medclip's `MedCLIPModel.from_pretrained()` downloads (medclip-vit or
                        medclip-resnet)
    vocab.txt           of emilyalsentzer/Bio_ClinicalBERT on the Hugging Face hub; its config.json may be beside it

Sources: RyanWangZf/MedCLIP `medclip/modeling_medclip.py`, `dataset.py`, `constants.py` (PyPI medclip 0.0.3);
transformers `modeling_swin.py`. What follows from them, and what differs on purpose:

- The text feature is the mean over tokens of the outputs of the first, second and last block, and of these three.
  MedCLIP takes that mean over padding, too, so that there the embedding of a sentence depends on the longest one
  beside it. Here padding is left out: each sentence has the embedding that MedCLIP gives it when it comes alone.
- Images go as in `MedCLIPProcessor`: one channel, padded with black to a square of at least 224, bicubic to 224.
  (Its data sets for training and zero-shot classification resize bilinearly: `PreprocessConfig.interpolation`.)
- The temperature is clamped to [0, 4.6052] as a logarithm whenever it is used; here once, when it is read.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from biomedclip_jax.config import BertConfig, CLIPConfig, ComputeConfig, PreprocessConfig
from biomedclip_jax.config.checks import check
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, norm, one, stacked, to_params
from biomedclip_jax.interop._wrappers import read_unwrapped
from biomedclip_jax.interop.baselines.medclip._swin import SwinConfig
from biomedclip_jax.interop.baselines.resnet.mapping import BATCH_COUNTS, resnet_entries, torchvision_config
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config, bert_entries
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.tensor_files import TensorFile, find_weights
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.bert import Bert, mean_of_tokens

_TEXT_HEAD = "text_model.projection_head"
_IMAGE, _TEXT = "vision_model.model.", "text_model.model."
_BERT = "emilyalsentzer/Bio_ClinicalBERT"
_CONTEXT = 77
_IMAGE_SIZE = 224
_MEAN, _STD = 0.5862785803043838, 0.27950088968644304
PREPROCESS = PreprocessConfig(_IMAGE_SIZE, (_MEAN, _MEAN, _MEAN), (_STD, _STD, _STD), resize_mode="pad", gray=True)
_LARGEST_LOGIT_SCALE = 4.6052

_IGNORED = BATCH_COUNTS | {
    "*.position_ids": "index buffer of older transformers versions",
    "*.relative_position_index": "index buffer: made from the size of the window",
    f"{_TEXT}pooler.*": "BERT's pooler: MedCLIP reads the hidden states",
}


@dataclass(frozen=True)
class MedCLIPTextConfig(BertConfig):
    """A BERT, pooled as MedCLIP does it; `pool` is not used."""

    quirk: ClassVar[str] = "open_clip does not have MedCLIP's pooling"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.depth > 1, self, "depth", "at least 2, of which the first two are read")

    @property
    def features(self) -> int:
        """Width of what the tower gives."""
        return self.width

    def build(self, compute: ComputeConfig, rngs: nnx.Rngs) -> "MedCLIPText":
        """The tower with fresh parameters."""
        return MedCLIPText(self, compute, rngs)


class MedCLIPText(Bert):
    """tokens [B, N] -> [B, D]: the mean over tokens of the outputs of the first, the second and the last block."""

    def from_words(self, words: Array, tokens: Array, keys: Array | None = None) -> Array:
        """Features of word embeddings float32 [B, N, D]; `tokens` only tells what is padding."""
        mask = tokens != self.config.pad_id
        _, means = self.hidden(words, mask, keys, lambda x: mean_of_tokens(x, mask))
        return (means[0] + means[1] + means[-1]) / 3


def is_medclip(tensors: TensorFile) -> bool:
    """Whether a weight file is MedCLIP's, by its names."""
    return f"{_TEXT_HEAD}.weight" in tensors


def read_medclip(folder: Path) -> Model:
    """MedCLIP from its folder. UserError names what is missing, unknown or misshapen."""
    path = find_weights(folder)
    tensors = read_unwrapped(path)
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise UserError(f"{folder}: MedCLIP without its tokenizer; put vocab.txt of {_BERT} (Hugging Face hub) here")
    text = bert_config(tensors, _TEXT, folder, _BERT)
    text = MedCLIPTextConfig(**vars(dataclasses.replace(text, context_length=min(_CONTEXT, text.positions))))
    swin = f"{_IMAGE}embeddings.patch_embeddings.projection.weight" in tensors
    image = _swin_config(tensors, path) if swin else torchvision_config(tensors, _IMAGE, _IMAGE_SIZE, "mean", path)
    width = tensors.shape(f"{_TEXT_HEAD}.weight")[0]
    config = CLIPConfig(image=image, text=text, embed_width=width, text_head="linear")
    params, report = to_params(tensors, medclip_entries(config), abstract_model(config)[1], _IGNORED, path)
    params["logit_scale"] = jnp.clip(params["logit_scale"], 0, _LARGEST_LOGIT_SCALE)
    return Model(config, PREPROCESS, params, folder, report)


def medclip_entries(config: CLIPConfig) -> list[Entry]:
    """Every parameter under MedCLIP's names."""
    image, text = config.image, config.text
    assert isinstance(image, SwinConfig | ResNetConfig) and isinstance(text, MedCLIPTextConfig)
    if isinstance(image, SwinConfig):
        vision = [*swin_entries(image, _IMAGE), *dense("image_head/proj", "vision_model.projection_head", bias=False)]
    else:
        vision = [*resnet_entries(image, _IMAGE), *dense("image_head/proj", f"{_IMAGE}fc", bias=False)]
    head = dense("text_head/proj", _TEXT_HEAD, bias=False)
    return [*vision, *bert_entries(text, _TEXT), *head, one("logit_scale", "logit_scale")]


def swin_entries(config: SwinConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A Swin under transformers' names; `prefix` stands before each of them."""
    found = [
        one(f"{path}patch/kernel", f"{prefix}embeddings.patch_embeddings.projection.weight", "patch"),
        one(f"{path}patch/bias", f"{prefix}embeddings.patch_embeddings.projection.bias"),
        *norm(f"{path}norm_patch", f"{prefix}embeddings.norm"),
        *norm(f"{path}norm", f"{prefix}layernorm"),
    ]
    for i, depth in enumerate(config.depths):
        ours, theirs = f"{path}stage{i}/blocks/", f"{prefix}encoder.layers.{i}.blocks.{{}}."
        query_key_value = tuple(f"{theirs}attention.self.{part}" for part in ("query", "key", "value"))
        found += norm(f"{ours}norm1", f"{theirs}layernorm_before", depth)
        found += norm(f"{ours}norm2", f"{theirs}layernorm_after", depth)
        found += dense(f"{ours}attention/qkv", query_key_value, depth)
        found += dense(f"{ours}attention/out", f"{theirs}attention.output.dense", depth)
        found.append(stacked(f"{ours}attention/position", depth, f"{theirs}attention.self.relative_position_bias_table"))
        found += dense(f"{ours}mlp/fc1", f"{theirs}intermediate.dense", depth)
        found += dense(f"{ours}mlp/fc2", f"{theirs}output.dense", depth)
        if i + 1 < len(config.depths):
            merge = f"{prefix}encoder.layers.{i}.downsample."
            found += norm(f"{path}merge{i}/norm", f"{merge}norm")
            found += dense(f"{path}merge{i}/reduce", f"{merge}reduction", bias=False)
    return found


def _swin_config(tensors: TensorFile, path: Path) -> SwinConfig:
    """Sizes from the tensors; the size of images is not among them."""
    layers = f"{_IMAGE}encoder.layers."
    split = [name.removeprefix(layers).split(".") for name in tensors if name.startswith(layers)]
    numbers = {(int(p[0]), int(p[2])) for p in split if p[1] == "blocks"}
    depths = tuple(sum(stage == i for stage, _ in numbers) for i in range(1 + max((s for s, _ in numbers), default=-1)))

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise UserError(f"{path}: no tensor {name}; expected MedCLIP with a Swin transformer")
        return tensors.shape(name)

    tables = [shape(f"{layers}{i}.blocks.0.attention.self.relative_position_bias_table") for i in range(len(depths))]
    width, _, patch_size, _ = shape(f"{_IMAGE}embeddings.patch_embeddings.projection.weight")
    return SwinConfig(
        image_size=_IMAGE_SIZE,
        patch_size=patch_size,
        first_width=width,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        window=(round(tables[0][0] ** 0.5) + 1) // 2,
        mlp_ratio=shape(f"{layers}0.blocks.0.intermediate.dense.weight")[0] // width,
    )
