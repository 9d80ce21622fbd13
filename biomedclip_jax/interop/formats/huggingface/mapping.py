"""transformers' names and configs of BERT and RoBERTa (also inside open_clip's text tower) and ViT.

Names are those on disk (`save_pretrained`), which transformers keeps stable while its modules are renamed.
Sources: transformers `modeling_{bert,roberta,vit}.py` (5.23) and their configuration files.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.config import BertConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, held, norm, one
from biomedclip_jax.interop.formats.huggingface._fields import BERT, CXR_BERT
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.support.fields import choice, number, shown

BERT_IGNORED = {
    "*position_ids": "index buffer of older transformers versions",
    "pooler.*": "BERT's pooler: this model reads the last hidden state",
    "cls.*": "BERT's pretraining heads",
    "lm_head.*": "RoBERTa's pretraining head",
}

# RoBERTas: BERTs that count positions from pad_id + 1. The first is written.
_ROBERTAS = ("roberta", "xlm-roberta", "camembert")

# BERTs of which a checkpoint may come without its config.json, because open_clip asks the hub for it.
_KNOWN_BERTS = {  # by width; their heads are 64 wide
    768: ("BiomedBERT-base", "PubMedBERT-base", "bert-base-uncased", "Bio_ClinicalBERT"),
    1024: ("BiomedBERT-large",),
}
_KNOWN_ROBERTAS = {768: ("roberta-base",), 1024: ("roberta-large",)}  # xlm-roberta's, too

# text models of another kind, by model_type or a part of their names, and what the tower here has not
_OTHER_TEXTS = {
    "mt5": "mT5: relative positions, gated MLPs",
    "nllb": "NLLB, a translator: another layout of blocks and positions",
    "m2m_100": "M2M-100, a translator: another layout of blocks and positions",
    "modernbert": "ModernBERT: rotary positions, local attention, gated MLPs",
}

# what a run may choose for itself: it shapes no parameter and is no part of the pretrained function
_FREE = ("context_length", "pool", "dropout", "attention_dropout")

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
ACTIVATION_NAMES = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or UserError naming the file, line and column of the mistake."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def activation(config: Mapping[str, Any], default: str, where: str) -> Any:
    """Our name of the `hidden_act` of a config. UserError if it is not supported."""
    return choice(config, "hidden_act", default, _ACTIVATIONS, where)


# --- BERT ----------------------------------------------------------------------------------------------------------


def bert_config(tensors: TensorFile, prefix: str, folder: Path, name: str) -> BertConfig:
    """The BERT whose tensors begin with `prefix`: sizes from the tensors, the rest from its `config.json`.

    The config is looked for in `folder`, then in `name` if that is a folder. A release that leaves it on the hub
    (BiomedCLIP's does) is known by name; anything else raises UserError.
    """

    def matrix(part: str) -> tuple[int, ...]:
        weight = f"{prefix}{part}.weight"
        if weight not in tensors:
            raise UserError(f"{folder}: no tensor {weight}; expected a BERT or RoBERTa ({name}); {held(tensors)}")
        if len(tensors.shape(weight)) != 2:
            raise UserError(f"{folder}: {weight} has shape {tensors.shape(weight)}, expected two axes")
        return tensors.shape(weight)

    vocab_size, width = matrix("embeddings.word_embeddings")
    positions = matrix("embeddings.position_embeddings")[0]
    layer = f"{prefix}encoder.layer."
    numbers = (n[len(layer) :].split(".")[0] for n in tensors if n.startswith(layer))
    depth = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
    if depth == 0:
        raise UserError(f"{folder}: no tensors {layer}*; expected a BERT or RoBERTa ({name})")
    found = next((f / "config.json" for f in (folder, Path(name)) if _is_bert(f / "config.json")), None)
    if found is not None:
        config = _checked_bert(found)
    elif any(known in name for known in _KNOWN_BERTS.get(width, ())):
        config = {"num_attention_heads": width // 64}
    elif any(known in name for known in _KNOWN_ROBERTAS.get(width, ())):
        config = {"num_attention_heads": width // 64, "model_type": _ROBERTAS[0], "layer_norm_eps": 1e-5}
    else:
        raise UserError(f"{folder}: the text model's config.json ({name}) is not here; put it into this folder")
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "intermediate_size": matrix("encoder.layer.0.intermediate.dense")[0],
        "max_position_embeddings": positions,
        "type_vocab_size": matrix("embeddings.token_type_embeddings")[0],
    }
    for field, size in sizes.items():
        if config.get(field, size) != size:
            raise UserError(
                f"{found}: {field} = {shown(config[field])}, but the weights beside it have {size}; "
                "put the config.json that belongs to these weights there"
            )
    return _bert_of(sizes | config, str(found))


def check_kind(folder: Path, name: str, where: str) -> None:
    """UserError, beginning with `where`, if the text model that open_clip's config names is of another kind than a BERT.

    Told by model_type in its config.json, in `folder` or in `name` if that is a folder, or without one by its name.
    """
    files = [path for path in (folder / "config.json", Path(name) / "config.json") if path.is_file()]
    kinds = {str(read_json(path).get("model_type")) for path in files if not _is_bert(path)}
    kind = next((kind for kind in _OTHER_TEXTS if kind in name.lower() or kind in kinds), None)
    if kind is not None:
        raise UserError(f"{where}: hf_model_name = {name!r}: {_OTHER_TEXTS[kind]}; expected a BERT or RoBERTa")


def _checked_bert(path: Path) -> dict[str, Any]:
    """The config.json of a BERT. UserError for a field that would make it another model than the tower is."""
    config = read_json(path)
    (CXR_BERT if _is_cxr_bert(config) else BERT).check(config, str(path))
    return config


def _bert_of(config: Mapping[str, Any], where: str) -> BertConfig:
    """The BERT of a config.json, with transformers' defaults for what it leaves out, except the number of heads."""
    heads = config.get("num_attention_heads")
    if isinstance(heads, bool) or not isinstance(heads, int):
        raise UserError(f"{where}: num_attention_heads = {shown(heads)}: expected a whole number")
    positions = number(config, "max_position_embeddings", 512, where, least=1)
    roberta = config.get("model_type") in _ROBERTAS
    pad_id = number(config, "pad_token_id", 1 if roberta else 0, where)
    offset = pad_id + 1 if roberta else 0
    try:
        return BertConfig(
            vocab_size=number(config, "vocab_size", 30_522, where),
            positions=positions,
            context_length=min(256, positions - offset),
            position_offset=offset,
            token_types=number(config, "type_vocab_size", 2, where),
            width=number(config, "hidden_size", 768, where),
            depth=number(config, "num_hidden_layers", 12, where),
            heads=heads,
            mlp_width=number(config, "intermediate_size", 3072, where),
            dropout=number(config, "hidden_dropout_prob", 0.1, where),
            attention_dropout=number(config, "attention_probs_dropout_prob", 0.1, where),
            activation=activation(config, "gelu", where),
            layer_norm_eps=number(config, "layer_norm_eps", 1e-12, where, least=0),
            pad_id=pad_id,
        )
    except UserError as error:
        raise located(error, where) from None


def check_same_bert(folder: Path, config: BertConfig) -> None:
    """UserError if the folder's config.json, where it has one, describes another model than `config`.

    Heads, activation, epsilon and padding do not show in the shapes of the tensors.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    given = read_json(path)
    kind = given.get("model_type", "bert")
    if kind not in ("bert", *_ROBERTAS) and not _is_cxr_bert(given):
        raise UserError(f"{path}: model_type = {shown(kind)}; expected a 'bert' or 'roberta', as the config's text tower is")
    check_equal(_bert_of(_checked_bert(path), str(path)), config, _FREE, str(path))


def _is_bert(path: Path) -> bool:
    if not path.is_file():
        return False
    config = read_json(path)
    return config.get("model_type") in ("bert", *_ROBERTAS) or _is_cxr_bert(config)


def _is_cxr_bert(config: Mapping[str, Any]) -> bool:
    # CXR-BERT is a BERT with a head of its own; BioViL-T's config names the class only
    return config.get("model_type") == "cxr-bert" or "CXRBertModel" in (config.get("architectures") or ())


def located(error: UserError, where: str) -> UserError:
    """The error with the file that it is about in front of it, unless it names that already."""
    return error if str(error).startswith(where) else UserError(f"{where}: {error}")


def check_equal(found: Any, config: Any, free: Collection[str], where: str) -> None:
    """UserError that lists the fields in which two configs of a tower differ; free: those that a run chooses for itself."""
    names = [f.name for f in dataclasses.fields(config) if f.name not in free]
    different = [name for name in names if getattr(found, name) != getattr(config, name)]
    if different:
        listed = ", ".join(f"{name} = {getattr(found, name)!r} (config: {getattr(config, name)!r})" for name in different)
        raise UserError(f"{where}: another model than the config asks for: {listed}; give the config the file's values")


def bert_config_json(config: BertConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this BERT or RoBERTa."""
    roberta = config.position_offset > 0
    return {
        "architectures": ["RobertaModel" if roberta else "BertModel"],
        "model_type": _ROBERTAS[0] if roberta else "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.token_types,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_id,
    }


def bert_entries(config: BertConfig, prefix: str = "", path: str = "text/") -> list[Entry]:
    """A BERT under transformers' names; `prefix` stands before each of them."""
    layer, depth = f"{prefix}encoder.layer.{{}}.", config.depth
    query_key_value = tuple(f"{layer}attention.self.{part}" for part in ("query", "key", "value"))
    found = [
        one(f"{path}word", f"{prefix}embeddings.word_embeddings.weight"),
        one(f"{path}position", f"{prefix}embeddings.position_embeddings.weight"),
        one(f"{path}token_type", f"{prefix}embeddings.token_type_embeddings.weight"),
        *norm(f"{path}norm", f"{prefix}embeddings.LayerNorm"),
        *dense(f"{path}blocks/attention/qkv", query_key_value, depth),
        *dense(f"{path}blocks/attention/out", f"{layer}attention.output.dense", depth),
        *norm(f"{path}blocks/norm1", f"{layer}attention.output.LayerNorm", depth),
        *dense(f"{path}blocks/mlp/fc1", f"{layer}intermediate.dense", depth),
        *dense(f"{path}blocks/mlp/fc2", f"{layer}output.dense", depth),
        *norm(f"{path}blocks/norm2", f"{layer}output.LayerNorm", depth),
    ]
    if config.pool == "cls_pooler":
        found += dense(f"{path}pooler", f"{prefix}pooler.dense")
    return found


VIT_PATCH_BIAS = "embeddings.patch_embeddings.projection.bias"

# --- ViT -----------------------------------------------------------------------------------------------------------


def vit_config_json(config: ViTConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this ViT. UserError if its ViT cannot be this tower."""
    c = config
    plain = c.class_token and not c.registers and c.position_on_prefix
    if not plain or c.norm_pre or c.layer_scale or c.norm_after_pool:
        raise UserError("this image tower has no form in transformers' ViT (only a plain ViT with a class token has one)")
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_width,
        "hidden_act": ACTIVATION_NAMES[c.activation],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": c.layer_norm_eps,
        "qkv_bias": True,
    }


def vit_entries(config: ViTConfig, prefix: str = "", path: str = "image/") -> list[Entry]:
    """A plain ViT under transformers' names; `prefix` stands before each of them.

    transformers' ViT always has a bias on its patches: for a tower without, the file holds zeros that belong to no
    parameter.
    """
    layer, depth = f"{prefix}encoder.layer.{{}}.", config.depth
    query_key_value = tuple(f"{layer}attention.attention.{part}" for part in ("query", "key", "value"))
    bias = [one(f"{path}patch/bias", f"{prefix}{VIT_PATCH_BIAS}")] if config.patch_bias else []
    return [
        *bias,
        one(f"{path}patch/kernel", f"{prefix}embeddings.patch_embeddings.projection.weight", "patch"),
        one(f"{path}class_token", f"{prefix}embeddings.cls_token", "batch2"),
        one(f"{path}position", f"{prefix}embeddings.position_embeddings", "batch1"),
        *norm(f"{path}norm", f"{prefix}layernorm"),
        *norm(f"{path}blocks/norm1", f"{layer}layernorm_before", depth),
        *norm(f"{path}blocks/norm2", f"{layer}layernorm_after", depth),
        *dense(f"{path}blocks/attention/qkv", query_key_value, depth),
        *dense(f"{path}blocks/attention/out", f"{layer}attention.output.dense", depth),
        *dense(f"{path}blocks/mlp/fc1", f"{layer}intermediate.dense", depth),
        *dense(f"{path}blocks/mlp/fc2", f"{layer}output.dense", depth),
    ]
