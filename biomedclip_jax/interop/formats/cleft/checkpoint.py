"""CLEFT's checkpoints (XYPB/CLEFT), read and written: a DINOv2 with registers beside a GPT-2 or LLaMA with an adapter.

A Lightning `.ckpt` of its first stage, or of its second one, which has learned context vectors besides. In its folder:

    tokenizer.json   or vocab.json and merges.txt, of stanford-crfm/BioMedLM (Hugging Face hub); with
                     `--llm_type llama` that of epfl-llm/meditron-7b
    config.json      of the language model; not needed where it is BioMedLM or one of OpenAI's GPT-2s

Sources: XYPB/CLEFT `model_cleft.py`, `backbones/encoder_cleft.py`, `train.py`, `datasets/transforms.py`; PEFT
0.6.2, which CLEFT pins, and newer ones, whose names have "base_layer" in them. What follows from them:

- Text is pooled as `GPTConfig.pool` = "first_eos" describes; alpha of LoRA, 32, is only in the code.
- Images are pooled over all tokens before the last norm, which the file holds and nobody uses, if "pool_feat" is
  among the file's hyper-parameters, or if there are none: every published command has it.
- The file's positions are those of 518 pixels, resized to 224 whenever the model runs; here once, when it is read.
"""

import dataclasses
import fnmatch
from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from biomedclip_jax.config import (
    Adaptation,
    AdapterConfig,
    CLIPConfig,
    GPTConfig,
    IA3Config,
    LlamaConfig,
    LoRAConfig,
    PrefixConfig,
    PreprocessConfig,
)
from biomedclip_jax.config.adapters import block_layers
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._lightning import write_lightning
from biomedclip_jax.interop._mapping import from_params, to_params
from biomedclip_jax.interop.formats.cleft._mapping import (
    IMAGE,
    IMAGE_SIZE,
    LANGUAGE_MODELS,
    LORA_ALPHA,
    PREFIX,
    TEXT,
    VIT,
    VIT_HEAD_WIDTH,
    Named,
    adapter_of,
    config_of,
    entries,
    words_of,
)
from biomedclip_jax.interop.formats.huggingface import causal, dinov2
from biomedclip_jax.interop.formats.huggingface.mapping import write_json
from biomedclip_jax.interop.formats.peft.names import NAMES, key_width
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.model_files import copy_tokenizer
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.vit import resize_positions

_HALVES = (0.5, 0.5, 0.5)
PREPROCESS = PreprocessConfig(
    IMAGE_SIZE,
    _HALVES,
    _HALVES,
    interpolation="bilinear",
    resize_mode="squash",
    gray=True,
    square_size=256,
    otsu_crop=True,
)
_POSITIONS = f"{IMAGE}model.pos_embed"
_HUB_NAMES: dict[type, str] = {GPTConfig: "stanford-crfm/BioMedLM", LlamaConfig: "epfl-llm/meditron-7b"}
_COPY = ".word_embeddings.weight"
_IGNORED = {
    "*.local_embed.*": "head for local features: CLEFT makes it and never uses it",
    f"{IMAGE}model.mask_token": dinov2.IGNORED["mask_token"],
    f"*{_COPY}": "the token embeddings once more",
} | causal.IGNORED
_GRID = 37  # patches a side that DINOv2's own positions are for
_LOCAL_WIDTH = 2_048


