"""transformers' names and configs of GPT-2 and LLaMA, bare (`GPT2Model`, `LlamaModel`) or under a language-model head.

Sources: transformers `modeling_gpt2.py`, `modeling_llama.py` (5.23) and their configuration files. GPT-2's `Conv1D`
keeps its weights [in, out], as we do: they are not transposed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedclip_jax.config import GPTConfig, LlamaConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import Entry, dense, norm, one, stacked
from biomedclip_jax.interop.formats.huggingface._fields import GPT2, LLAMA, ROPE
from biomedclip_jax.interop.formats.huggingface.mapping import check_equal, located, read_json
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.support.fields import choice, flag, number

CausalConfig = GPTConfig | LlamaConfig

IGNORED = {
    "lm_head.weight": "the language model's head: this model reads the hidden states",
    "*.attn.bias": "causal mask, a constant",
    "*.attn.masked_bias": "number of a causal mask, a constant",
    "*.rotary_emb.inv_freq": "rotary frequencies, known from the config",
}
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
# what a run may choose for itself: it shapes no parameter and is no part of the pretrained function
_FREE = ("context_length", "pool", "dropout", "embedding_dropout", "attention_dropout")


def prefix_of(tensors: TensorFile) -> str:
    """What stands before the names of the bare model: "transformer." or "model." in a language model's file."""
    return next((p for p in ("transformer.", "model.") if any(name.startswith(p) for name in tensors)), "")


def entries(config: CausalConfig, prefix: str = "", path: str = "text/") -> list[Entry]:
    """A GPT-2 or LLaMA under transformers' names; `prefix` stands before each of them."""
    return _gpt_entries(config, prefix, path) if isinstance(config, GPTConfig) else _llama_entries(config, prefix, path)


def _gpt_entries(config: GPTConfig, prefix: str, path: str) -> list[Entry]:
    block, depth = f"{prefix}h.{{}}.", config.depth
    found = [
        one(f"{path}word", f"{prefix}wte.weight"),
        one(f"{path}position", f"{prefix}wpe.weight"),
        *norm(f"{path}norm", f"{prefix}ln_f"),
        *norm(f"{path}blocks/norm1", f"{block}ln_1", depth),
        *norm(f"{path}blocks/norm2", f"{block}ln_2", depth),
    ]
    for ours, theirs in (
        ("attention/qkv", "attn.c_attn"),
        ("attention/out", "attn.c_proj"),
        ("mlp/fc1", "mlp.c_fc"),
        ("mlp/fc2", "mlp.c_proj"),
    ):
        found.append(stacked(f"{path}blocks/{ours}/kernel", depth, f"{block}{theirs}.weight"))
        found.append(stacked(f"{path}blocks/{ours}/bias", depth, f"{block}{theirs}.bias"))
    return found


def _llama_entries(config: LlamaConfig, prefix: str, path: str) -> list[Entry]:
    layer, depth = f"{prefix}layers.{{}}.", config.depth
    found = [
        one(f"{path}word", f"{prefix}embed_tokens.weight"),
        one(f"{path}norm/scale", f"{prefix}norm.weight"),
        stacked(f"{path}blocks/norm1/scale", depth, f"{layer}input_layernorm.weight"),
        stacked(f"{path}blocks/norm2/scale", depth, f"{layer}post_attention_layernorm.weight"),
    ]
    for ours, theirs in (
        *((f"attention/{name}", f"self_attn.{name[0]}_proj") for name in ("query", "key", "value", "out")),
        *((f"mlp/{name}", f"mlp.{name}_proj") for name in ("gate", "up", "down")),
    ):
        found += dense(f"{path}blocks/{ours}", f"{layer}{theirs}", depth, bias=False)
    return found


# --- config.json ---------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> CausalConfig:
    """The text tower that a `config.json` of model_type gpt2 or llama describes. UserError for what the towers cannot be."""
    path = folder / "config.json"
    given = read_json(path)
    kind = given.get("model_type")
    if kind not in ("gpt2", "llama"):
        raise UserError(f"{path}: model_type = {kind!r}: expected 'gpt2' or 'llama'")
    (GPT2 if kind == "gpt2" else LLAMA).check(given, str(path))
    try:
        return _gpt_config(given, str(path)) if kind == "gpt2" else _llama_config(given, str(path))
    except KeyError as error:
        raise UserError(f"{path}: no field {error.args[0]!r}; expected a {kind} config as transformers writes it") from None
    except UserError as error:
        raise located(error, str(path)) from None


def _pad(given: Mapping[str, Any], default: int, vocab_size: int, where: str) -> int:
    end = given.get("eos_token_id", default)
    end = end[0] if isinstance(end, list) and end else end  # several ends of a chat: the first ends a text
    if end is None or (end == default and default >= vocab_size):
        return vocab_size - 1
    return number({"eos_token_id": end}, "eos_token_id", default, where)  # type: ignore[no-any-return]


