"""CLEFT's checkpoints (XYPB/CLEFT), read and written: a DINOv2 with registers beside a GPT-2 with an adapter.

A Lightning `.ckpt` of its first stage, or of its second one, which has learned context vectors besides. In its folder:

    tokenizer.json   or vocab.json and merges.txt, of stanford-crfm/BioMedLM (Hugging Face hub)
    config.json      of the language model; only needed where it is neither BioMedLM nor one of OpenAI's GPT-2s

Sources: XYPB/CLEFT `model_cleft.py`, `backbones/encoder_cleft.py`, `train.py`, `datasets/transforms.py`; PEFT 0.6.2, which
CLEFT pins, and newer ones, whose names have "base_layer" in them. What follows from them:

- Text is pooled as `GPTConfig.pool` = "first_eos" describes; alpha of LoRA, 32, is only in the code.
- Images are pooled over all tokens before the last norm, which the file holds and nobody uses, if "pool_feat" is among the
  file's hyper-parameters, or if there are none: every published command has it.
- The file's positions are those of 518 pixels, resized to 224 whenever the model runs; here once, when it is read.
- CLEFT crops an image to its foreground by Otsu's threshold before it resizes it. `PREPROCESS` does not.
"""

import dataclasses
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import (
    AdapterConfig,
    CLIPConfig,
    GPTConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
    PreprocessConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop import causal, dinov2
from biomedclip_jax.interop.layout import Entry, dense, one, stacked, to_params
from biomedclip_jax.interop.lightning import LightningFile
from biomedclip_jax.interop.model import Model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.vit import resize_positions

IMAGE = "img_encoder_q."
TEXT = "text_encoder_q."
LANGUAGE_MODEL = f"{TEXT}model.base_model.model.transformer."  # as LoRA and (IA)³ name it; other nestings are brought to it
PREFIX = f"{TEXT}model.prefix."  # our own name: PEFT has one table for all blocks
MODULES = {"attention/qkv": "attn.c_attn", "attention/out": "attn.c_proj", "mlp/fc1": "mlp.c_fc", "mlp/fc2": "mlp.c_proj"}
LORA_ALPHA = 32.0
PREPROCESS = PreprocessConfig(224, (0.5,) * 3, (0.5,) * 3, interpolation="bilinear", resize_mode="squash", gray=True)
IGNORED = {
    "*.local_embed.*": "head for local features: CLEFT makes it and never uses it",
    f"{IMAGE}model.mask_token": dinov2.IGNORED["mask_token"],
    "*.word_embeddings.weight": "the token embeddings once more",
} | causal.IGNORED

VIT = ViTConfig(
    patch_size=14, pool="mean_prenorm", registers=4, position_on_registers=False, layer_scale=True, layer_norm_eps=1e-6
)
_VIT_HEAD_WIDTH = 64
_GPT2 = GPTConfig(50_257, inverse_layer_scale=False)
_KNOWN = {  # {(width, depth): a language model whose config is known}; the rest is in the shapes
    (2560, 32): GPTConfig(),
    **{
        (width, depth): dataclasses.replace(_GPT2, width=width, depth=depth, heads=heads, pad_id=50_256)
        for width, depth, heads in ((768, 12, 12), (1024, 24, 16), (1280, 36, 20), (1600, 48, 25))
    },
}

_TOWER = re.compile(rf"{re.escape(TEXT)}model\.(?:base_model\.)*(?:model\.)?transformer\.")
_TABLE = re.compile(rf"{re.escape(TEXT)}model\.(?:base_model\.)*prompt_encoder\.default\.embedding\.weight")


class Named(Mapping[str, np.ndarray]):
    """A file's tensors under the names of `entries`, whatever PEFT nested them in; `names` has what the file calls them."""

    def __init__(self, file: LightningFile):
        self.file = file
        self.names = {_TOWER.sub(LANGUAGE_MODEL, name).replace(".base_layer.", "."): name for name in file}

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.file[self.names[name]]
        return tensor.reshape(1, -1) if ".ia3_l." in name else tensor

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.names:
            raise UserError(f"not a CLEFT with DINOv2 and GPT-2: it has no tensor {name}")
        return self.file.shape(self.names[name])

    def table(self, width: int) -> str | None:
        """The name of PEFT's table of virtual tokens with rows of `width` numbers."""
        return next((n for n in self.names if _TABLE.fullmatch(n) and self.file.shape(n)[-1] == width), None)


def read_cleft(path: Path) -> Model:
    """The model in a checkpoint of either stage; its adapter stays beside the weights. Context vectors: `read_context`.

    UserError names what is missing, unknown or misshapen, and what there is no tower for: LLaMA, AdaLoRA, heads of two layers.
    """
    file = LightningFile(path)
    if not any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"{path}: no tokenizer beside it; fetch tokenizer.json of stanford-crfm/BioMedLM (Hugging Face hub) into {path.parent}"
        )
    tensors = Named(file)
    try:
        config = _config(tensors, path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(config.text, GPTConfig)
    width, depth = config.text.width, config.text.depth
    ignored = IGNORED | {name: "learned context: `read_context` reads it" for name in [tensors.table(width)] if name}
    found: Mapping[str, np.ndarray] = tensors
    table = tensors.table(2 * depth * width)
    if table is not None:
        ignored[table] = "the prefix: read block by block"
        found = ChainMap(_blocks_of(tensors[table], depth), tensors)  # type: ignore[arg-type]
    for name in tensors:
        if name.endswith(".word_embeddings.weight") and not np.array_equal(tensors[name], tensors[f"{LANGUAGE_MODEL}wte.weight"]):
            raise UserError(f"{path}: {name} differs from the token embeddings, of which it is a copy; the file is damaged")
    # the positions as they stand in the file, resized afterwards
    grid = round((tensors.shape(f"{IMAGE}model.pos_embed")[1] - 1) ** 0.5)
    stored = dataclasses.replace(config, image=dataclasses.replace(config.vit, image_size=grid * config.vit.patch_size))
    params, report = to_params(found, entries(stored), abstract_model(stored)[1], ignored, path)
    params["image"]["position"] = resize_positions(params["image"]["position"], 1, config.vit.image_size // config.vit.patch_size)
    used = [table if name.startswith(PREFIX) else tensors.names[name] for name in report.used]
    report.used = list(dict.fromkeys(name for name in used if name))
    report.ignored = {tensors.names[name]: why for name, why in report.ignored.items() if name != table}
    preprocess = dataclasses.replace(PREPROCESS, image_size=config.vit.image_size)
    return Model(config, preprocess, params, path.parent, report)


def read_context(path: Path) -> np.ndarray:
    """The context vectors that CLEFT's second stage learned, float32 [n, D], shared by all classes; released: n = 30.

    They stand before the word embeddings of a text, at the first n places. UserError if the checkpoint has none.
    """
    tensors = Named(LightningFile(path))
    name = tensors.table(tensors.shape(f"{LANGUAGE_MODEL}wte.weight")[1])
    if name is None:
        raise UserError(f"{path}: no learned context; expected a checkpoint of CLEFT's second stage (--prompt_ft)")
    return np.asarray(tensors[name], np.float32)


def context_layout(tokens: np.ndarray, count: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` learned vectors before each text, as `evaluation.prompt_learning.context.Layout`: (tokens, slots), int32.

    tokens: int32 [C, N]. CLEFT pads names to its whole `context_length` N, and "first_eos" takes a text that fills N for cut.
    A name is tokenised as it stands after another word, with the space before it.
    """
    before = np.full((len(tokens), count), 0 if pad_id else 1, np.int32)  # any token that is no padding
    slots = np.concatenate([np.tile(np.arange(count, dtype=np.int32), (len(tokens), 1)), np.full_like(tokens, -1)], axis=1)
    return np.concatenate([before, tokens.astype(np.int32)], axis=1), slots.astype(np.int32)


def entries(config: CLIPConfig) -> list[Entry]:
    """Every parameter under CLEFT's names, those of the language model as LoRA nests them."""
    text, adapter = config.text, config.text_adapter
    assert isinstance(text, GPTConfig)
    found = [
        *dinov2.own_entries(config.vit, f"{IMAGE}model."),
        *causal.entries(text, LANGUAGE_MODEL),
        *dense("image_head/proj", f"{IMAGE}global_embed"),
        *dense("text_head/proj", f"{TEXT}global_embed"),
        one("logit_scale", "logit_scale"),
    ]
    if isinstance(adapter, PrefixConfig):
        path = "text/blocks/attention/prefix/virtual_"
        return found + [stacked(f"{path}{part}", text.depth, f"{PREFIX}{{}}.{part}") for part in ("keys", "values")]
    for layer, module in MODULES.items():
        path, name = f"text/blocks/{layer}/", f"{LANGUAGE_MODEL}h.{{}}.{module}."
        if isinstance(adapter, LoRAConfig) and layer in adapter.layers:
            for part in "AB":
                foreign = f"{name}lora_{part}.default.weight"
                found.append(stacked(f"{path}lora_{part.lower()}", text.depth, foreign, form="linear"))
        if isinstance(adapter, IA3Config) and layer in (*adapter.scaled_outputs, *adapter.scaled_inputs):
            found.append(stacked(f"{path}ia3", text.depth, f"{name}ia3_l.default", form="batch1"))
    return found


def _blocks_of(table: np.ndarray, depth: int) -> dict[str, np.ndarray]:
    """PEFT's prefix [T, 2·L·D] as keys and values [T, D] of each block."""
    split = table.reshape(len(table), depth, 2, -1)
    return {f"{PREFIX}{i}.{part}": split[:, i, j] for i in range(depth) for j, part in enumerate(("keys", "values"))}


# --- sizes ----------------------------------------------------------------------------------------------------------


def _config(tensors: Named, folder: Path) -> CLIPConfig:
    chosen = tensors.file.hyper_parameters
    if chosen.get("llm_type", "gpt") != "gpt":
        raise UserError(f"CLEFT with llm_type = {chosen['llm_type']!r} is not supported; supported: 'gpt'")
    for part in (IMAGE, TEXT):
        if f"{part}global_embed.head.0.weight" in tensors:
            raise UserError(
                f"{part}global_embed has two layers with BatchNorm; only the released form, one layer (--linear_proj), is supported"
            )
    kernel = f"{IMAGE}model.patch_embed.proj.weight"
    width, _, patch_size, _ = tensors.shape(kernel)
    pooled = not chosen or bool(chosen.get("pool_feat")) or (chosen.get("img_mask_ratio") or 0) > 0
    image = dataclasses.replace(
        VIT,
        image_size=PREPROCESS.image_size // patch_size * patch_size,
        patch_size=patch_size,
        width=width,
        depth=_depth(tensors, f"{IMAGE}model.blocks."),
        heads=max(1, width // _VIT_HEAD_WIDTH),
        mlp_width=tensors.shape(f"{IMAGE}model.blocks.0.mlp.fc1.weight")[0],
        registers=tensors.shape(f"{IMAGE}model.register_tokens")[1],
        pool="mean_prenorm" if pooled else "cls",
    )
    text = dataclasses.replace(_language_model(tensors, folder), context_length=_context_length(chosen), pool="first_eos")
    return CLIPConfig(
        image=image,
        text=text,
        embed_width=tensors.shape(f"{TEXT}global_embed.weight")[0],
        image_head_bias=True,
        text_head="linear",
        text_head_bias=True,
        text_adapter=_adapter(tensors, text),
    )


def _context_length(chosen: Mapping[str, Any]) -> int:
    """Tokens of a caption: CheXpert and RSNA 64, EMBED 72, or 144 in its long styles."""
    if not chosen.get("embed"):
        return 64
    return 144 if chosen.get("structural_cap") or chosen.get("natural_cap") else 72


def _language_model(tensors: Named, folder: Path) -> GPTConfig:
    vocabulary, width = tensors.shape(f"{LANGUAGE_MODEL}wte.weight")
    depth = _depth(tensors, f"{LANGUAGE_MODEL}h.")
    if (folder / "config.json").is_file():
        described = causal.read_config(folder)
        if not isinstance(described, GPTConfig):
            raise UserError(f"{folder / 'config.json'} describes a LLaMA; expected the GPT-2 in this checkpoint")
        return described
    if (width, depth) not in _KNOWN:
        raise UserError(
            f"a GPT-2 of width {width} and depth {depth}, whose heads the file does not tell; put its config.json into {folder}"
        )
    positions = tensors.shape(f"{LANGUAGE_MODEL}wpe.weight")[0]
    return dataclasses.replace(_KNOWN[width, depth], vocab_size=vocabulary, positions=positions, pad_id=vocabulary - 1)


def _depth(tensors: Named, prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)})


def _adapter(tensors: Named, text: GPTConfig) -> AdapterConfig | None:
    table = tensors.table(2 * text.depth * text.width)
    if table is not None:
        return PrefixConfig(tensors.shape(table)[0])
    first = {layer: f"{LANGUAGE_MODEL}h.0.{module}" for layer, module in MODULES.items()}
    if any(f"{name}.lora_E.default" in tensors for name in first.values()):
        raise UserError("AdaLoRA in a checkpoint of CLEFT is not supported; supported: LoRA, (IA)³, a prefix, or none")
    low_rank = tuple(layer for layer, name in first.items() if f"{name}.lora_A.default.weight" in tensors)
    if low_rank:
        rank = tensors.shape(f"{first[low_rank[0]]}.lora_A.default.weight")[0]
        return LoRAConfig(rank, LORA_ALPHA, 0.1, low_rank)
    scaled = {layer: tensors.shape(f"{name}.ia3_l.default") for layer, name in first.items() if f"{name}.ia3_l.default" in tensors}
    inputs = tuple(layer for layer, shape in scaled.items() if shape[0] == 1)  # [1, in] of an input, [out, 1] of an output
    return IA3Config(tuple(layer for layer in scaled if layer not in inputs), inputs) if scaled else None


def with_positions(image: Mapping[str, Any], position: np.ndarray) -> dict[str, Any]:
    """The parameters of an image tower with another table of positions."""
    return {**image, "position": jnp.asarray(position)}
