"""The names and sizes in CLEFT's checkpoints; what is done with them is in `checkpoint.py`."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.config import (
    AdapterConfig,
    CLIPConfig,
    GPTConfig,
    IA3Config,
    LlamaConfig,
    LoRAConfig,
    PrefixConfig,
    ViTConfig,
)
from biomedclip_jax.config.adapters import block_layers
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._lightning import LightningFile
from biomedclip_jax.interop._mapping import Entry, dense, one, stacked
from biomedclip_jax.interop.formats.huggingface import causal, dinov2
from biomedclip_jax.interop.formats.peft.names import NAMES, key_width

IMAGE = "img_encoder_q."
TEXT = "text_encoder_q."
LANGUAGE_MODELS: dict[type, str] = {  # as LoRA and (IA)³ name them; other nestings are brought to it
    GPTConfig: f"{TEXT}model.base_model.model.transformer.",
    LlamaConfig: f"{TEXT}model.base_model.model.model.",
}
PREFIX = f"{TEXT}model.prefix."  # our own name: PEFT has one table for all blocks
LORA_ALPHA = 32.0
IMAGE_SIZE = 224

VIT = ViTConfig(
    patch_size=14, pool="mean_prenorm", registers=4, position_on_registers=False, layer_scale=True, layer_norm_eps=1e-6
)
VIT_HEAD_WIDTH = 64
_GPT2 = GPTConfig(50_257, inverse_layer_scale=False)
KNOWN = {  # {(width, depth): a language model whose config is known}; the rest is in the shapes
    (2560, 32): GPTConfig(),
    **{
        (width, depth): dataclasses.replace(_GPT2, width=width, depth=depth, heads=heads, pad_id=50_256)
        for width, depth, heads in ((768, 12, 12), (1024, 24, 16), (1280, 36, 20), (1600, 48, 25))
    },
}

_NESTED = {
    GPTConfig: re.compile(rf"{re.escape(TEXT)}model\.(?:base_model\.)*(?:model\.)?transformer\."),
    LlamaConfig: re.compile(rf"{re.escape(TEXT)}model\.(?:base_model\.)*(?:model\.)+(?=layers\.|embed_tokens\.|norm\.)"),
}
_WORDS = {GPTConfig: "wte.weight", LlamaConfig: "embed_tokens.weight"}
_TABLE = re.compile(rf"{re.escape(TEXT)}model\.(?:base_model\.)*prompt_encoder\.default\.embedding\.weight")


class Named(Mapping[str, np.ndarray]):
    """A file's tensors under the names of `entries`, whatever PEFT nested them in; `names` has what the file calls them."""

    def __init__(self, path: Path):
        self.path = path
        self.file = file = LightningFile(path)
        self.names = {_unnested(name).replace(".base_layer.", "."): name for name in file}
        self.language: type[causal.CausalConfig] = LlamaConfig if words_of(LlamaConfig) in self.names else GPTConfig
        self.words = words_of(self.language)

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
        """Sizes of the axes of the tensor with this name, without reading it."""
        if name not in self.names:
            raise UserError(f"{self.path}: no tensor {name}; expected a checkpoint of CLEFT with DINOv2 and GPT-2 or LLaMA")
        return self.file.shape(self.names[name])

    def table(self, width: int) -> str | None:
        """The name of PEFT's table of virtual tokens with rows of `width` numbers."""
        return next((n for n in self.names if _TABLE.fullmatch(n) and self.file.shape(n)[-1] == width), None)


def words_of(language: type) -> str:
    """The name of the token embeddings."""
    return f"{LANGUAGE_MODELS[language]}{_WORDS[language]}"


def _unnested(name: str) -> str:
    for kind, pattern in _NESTED.items():
        name = pattern.sub(LANGUAGE_MODELS[kind], name)
    return name


def entries(config: CLIPConfig, adapter: AdapterConfig | None) -> list[Entry]:
    """Every parameter under CLEFT's names, those of the language model, with this adapter, as LoRA nests them."""
    text = config.text
    assert isinstance(text, GPTConfig | LlamaConfig)
    prefix, names = LANGUAGE_MODELS[type(text)], NAMES[type(text)][0]
    found = [
        *dinov2.own_entries(config.vit, f"{IMAGE}model."),
        *causal.entries(text, prefix),
        *dense("image_head/proj", f"{IMAGE}global_embed"),
        *dense("text_head/proj", f"{TEXT}global_embed"),
        one("logit_scale", "logit_scale"),
    ]
    if isinstance(adapter, PrefixConfig):
        path = "text/blocks/attention/prefix/virtual_"
        return found + [stacked(f"{path}{part}", text.depth, f"{PREFIX}{{}}.{part}") for part in ("keys", "values")]
    adapted: tuple[str, ...] = ()
    if isinstance(adapter, LoRAConfig):
        adapted = adapter.layers_in(block_layers(text))
    if isinstance(adapter, IA3Config):
        outputs, inputs = adapter.layers_in(block_layers(text))
        adapted = (*outputs, *inputs)
    for layer in adapted:
        path, name = f"text/blocks/{layer}/", f"{prefix}{names.block}.{{}}.{names.modules[layer]}."
        if isinstance(adapter, IA3Config):
            found.append(stacked(f"{path}ia3", text.depth, f"{name}ia3_l.default", form="batch1"))
            continue
        for part in "AB":
            foreign = f"{name}lora_{part}.default.weight"
            found.append(stacked(f"{path}lora_{part.lower()}", text.depth, foreign, form="linear"))
    return found


