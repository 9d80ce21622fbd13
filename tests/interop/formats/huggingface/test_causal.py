"""GPT-2 and LLaMA as text towers against transformers, read from the folders that it writes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.reference import load_open_clip, randomise

from biomedclip_jax.config import CausalPool, ComputeConfig, GPTConfig, LlamaConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.formats.huggingface.causal import entries, read_config
from biomedclip_jax.interop.initial import text_tower
from biomedclip_jax.interop.tensor_files import find_weights, read_weights
from biomedclip_jax.models._gpt import GPT, text_lengths
from biomedclip_jax.models._llama import Llama
from biomedclip_jax.sharding import make_mesh, state_shardings

PAD = 59
SPREAD = 0.3  # of the weights, so that tokens look at each other unevenly: with the usual 0.02 scores would not matter
GPT2 = {"vocab_size": 60, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4, "scale_attn_by_inverse_layer_idx": True}
GPT2 |= {"bos_token_id": PAD, "eos_token_id": PAD, "initializer_range": SPREAD}
LLAMA = {"vocab_size": 60, "max_position_embeddings": 24, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA |= {
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-5,
    "eos_token_id": PAD,
    "initializer_range": SPREAD,
}
LENGTHS = (12, 11, 5, 1, 8)  # of 12: the first text is full


def written(folder: Path, kind: str, sizes: dict[str, Any], **saving: Any) -> Any:
    """A transformers model with random weights, in eval mode, as `save_pretrained` writes it. Returns the bare model."""
    load_open_clip()  # for a torchvision that transformers can import
    import torch
    import transformers

    torch.manual_seed(0)
    family = "GPT2" if "n_embd" in sizes else "Llama"
    config = getattr(transformers, f"{family}Config")(**sizes, attn_implementation="eager")
    model = getattr(transformers, kind)(config).eval()
    randomise(model)
    model.save_pretrained(folder, **saving)
    return getattr(model, "transformer", getattr(model, "model", model))


def captions(vocabulary: int, longest: int, lengths: tuple[int, ...], pad: int) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(0, vocabulary - 1, (len(lengths), longest))
    tokens[np.arange(longest) >= np.array(lengths)[:, None]] = pad
    return tokens.astype(np.int32)


def their_features(model: Any, tokens: np.ndarray, pad: int, pool: CausalPool) -> Any:
    """Unit features [B, D]: the tokenizer's mask, and the index that CLEFT counts from the right."""
    import torch

    lengths = np.asarray(text_lengths(tokens, pad))
    mask = torch.from_numpy(np.arange(tokens.shape[1]) < lengths[:, None]).long()
    hidden = model(torch.from_numpy(tokens).long(), attention_mask=mask).last_hidden_state
    behind = [tokens.shape[1] - n for n in lengths.tolist()]
    index = [-n if pool == "first_eos" else -n - 1 for n in behind]
    return torch.nn.functional.normalize(torch.stack([row[i] for row, i in zip(hidden, index, strict=True)]), dim=-1)


def our_tower(config: GPTConfig | LlamaConfig, params: dict[str, Any]) -> Any:
    kind: Any = GPT if isinstance(config, GPTConfig) else Llama
    graph, _ = nnx.split(nnx.eval_shape(lambda: kind(config, ComputeConfig(), nnx.Rngs(0))))
    return nnx.merge(graph, params)


def our_features(config: GPTConfig | LlamaConfig, params: dict[str, Any], tokens: np.ndarray) -> jax.Array:
    features = our_tower(config, params)(tokens)
    return features / jax.numpy.linalg.norm(features, axis=-1, keepdims=True)