def is_cleft(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a checkpoint of CLEFT."""
    names = list(names)
    return all(any(name.startswith(part) for name in names) for part in (IMAGE, TEXT))


def read_cleft(path: Path) -> Model:
    """The model in a checkpoint of either stage; its adapter stays beside the weights. Context vectors: `read_context`.

    UserError names what is missing, unknown or misshapen, and what there is no tower for: AdaLoRA, heads of two layers.
    """
    tensors = Named(path)
    if not any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"{path}: no tokenizer beside it; fetch tokenizer.json of {_HUB_NAMES[tensors.language]} (Hugging Face hub) there"
        )
    config = config_of(tensors)
    assert isinstance(config.text, GPTConfig | LlamaConfig)
    width, depth, ignored = config.text.width, config.text.depth, dict(_IGNORED)
    if (context := tensors.table(width)) is not None:
        ignored[context] = "learned context: `read_context` reads it"
    found: Mapping[str, np.ndarray] = tensors
    if (table := tensors.table(2 * depth * key_width(config.text))) is not None:
        ignored[table] = "the prefix: read block by block"
        found = ChainMap(_blocks_of(tensors[table], depth), tensors)  # type: ignore[arg-type]
    for name in tensors:
        if name.endswith(_COPY) and not np.array_equal(tensors[name], tensors[tensors.words]):
            raise UserError(f"{path}: {name} differs from the token embeddings, of which it is a copy; the file is damaged")
    stored = _with_grid(config, _grid(tensors.shape(_POSITIONS)[1]))
    adaptation = Adaptation(text=adapter_of(tensors, config.text))
    shapes = abstract_model(stored, adaptation=adaptation)[1]
    params, report = to_params(found, entries(stored, adaptation.text), shapes, ignored, path)
    params["image"]["position"] = _resized(params["image"]["position"], config)
    used = [table if name.startswith(PREFIX) else tensors.names[name] for name in report.used]
    report.used = list(dict.fromkeys(name for name in used if name is not None))
    report.ignored = {tensors.names[name]: why for name, why in report.ignored.items() if name != table}
    preprocess = dataclasses.replace(PREPROCESS, image_size=config.vit.image_size)
    return Model(config, preprocess, params, path.parent, report, adaptation=adaptation)


def read_context(path: Path) -> np.ndarray:
    """The context vectors that CLEFT's second stage learned, float32 [n, D], shared by all classes; released: n = 30.

    They stand before the word embeddings of a text, at the first n positions. UserError if the checkpoint has none.
    """
    tensors = Named(path)
    name = tensors.table(tensors.shape(tensors.words)[1])
    if name is None:
        raise UserError(f"{path}: no learned context; expected a checkpoint of CLEFT's second stage (--prompt_ft)")
    return np.asarray(tensors[name], np.float32)


def _blocks_of(table: np.ndarray, depth: int) -> dict[str, np.ndarray]:
    """PEFT's prefix [T, 2·L·D] as keys and values [T, D] of each block."""
    split = table.reshape(len(table), depth, 2, -1)
    return {f"{PREFIX}{i}.{part}": split[:, i, j] for i in range(depth) for j, part in enumerate(("keys", "values"))}


def _grid(rows: int) -> int:
    return round((rows - 1) ** 0.5)


def _with_grid(config: CLIPConfig, grid: int) -> CLIPConfig:
    return dataclasses.replace(config, image=dataclasses.replace(config.vit, image_size=grid * config.vit.patch_size))


def _resized(positions: Any, config: CLIPConfig) -> Any:
    return resize_positions(jnp.asarray(positions), 1, config.vit.image_size // config.vit.patch_size)


# --- writing --------------------------------------------------------------------------------------------------------


def write_cleft(model: Model, path: Path, like: Path | None = None) -> list[str]:
    """Write `model` as a first-stage checkpoint of CLEFT; returns the names of the tensors in it.

    like: the checkpoint that the model came from. What the model does not hold is taken from it (heads for local
    features, hyper-parameters, positions of 518 pixels), and its names and precision; without it, such heads are
    zeros, names are those of PEFT 0.6.2, and numbers float32. Positions of 518 pixels are the ones nearest to the
    old that, resized, give the model's. UserError if CLEFT's code computes another function, or `like` is another
    model.
    """
    config = model.config
    adapter = model.adaptation.text
    check_form(model, path)
    old = None if like is None else Named(like)
    table = np.asarray(model.params["image"]["position"], np.float32)
    params = {**model.params, "image": {**model.params["image"], "position": _spread(table, config, old)}}
    tensors = from_params(params, entries(_with_grid(config, _grid(len(params["image"]["position"]))), adapter))
    if isinstance(adapter, PrefixConfig):
        parts = [tensors.pop(f"{PREFIX}{i}.{part}") for i in range(config.text.depth) for part in ("keys", "values")]
        tensors[f"{TEXT}model.prompt_encoder.default.embedding.weight"] = np.concatenate(parts, axis=1)
        tensors[f"{TEXT}model{_COPY}"] = tensors[words_of(type(config.text))]
    if old is None:
        state, hyper_parameters = _by_release(tensors, config, adapter), _hyper_parameters(config, adapter)
    else:
        state, hyper_parameters = _as_in(old, tensors), old.file.hyper_parameters
    write_lightning(path, state, hyper_parameters)
    return list(state)


def write_cleft_folder(model: Model, folder: Path) -> list[str]:
    """A first-stage checkpoint, `cleft.ckpt`, with the text model's config and tokenizer; returns the tensors' names."""
    names = write_cleft(model, folder / "cleft.ckpt")
    assert isinstance(model.config.text, GPTConfig | LlamaConfig)
    write_json(folder / "config.json", causal.config_json(model.config.text))
    copy_tokenizer(model, folder)
    return names


def check_form(model: Model, path: Path) -> None:
    """UserError if CLEFT's code computes another function of an image file or a text; path: what was to be written."""
    config, adapter, preprocess = model.config, model.adaptation.text, model.preprocess
    image = config.vit
    free = ("image_size", "patch_size", "width", "depth", "heads", "mlp_width", "registers", "pool")
    plain = dataclasses.replace(VIT, **{field: getattr(image, field) for field in free})
    heads = config.image_head == config.text_head == "linear" and config.image_head_bias and config.text_head_bias
    causal_text = isinstance(config.text, GPTConfig | LlamaConfig)
    whole = adapter is None or isinstance(adapter, PrefixConfig)
    if causal_text and isinstance(adapter, LoRAConfig | IA3Config):  # of whole layers of transformers' model
        found = adapter.layers_in(block_layers(config.text))
        layers = found if isinstance(adapter, LoRAConfig) else (*found[0], *found[1])
        whole = set(layers) <= NAMES[type(config.text)][0].modules.keys()
        whole = whole and (isinstance(adapter, IA3Config) or adapter.alpha == LORA_ALPHA)
    fits = {
        "image": image == plain
        and image.registers > 0
        and image.pool != "mean"
        and image.width == VIT_HEAD_WIDTH * image.heads,
        "text": isinstance(config.text, GPTConfig | LlamaConfig) and config.text.pool == "first_eos",
        "adaptation.image": model.adaptation.image is None,
        "adaptation.text": whole,
        "heads": heads,
        "preprocess": preprocess == dataclasses.replace(PREPROCESS, image_size=image.image_size),
        "init_logit_bias": config.init_logit_bias is None,
    }
    wrong = [field for field, well in fits.items() if not well]
    if wrong:
        raise UserError(
            f"{path}: CLEFT has no such model ({', '.join(wrong)}); it is a DINOv2 with registers and a GPT-2 or LLaMA pooled "
            f"by first_eos, with LoRA (alpha {LORA_ALPHA:g}), (IA)³ or a prefix, heads of one layer with a bias, and "
            "images prepared as in configs/cleft_biomedlm.py"
        )


def _spread(table: np.ndarray, config: CLIPConfig, old: Named | None) -> np.ndarray:
    """Positions [1 + G², D] for the whole grid from those of the model: the least change to the old ones that will do."""
    whole = np.zeros((1 + _GRID**2, table.shape[1]), np.float32) if old is None else old[_POSITIONS][0]
    grid, side = _grid(len(whole)), _grid(len(table))
    if grid == side:
        return table
    missing = table - np.asarray(_resized(whole, config))
    if not missing.any():
        return whole
    axis = jax.image.resize(jnp.eye(grid), (side, grid), "cubic", antialias=True)  # what resizing does along either axis
    back = np.linalg.pinv(np.asarray(axis, np.float64))
    change = np.einsum("ga,hb,abd->ghd", back, back, missing[1:].reshape(side, side, -1))
    return whole + np.concatenate([missing[:1], change.reshape(grid * grid, -1)]).astype(np.float32)


def _as_in(old: Named, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """All tensors of `old` under its own names, those of the model replaced."""
    state = {name: old.file.tensor(name) for name in old.names.values()}
    kept = [name for name in old if any(fnmatch.fnmatchcase(name, pattern) for pattern in _IGNORED)]
    kept.append(old.table(old.shape(old.words)[1]) or "")
    other = [name for name in tensors if name not in old or old[name].size != tensors[name].size]
    other += [name for name in old if name not in tensors and name not in kept]
    if other:
        raise UserError(f"{old.path}: another model than the one to be written; they differ in {sorted(other)[0]}")
    for name, array in tensors.items():
        state[old.names[name]] = old.file.cast(old.names[name], array)
    return state | {old.names[name]: state[old.names[old.words]] for name in old if name.endswith(_COPY)}


def _by_release(tensors: Mapping[str, np.ndarray], config: CLIPConfig, adapter: AdapterConfig | None) -> dict[str, np.ndarray]:
    """Under the names of PEFT 0.6.2, with zeros for what CLEFT makes and never uses, so that it loads strictly."""
    text, state = config.text, {}
    usual = LANGUAGE_MODELS[type(text)]
    bare = usual.removeprefix(f"{TEXT}model.base_model.model.")
    nested = {PrefixConfig: f"base_model.{bare}", type(None): bare}.get(type(adapter))
    outputs = adapter.layers_in(block_layers(text))[0] if isinstance(adapter, IA3Config) else ()
    columns = tuple(f"{NAMES[type(text)][0].modules[layer]}.ia3_l.default" for layer in outputs)
    for name, array in tensors.items():
        own = name if nested is None else name.replace(usual, f"{TEXT}model.{nested}")
        state[own] = array.reshape(-1, 1) if name.endswith(columns) else array
    state[f"{IMAGE}model.mask_token"] = np.zeros((1, config.vit.width), np.float32)
    for part, width in ((IMAGE, config.vit.width), (TEXT, config.text.width)):
        hidden, out = _LOCAL_WIDTH, config.embed_width
        shapes = {"0.weight": (hidden, width, 1), "0.bias": (hidden,), "1.weight": (hidden,), "1.bias": (hidden,)}
        shapes |= {"3.weight": (out, hidden, 1), "3.bias": (out,)}
        shapes |= {f"{i}.running_{what}": (n,) for i, n in ((1, hidden), (4, out)) for what in ("mean", "var")}
        state |= {f"{part}local_embed.head.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}
        state |= {f"{part}local_embed.head.{i}.num_batches_tracked": np.zeros((), np.int64) for i in (1, 4)}
    return state


def _hyper_parameters(config: CLIPConfig, adapter: AdapterConfig | None) -> dict[str, Any]:
    kinds = {LoRAConfig: "lora", IA3Config: "ia3", PrefixConfig: "prefix"}
    return {
        "img_encoder": "dinov2_vitb14_reg",
        "llm_type": "gpt" if isinstance(config.text, GPTConfig) else "llama",
        "peft": kinds.get(type(adapter)),
        "emb_dim": config.embed_width,
        "linear_proj": True,
        "pool_feat": config.vit.pool == "mean_prenorm",
        "embed": config.text.context_length > 64,
        "structural_cap": config.text.context_length > 72,
    }