# --- sizes -----------------------------------------------------------------------------------------------------------


def config_of(tensors: Named) -> CLIPConfig:
    """The model's sizes: from shapes, hyper-parameters, and the config.json of the language model in the same folder."""
    chosen = tensors.file.hyper_parameters
    if chosen.get("llm_type", "gpt") not in ("gpt", "llama"):
        raise UserError(f"{tensors.path}: llm_type = {chosen['llm_type']!r} is not supported; supported: 'gpt', 'llama'")
    for part in (IMAGE, TEXT):
        if f"{part}global_embed.head.0.weight" in tensors:
            raise UserError(
                f"{tensors.path}: {part}global_embed has two layers and BatchNorm; "
                "supported: one layer, as released (--linear_proj)"
            )
    kernel = f"{IMAGE}model.patch_embed.proj.weight"
    width, _, patch_size, _ = tensors.shape(kernel)
    pooled = not chosen or bool(chosen.get("pool_feat")) or (chosen.get("img_mask_ratio") or 0) > 0
    image = dataclasses.replace(
        VIT,
        image_size=IMAGE_SIZE // patch_size * patch_size,
        patch_size=patch_size,
        width=width,
        depth=_depth(tensors, f"{IMAGE}model.blocks."),
        heads=max(1, width // VIT_HEAD_WIDTH),
        mlp_width=tensors.shape(f"{IMAGE}model.blocks.0.mlp.fc1.weight")[0],
        registers=tensors.shape(f"{IMAGE}model.register_tokens")[1],
        pool="mean_prenorm" if pooled else "cls",
    )
    text = dataclasses.replace(_language_model(tensors), context_length=_context_length(chosen), pool="first_eos")
    return CLIPConfig(
        image=image,
        text=text,
        embed_width=tensors.shape(f"{TEXT}global_embed.weight")[0],
        image_head_bias=True,
        text_head="linear",
        text_head_bias=True,
    )


def _context_length(chosen: Mapping[str, Any]) -> int:
    """Tokens of a caption: CheXpert and RSNA 64, EMBED 72, or 144 in its long styles."""
    if not chosen.get("embed"):
        return 64
    return 144 if chosen.get("structural_cap") or chosen.get("natural_cap") else 72


def _language_model(tensors: Named) -> causal.CausalConfig:
    folder = tensors.path.parent
    vocabulary, width = tensors.shape(tensors.words)
    kind, depth = {GPTConfig: "GPT-2", LlamaConfig: "LLaMA"}[tensors.language], _depth(tensors)
    if (folder / "config.json").is_file():
        described = causal.read_config(folder)
        if not isinstance(described, tensors.language):
            raise UserError(f"{folder / 'config.json'} describes another model; expected the {kind} in this checkpoint")
        return described
    if tensors.language is LlamaConfig or (width, depth) not in KNOWN:
        raise UserError(
            f"{tensors.path}: nothing in it tells the heads of this {kind} (width {width}, depth {depth}); "
            f"put the config.json of the language model into {folder}"
        )
    positions = tensors.shape(f"{LANGUAGE_MODELS[GPTConfig]}wpe.weight")[0]
    return dataclasses.replace(KNOWN[width, depth], vocab_size=vocabulary, positions=positions, pad_id=vocabulary - 1)


def _depth(tensors: Named, prefix: str = "") -> int:
    prefix = prefix or f"{LANGUAGE_MODELS[tensors.language]}{NAMES[tensors.language][0].block}."
    return len({name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)})


def adapter_of(tensors: Named, text: causal.CausalConfig) -> AdapterConfig | None:
    """The adapter of the language model, from the names and shapes of its tensors. UserError for AdaLoRA."""
    table = tensors.table(2 * text.depth * key_width(text))
    if table is not None:
        return PrefixConfig(tensors.shape(table)[0])
    names = NAMES[type(text)][0]
    prefix = f"{LANGUAGE_MODELS[type(text)]}{names.block}.0."
    first = {layer: prefix + module for layer, module in names.modules.items()}
    if any(f"{name}.lora_E.default" in tensors for name in first.values()):
        raise UserError(f"{tensors.path}: AdaLoRA is not supported here; supported: LoRA, (IA)³, a prefix, or no adapter")
    low_rank = tuple(layer for layer, name in first.items() if f"{name}.lora_A.default.weight" in tensors)
    if low_rank:
        rank = tensors.shape(f"{first[low_rank[0]]}.lora_A.default.weight")[0]
        return LoRAConfig(rank, LORA_ALPHA, 0.1, low_rank)
    vectors = {layer: f"{name}.ia3_l.default" for layer, name in first.items() if f"{name}.ia3_l.default" in tensors}
    inputs = tuple(layer for layer, name in vectors.items() if tensors.shape(name)[0] == 1)  # [1, in], or [out, 1] of an output
    return IA3Config(tuple(layer for layer in vectors if layer not in inputs), inputs) if vectors else None