def assert_parity(
    folder: Path, theirs: Any, pool: CausalPool, longest: int, lengths: tuple[int, ...], quickly: bool = True
) -> dict[str, float]:
    """Features to 1e-5, and the gradient of every tensor to 1e-4 of its largest number. Returns the largest of both."""
    import torch

    config = dataclasses.replace(read_config(folder), context_length=longest, pool=pool)
    params = text_tower(str(folder), config)
    tokens = captions(config.vocab_size, longest, lengths, config.pad_id)
    expected = their_features(theirs, tokens, config.pad_id, pool)
    weight = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    theirs.zero_grad()
    (expected * torch.from_numpy(weight)).sum().backward()

    def loss(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        found = our_features(config, params, tokens)
        return (found * weight).sum(), found

    options = {"xla_backend_optimization_level": 0} if quickly else None
    gradient, found = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(options)(params)
    forward = float(np.abs(found - expected.detach().numpy()).max())
    assert forward <= 1e-5
    ours = from_params({"text": gradient}, entries(config))
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert ours.keys() == wanted.keys()
    worst = 0.0
    for name, leaf in wanted.items():
        error = np.abs(ours[name] - leaf).max() / max(np.abs(leaf).max(), 1e-6)
        # a bias of keys moves all scores of a query alike: its true gradient is zero, and rounding is all there is to compare
        if name.endswith("c_attn.bias"):
            width = len(leaf) // 3
            assert np.abs(leaf[width : 2 * width]).max() <= 1e-5 * np.abs(leaf).max()
        assert error <= 1e-4, name
        worst = max(worst, float(error))
    return {"forward": forward, "gradient": worst}


@pytest.mark.parametrize("pool", ["first_eos", "last_token"])
@pytest.mark.parametrize("kind", ["GPT2Model", "LlamaModel"])
def test_features_and_gradients(tmp_path: Path, kind: str, pool: CausalPool) -> None:
    theirs = written(tmp_path, kind, GPT2 if kind == "GPT2Model" else LLAMA)
    assert_parity(tmp_path, theirs, pool, 12, LENGTHS)


@pytest.mark.slow
def test_gpt2_at_its_size_with_biomedlms_scaling(tmp_path: Path) -> None:
    """124,439,808 parameters, heads and depth of GPT-2 small; 64 tokens as CLEFT."""
    sizes = {"n_embd": 768, "scale_attn_by_inverse_layer_idx": True, "initializer_range": 0.05}
    theirs = written(tmp_path, "GPT2Model", sizes)
    assert sum(p.numel() for p in theirs.parameters()) == 124_439_808
    assert_parity(tmp_path, theirs, "first_eos", 64, (64, 63, 17), quickly=False)


@pytest.mark.parametrize("kind", ["GPT2Model", "LlamaModel"])
def test_learned_context_before_a_text(tmp_path: Path, kind: str) -> None:
    """As PEFT's prompt tuning gives it to transformers: embeddings in front, places counted from them on, mask 1."""
    theirs = written(tmp_path, kind, GPT2 if kind == "GPT2Model" else LLAMA)
    import torch

    config = dataclasses.replace(read_config(tmp_path), pool="first_eos")
    tokens = captions(60, 12, LENGTHS, PAD)
    context = np.random.default_rng(2).normal(size=(5, 4, 32)).astype(np.float32)
    with torch.no_grad():
        words = theirs.get_input_embeddings()(torch.from_numpy(tokens).long())
        mask = torch.from_numpy(np.arange(12) < np.array(LENGTHS)[:, None])
        mask = torch.cat([torch.ones(5, 4, dtype=torch.bool), mask], dim=1).long()
        embeds = torch.cat([torch.from_numpy(context), words], dim=1)
        hidden = theirs(inputs_embeds=embeds, attention_mask=mask).last_hidden_state.numpy()
    places = [0, 15, 9, 5, 12]  # the first text is full: index 0, the first token of the context
    ours = our_tower(config, text_tower(str(tmp_path), config))
    found = jax.jit(ours.from_words)(embeds.numpy(), np.concatenate([np.zeros((5, 4), np.int32), tokens], axis=1))
    expected = hidden[np.arange(5), places]
    assert np.abs(found - expected).max() <= 1e-5 * np.linalg.norm(expected, axis=-1).max()


def test_the_scaling_by_layer_matters(tmp_path: Path) -> None:
    """The control: GPT-2's own scaling on the same weights is another function."""
    theirs = written(tmp_path, "GPT2Model", GPT2)
    config = dataclasses.replace(read_config(tmp_path), context_length=12)
    assert isinstance(config, GPTConfig) and config.inverse_layer_scale
    params = text_tower(str(tmp_path), config)
    tokens = captions(60, 12, LENGTHS, PAD)
    plain = our_features(dataclasses.replace(config, inverse_layer_scale=False), params, tokens)
    assert np.abs(plain - their_features(theirs, tokens, PAD, "last_token").detach().numpy()).max() > 1e-3


# --- the files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "sizes", "saving"),
    [
        ("GPT2LMHeadModel", GPT2, {}),
        ("GPT2Model", GPT2, {"max_shard_size": "20KB"}),
        ("LlamaForCausalLM", LLAMA, {"max_shard_size": "20KB"}),
    ],
    ids=["under a head", "in shards", "under a head and in shards"],
)
def test_folders_of_other_kinds_hold_the_same_tower(tmp_path: Path, kind: str, sizes: dict, saving: dict) -> None:
    theirs = written(tmp_path, kind, sizes, **saving)
    config = read_config(tmp_path)
    assert (find_weights(tmp_path).name == "model.safetensors.index.json") == bool(saving)
    found = from_params({"text": text_tower(str(tmp_path), config)}, entries(config))
    expected = theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name].numpy()) for name in found)