def _sizes(given: Mapping[str, Any], where: str, *names: str) -> tuple[int, ...]:
    """The whole numbers in fields that must be there."""
    return tuple(number({name: given[name]}, name, 1, where) for name in names)


def _gpt_config(given: Mapping[str, Any], where: str) -> GPTConfig:
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    vocab_size, positions, width, depth, heads = _sizes(given, where, *names)
    inner = {name: value for name, value in given.items() if value is not None}  # null: the default
    return GPTConfig(
        vocab_size=vocab_size,
        context_length=min(GPTConfig.context_length, positions),
        positions=positions,
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=number(inner, "n_inner", 4 * width, where),
        inverse_layer_scale=flag(given, "scale_attn_by_inverse_layer_idx", False, where),
        dropout=number(given, "resid_pdrop", 0.1, where),
        embedding_dropout=number(given, "embd_pdrop", 0.1, where),
        attention_dropout=number(given, "attn_pdrop", 0.1, where),
        activation=choice(given, "activation_function", "gelu_new", _ACTIVATIONS, where),
        layer_norm_eps=number(given, "layer_norm_epsilon", 1e-5, where, least=0),
        pad_id=_pad(given, 50_256, vocab_size, where),
    )


def _llama_config(given: Mapping[str, Any], where: str) -> LlamaConfig:
    names = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads")
    vocab_size, positions, width, depth, heads = _sizes(given, where, *names)
    (mlp_width,) = _sizes(given, where, "intermediate_size")
    if heads < 1 or given.get("head_dim") not in (None, width // heads):
        raise UserError(f"{where}: head_dim = {given.get('head_dim')!r} is not supported; supported: {width // max(1, heads)}")
    groups = {name: value for name, value in given.items() if value is not None}  # null: the default
    return LlamaConfig(
        vocab_size=vocab_size,
        context_length=min(LlamaConfig.context_length, positions),
        positions=positions,
        width=width,
        depth=depth,
        heads=heads,
        key_value_heads=number(groups, "num_key_value_heads", heads, where),
        mlp_width=mlp_width,
        rope_theta=_rope_theta(given, where),
        rms_norm_eps=number(given, "rms_norm_eps", 1e-6, where, least=0),
        pad_id=_pad(given, 2, vocab_size, where),
    )


def _rope_theta(given: Mapping[str, Any], where: str) -> float:
    """The base of the rotary positions, which stands in one of three fields. UserError for another kind of positions."""
    found = {}
    for field in ("rope_parameters", "rope_scaling"):
        rope = given.get(field) or {}
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else None
        if kind not in ("default", None):
            raise UserError(f"{where}: rotary positions of type {kind!r} are not supported; supported: 'default'")
        ROPE.check(rope, f"{where}: {field}")
        if "rope_theta" in rope:
            found[field] = number(rope, "rope_theta", 10_000.0, f"{where}: {field}")
    if "rope_theta" in given:
        found["rope_theta"] = number(given, "rope_theta", 10_000.0, where)
    if len(set(found.values())) > 1:
        raise UserError(f"{where}: rope_theta stands there with several values ({found}); expected one")
    return float(next(iter(found.values()), 10_000.0))


def check_same_model(folder: Path, config: CausalConfig) -> None:
    """UserError if the folder's config.json, where it has one, describes another model than `config`.

    Most of it does not show in the shapes of the tensors: heads, the scaling by layer, epsilon, rotary base, activation.
    """
    if not (folder / "config.json").is_file():
        return
    found = read_config(folder)
    if type(found) is not type(config):
        raise UserError(f"{folder}/config.json: a {type(found).__name__}; expected the config's {type(config).__name__}")
    check_equal(found, config, _FREE, f"{folder}/config.json")


def config_json(config: CausalConfig) -> dict[str, Any]:
    """A `config.json` from which transformers builds this model."""
    c = config
    ends = {"bos_token_id": c.pad_id, "eos_token_id": c.pad_id, "pad_token_id": c.pad_id}
    if isinstance(c, GPTConfig):
        return ends | {
            "architectures": ["GPT2Model"],
            "model_type": "gpt2",
            "vocab_size": c.vocab_size,
            "n_positions": c.positions,
            "n_embd": c.width,
            "n_layer": c.depth,
            "n_head": c.heads,
            "n_inner": c.mlp_width,
            "activation_function": "gelu_new" if c.activation == "gelu_tanh" else "gelu",
            "resid_pdrop": c.dropout,
            "embd_pdrop": c.embedding_dropout,
            "attn_pdrop": c.attention_dropout,
            "layer_norm_epsilon": c.layer_norm_eps,
            "scale_attn_by_inverse_layer_idx": c.inverse_layer_scale,
        }
    return ends | {
        "architectures": ["LlamaModel"],
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.positions,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.key_value_heads,
        "intermediate_size": c.mlp_width,
        "hidden_act": "silu",
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,  # for transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "tie_word_embeddings": False,
    }