def test_an_old_pytorch_file_with_its_constants(tmp_path: Path) -> None:
    """BioMedLM is published like this: pytorch_model.bin, causal masks among the tensors."""
    import torch

    theirs = written(tmp_path, "GPT2LMHeadModel", GPT2)
    (tmp_path / "model.safetensors").unlink()
    state = {f"transformer.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state |= {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 24, 24) for i in range(3)}
    state |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}
    torch.save(state | {"lm_head.weight": theirs.wte.weight}, tmp_path / "pytorch_model.bin")
    params = text_tower(str(tmp_path), read_config(tmp_path))
    assert np.array_equal(params["word"], theirs.wte.weight.detach().numpy())


def test_bfloat16_weights_are_read_exactly(tmp_path: Path) -> None:
    """meditron-7b is stored in bfloat16."""
    import torch

    theirs = written(tmp_path, "LlamaModel", LLAMA)
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    params = text_tower(str(tmp_path), read_config(tmp_path))
    assert params["word"].dtype == np.float32
    assert np.array_equal(params["word"], theirs.embed_tokens.weight.detach().float().numpy())


def message(function: Any) -> str:
    with pytest.raises(UserError) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tower_is_read_to_where_and_as_what_it_is_stored(tmp_path: Path) -> None:
    """As 2.6 billion frozen numbers are: rounded and split over devices while they are read, to the same bits as afterwards."""
    written(tmp_path, "GPT2Model", GPT2)
    config = read_config(tmp_path)
    plain = flatten_dict({"text": text_tower(str(tmp_path), config)}, sep="/")
    mesh = make_mesh(fsdp=4)
    like = {}
    for path, lies in flatten_dict(state_shardings(unflatten_dict(plain, sep="/"), mesh), sep="/").items():
        dtype = "bfloat16" if path.endswith(("kernel", "word")) else "float32"
        like[path] = jax.ShapeDtypeStruct(plain[path].shape, dtype, sharding=lies)
    like |= {"image/patch/kernel": like["text/word"]}  # what is another tower's is left alone
    found = flatten_dict({"text": text_tower(str(tmp_path), config, like)}, sep="/")
    assert found.keys() == plain.keys()
    for path, leaf in found.items():
        assert (leaf.dtype, leaf.sharding) == (like[path].dtype, like[path].sharding), path
        assert np.array_equal(leaf, plain[path].astype(leaf.dtype)), path
    kernel = found["text/blocks/mlp/fc1/kernel"]
    assert kernel.dtype == "bfloat16" and kernel.addressable_shards[0].data.size == kernel.size // 4


def test_another_model_than_the_config_asks_for_is_named(tmp_path: Path) -> None:
    """Shapes would all fit: what differs is only in config.json."""
    written(tmp_path / "gpt2", "GPT2Model", GPT2)
    written(tmp_path / "llama", "LlamaModel", LLAMA)
    gpt, llama = (read_config(tmp_path / name) for name in ("gpt2", "llama"))
    wrong = dataclasses.replace(gpt, inverse_layer_scale=False, heads=8)
    found = message(lambda: text_tower(str(tmp_path / "gpt2"), wrong))
    assert "gpt2/config.json: another model than the config asks for: heads = 4 (config: 8), inverse_layer_scale" in found
    assert "rope_theta = 10000.0 (config: 500000.0)" in message(
        lambda: text_tower(str(tmp_path / "llama"), dataclasses.replace(llama, rope_theta=5e5))
    )
    assert "a LlamaConfig; expected the config's GPTConfig" in message(lambda: text_tower(str(tmp_path / "llama"), gpt))
    none = dict.fromkeys(("dropout", "embedding_dropout", "attention_dropout"), 0.0)
    free = dataclasses.replace(gpt, **none, context_length=7, pool="first_eos")
    text_tower(str(tmp_path / "gpt2"), free)


@pytest.mark.parametrize(
    ("sizes", "changes", "expected"),
    [
        (GPT2, {"activation_function": "relu"}, "activation_function = 'relu' is not supported"),
        (GPT2, {"scale_attn_weights": False}, "scale_attn_weights = False is not supported"),
        (GPT2, {"n_layer": None}, "config.json: n_layer = None: expected a whole number"),
        (GPT2, {"n_layer": 0}, "config.json: GPTConfig.depth = 0: expected a whole number above 0"),
        (GPT2, {"model_type": "bloom"}, "model_type = 'bloom': expected 'gpt2' or 'llama'"),
        (LLAMA, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rotary positions of type 'llama3'"),
        (LLAMA, {"attention_bias": True}, "attention_bias = True is not supported"),
        (LLAMA, {"head_dim": 16}, "head_dim = 16 is not supported; supported: 8"),
    ],
)
def test_what_the_towers_cannot_be_is_refused(tmp_path: Path, sizes: dict, changes: dict, expected: str) -> None:
    kind = {"model_type": "gpt2" if "n_embd" in sizes else "llama"}
    (tmp_path / "config.json").write_text(json.dumps(kind | sizes | changes))
    assert expected in message(lambda: read_config(tmp_path))
    without = {name: value for name, value in (kind | sizes).items() if name != "vocab_size"}
    (tmp_path / "config.json").write_text(json.dumps(without))
    assert "no field 'vocab_size'" in message(lambda: read_config(tmp_path))


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    written(tmp_path, "GPT2Model", GPT2, max_shard_size="20KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    config, index = read_config(tmp_path), tmp_path / "model.safetensors.index.json"
    lost.rename(tmp_path / "away")
    assert f"{lost}: no such file; {index.name} names it" in message(lambda: text_tower(str(tmp_path), config))
    (tmp_path / "away").rename(lost)
    content = json.loads(index.read_text())
    content["weight_map"]["wte.weight"] = lost.name
    index.write_text(json.dumps(content))
    if "wte.weight" not in read_weights(lost):
        assert f"{lost}: no tensor wte.weight" in message(lambda: text_tower(str(tmp_path), config))
    index.write_text("{}")
    assert "not a readable index of weight files" in message(lambda: text_tower(str(tmp_path), config))
