"""Adapters inside the towers: what they compute, what they start as, where they stand, and what merging makes of them."""

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import tiny

from biomedclip_jax.config import (
    UNADAPTED,
    AdaLoRAConfig,
    Adaptation,
    AdapterConfig,
    CLIPConfig,
    ClipTextConfig,
    GPTConfig,
    IA3Config,
    LlamaConfig,
    LoRAConfig,
    PrefixConfig,
    from_json,
    to_json,
)
from biomedclip_jax.config.adapters import LAYERS, LLAMA_LAYERS
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.models.adapters import is_adapter, merged

SIZES = {"vocab_size": 50, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
TEXTS = {
    "BERT": dataclasses.replace(tiny.MODEL.text, positions=16),
    "CLIP": ClipTextConfig(context_length=8, **SIZES),
    "GPT": GPTConfig(context_length=8, positions=16, pad_id=0, **SIZES),
    "LLaMA": LlamaConfig(context_length=8, positions=16, pad_id=0, key_value_heads=2, **SIZES),
}
LORA = LoRAConfig(rank=4, dropout=0.5, targets=("attention/qkv", "mlp/*"))
ADAPTERS: dict[str, AdapterConfig] = {
    "LoRA": LORA,
    "LoRA of parts": LoRAConfig(rank=4, targets=("attention/query", "attention/value", "attention/out")),
    "AdaLoRA": AdaLoRAConfig(rank=4, targets=("attention/key", "mlp/fc1"), ranks=(("attention/key", (3, 0)),)),
    "IA3": IA3Config(),
    "IA3 of parts": IA3Config(outputs=("attention/key", "attention/value"), inputs=("attention/out", "mlp/fc2")),
    "prefix": PrefixConfig(tokens=3),
}
OF_LLAMA: dict[AdapterConfig, AdapterConfig] = {
    LORA: LoRAConfig(rank=4, dropout=0.5, targets=("attention/*", "mlp/*")),
    ADAPTERS["AdaLoRA"]: AdaLoRAConfig(rank=4, targets=("attention/key", "mlp/up"), ranks=(("attention/key", (3, 0)),)),
    ADAPTERS["IA3"]: IA3Config(outputs=("attention/key", "attention/value"), inputs=("mlp/down",)),
}


class Adapted(NamedTuple):
    """A model's config and what is added to it."""

    config: CLIPConfig
    adaptation: Adaptation = UNADAPTED


def model(adapter: AdapterConfig, text: str = "BERT") -> Adapted:
    of_text = OF_LLAMA.get(adapter, adapter) if text == "LLaMA" else adapter
    adapted = Adapted(dataclasses.replace(tiny.MODEL, text=TEXTS[text]), Adaptation(adapter, of_text))
    adapted.adaptation.check_fits(adapted.config)
    return adapted


def init(adapted: Adapted) -> dict[str, Any]:
    return init_params(adapted.config, 0, adapted.adaptation)


def graph_of(adapted: Adapted) -> Any:
    return abstract_model(adapted.config, adaptation=adapted.adaptation)[0]


def abstract_leaves(adapted: Adapted) -> dict[str, Any]:
    return flatten_dict(abstract_model(adapted.config, adaptation=adapted.adaptation)[1], sep="/")


@functools.cache
def moved(adapted: Adapted) -> dict[str, Any]:
    """Parameters as training leaves them: nothing is still 0 or 1."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), init(adapted))


def run(function: Any, *arguments: Any) -> Any:
    """function(*arguments), compiled with LLVM's optimizations off: half the time, and the same program."""
    return jax.jit(function).lower(*arguments).compile({"xla_backend_optimization_level": 0})(*arguments)


def embeddings(adapted: Adapted, params: dict[str, Any], keys: jax.Array | None = None) -> tuple[np.ndarray, np.ndarray]:
    graph = graph_of(adapted)
    batch = tiny.batch(4)

    def encode(params: dict[str, Any]) -> Any:
        clip = nnx.merge(graph, params)
        return clip.encode_image(batch["images"], keys), clip.encode_text(batch["tokens"], keys)

    image, text = run(encode, params)
    return np.asarray(image), np.asarray(text)


def difference(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> list[float]:
    return [float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("text", TEXTS)
def test_adapters_begin_as_nothing_and_change_nothing_else(text: str) -> None:
    base = Adapted(model(LORA, text).config)
    plain = init(base)
    expected = embeddings(base, plain)
    for name in ("LoRA", "AdaLoRA", "IA3"):
        config = model(ADAPTERS[name], text)
        params = init(config)
        flat, own = flatten_dict(params, sep="/"), flatten_dict(plain, sep="/")
        assert {path for path in flat if not is_adapter(path)} == own.keys()
        assert all(np.array_equal(flat[path], leaf) for path, leaf in own.items()), "fresh weights do not depend on adapters"
        assert difference(embeddings(config, params), expected) == [0.0, 0.0], name
    prefixed = embeddings(model(ADAPTERS["prefix"], text), init(model(ADAPTERS["prefix"], text)))
    assert min(difference(prefixed, expected)) > 1e-3, "a prefix is never nothing"


MERGED = [(name, "GPT" if name == "LoRA" else "BERT") for name in ADAPTERS if name != "prefix"] + [("IA3", "CLIP")]
MERGED += [(name, "LLaMA") for name in ("LoRA", "AdaLoRA", "IA3")]


@pytest.mark.parametrize(("name", "text"), MERGED)
def test_merged_weights_are_the_same_function(name: str, text: str) -> None:
    config = model(ADAPTERS[name], text)
    params = moved(config)
    plain, weights = Adapted(config.config), merged(*config, params)
    assert config.adaptation.unmergeable == UNADAPTED
    assert jax.tree.structure(weights) == jax.tree.structure(init(plain))
    found, expected = embeddings(plain, weights), embeddings(config, params)
    assert max(difference(found, expected)) <= 1e-6
    base = unflatten_dict({path: leaf for path, leaf in flatten_dict(params, sep="/").items() if not is_adapter(path)}, sep="/")
    assert min(difference(embeddings(plain, base), expected)) > 1e-2, "the adapter does something"


def test_merging_is_the_sum_to_the_last_bit() -> None:
    config = model(LORA)
    params = moved(config)
    found = flatten_dict(merged(*config, params), sep="/")
    flat = flatten_dict(params, sep="/")
    for path, kernel in found.items():
        layer, _, name = path.rpartition("/")
        if name == "kernel" and f"{layer}/lora_a" in flat:
            a, b = flat[f"{layer}/lora_a"], flat[f"{layer}/lora_b"]
            product = jnp.stack([jnp.matmul(x, y, precision="highest") for x, y in zip(a, b, strict=True)])
            assert np.array_equal(kernel, flat[path] + np.float32(32 / 4) * np.asarray(product)), path
            assert not np.array_equal(kernel, flat[path])
        else:
            assert np.array_equal(kernel, flat[path]), path
    assert sum("lora_a" in path for path in flat) == 2 * 3


def test_a_prefix_stays() -> None:
    config = Adapted(model(LORA).config, Adaptation(LORA, ADAPTERS["prefix"]))
    params = moved(config)
    plain, weights = Adapted(config.config, config.adaptation.unmergeable), merged(*config, params)
    assert plain.adaptation == Adaptation(text=config.adaptation.text)
    assert {p for p in flatten_dict(weights, sep="/") if is_adapter(p)} == {
        f"text/blocks/attention/prefix/virtual_{x}" for x in ("keys", "values")
    }
    assert max(difference(embeddings(plain, weights), embeddings(config, params))) <= 1e-6


def test_ranks_that_were_removed_do_nothing_and_learn_nothing() -> None:
    config = model(ADAPTERS["AdaLoRA"])
    params = moved(config)
    names = [f"text/blocks/attention/qkv/key_lora_{x}" for x in "aeb"]
    flat = flatten_dict(params, sep="/")
    assert [flat[name].shape for name in names] == [(2, 32, 3), (2, 3), (2, 3, 32)]
    changed = flat | {names[1]: flat[names[1]] + np.array([[0, 0, 0], [5, 5, 5]], np.float32)}
    assert difference(embeddings(config, unflatten_dict(changed, sep="/")), embeddings(config, params)) == [0.0, 0.0]
    graph = graph_of(config)

    def total(leaves: dict[str, Any]) -> jax.Array:
        return jnp.sum(nnx.merge(graph, unflatten_dict(flat | leaves, sep="/")).encode_text(tiny.batch(4)["tokens"]) ** 3)

    gradient = run(jax.grad(total), {name: flat[name] for name in names})
    for name, leaf in gradient.items():
        assert np.abs(leaf[0]).max() > 0 and not np.abs(leaf[1]).any(), name


@pytest.mark.parametrize("text", TEXTS)
def test_dropout_of_an_adapter_is_keyed_by_example(text: str) -> None:
    still = {"dropout": 0.0, "attention_dropout": 0.0} | ({"embedding_dropout": 0.0} if text == "GPT" else {})
    quiet = TEXTS[text] if text in ("CLIP", "LLaMA") else dataclasses.replace(TEXTS[text], **still)
    config = Adapted(dataclasses.replace(tiny.MODEL, text=quiet), model(LORA, text).adaptation)
    params, keys = moved(config), jax.vmap(jax.random.key)(jnp.arange(4))
    found = embeddings(config, params, keys)
    assert min(difference(found, embeddings(config, params))) > 1e-3, "without keys there is none"
    other = embeddings(config, params, keys.at[2].set(jax.random.key(9)))
    for a, b in zip(found, other, strict=True):
        assert (np.abs(a - b).max(axis=1) > 1e-3).tolist() == [False, False, True, False]


def test_captions_may_be_padded_with_a_prefix_too() -> None:
    tokens = tiny.batch(4)["tokens"]
    tokens[:, 5:] = 0
    for text in ("BERT", "GPT", "LLaMA"):
        config = model(ADAPTERS["prefix"], text)
        graph = graph_of(config)
        keys = jax.vmap(jax.random.key)(jnp.arange(4))

        def encode(params: dict[str, Any], graph: Any = graph, keys: jax.Array = keys) -> Any:
            clip = nnx.merge(graph, params)
            return clip.encode_text(tokens, keys), clip.encode_text(tokens[:, :6], keys)

        whole, cut = run(encode, moved(config))
        assert np.abs(whole - cut).max() <= 1e-6, text


def test_no_matrix_of_a_frozen_weight_is_made_for_training() -> None:
    """In the compiled gradient of the adapters nothing has a kernel's size but kernels that are read."""
    config = Adapted(model(LORA).config, Adaptation(text=LoRAConfig(rank=4, dropout=0.0)))
    graph = graph_of(config)
    flat = flatten_dict(init(config), sep="/")

    def loss(moving: dict[str, Any], rest: dict[str, Any], tokens: Any) -> jax.Array:
        return nnx.merge(graph, unflatten_dict(rest | moving, sep="/")).encode_text(tokens).sum()

    tokens = tiny.batch(5)["tokens"]  # 40 tokens: no sum over them has a kernel's size by accident

    def products(pattern: str) -> list[str]:
        moving = {path: leaf for path, leaf in flat.items() if re.search(pattern, path)}
        rest = {path: leaf for path, leaf in flat.items() if path not in moving}
        text = jax.jit(jax.grad(loss)).lower(moving, rest, tokens).compile().as_text()
        return re.findall(r"= (f32\[[\d,]*\]\S*) dot\(", text)

    kernel = r"f32\[(32,96|96,32|32,64|64,32|32,32)\]"
    assert any(re.match(kernel, shape) for shape in products("kernel")), "the control: when the weights are trained"
    found = products("lora")
    assert len(found) > 10 and not any(re.match(kernel, shape) for shape in found)


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "count"),
    [(LoRAConfig(), 2_621_440), (IA3Config(), 573_440), (PrefixConfig(), 3_276_800)],
    ids=["LoRA", "IA3", "prefix"],
)
def test_clefts_counts(adapter: AdapterConfig, count: int) -> None:
    """On BioMedLM, as PEFT 0.6.2 counts them, measured with that release."""
    config = CLIPConfig(text=GPTConfig(), text_head="linear", text_head_bias=True)
    leaves = abstract_leaves(Adapted(config, Adaptation(text=adapter)))
    assert sum(leaf.size for path, leaf in leaves.items() if is_adapter(path)) == count
    assert sum(leaf.size for path, leaf in leaves.items() if path.startswith("text/") and not is_adapter(path)) == 2_594_247_680
    assert sum(leaf.size for path, leaf in leaves.items() if path.startswith("text_head")) == 1_311_232


def test_ordinary_models_are_as_they_were() -> None:
    assert not any(map(is_adapter, abstract_leaves(Adapted(CLIPConfig()))))


# --- configs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_a_config_comes_back_from_json(adapter: AdapterConfig) -> None:
    adaptation = model(adapter).adaptation
    assert from_json(to_json(adaptation)) == adaptation


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(UserError, match=r"LoRAConfig\.targets = \('qkv',\): expected patterns of attention/qkv"):
        LoRAConfig(targets=("qkv",))
    with pytest.raises(UserError, match="either attention/qkv or parts of it"):
        model(LoRAConfig(targets=("attention/*", "attention/key")))
    with pytest.raises(UserError, match=r"AdaLoRAConfig\.ranks.*0 to rank = 2"):
        AdaLoRAConfig(rank=2, ranks=(("attention/qkv", (3, 1)),))
    with pytest.raises(UserError, match="ranks of 2 numbers, one a block"):
        model(AdaLoRAConfig(ranks=(("attention/qkv", (3, 1, 1)),)))
    with pytest.raises(UserError, match=r"IA3Config\.inputs.*not in outputs"):
        IA3Config(outputs=("mlp/fc2",))
    with pytest.raises(UserError, match=r"Adaptation\.text.*tokens \+ context_length = 8 at most positions = 16"):
        model(PrefixConfig(tokens=9))
    with pytest.raises(UserError, match="only a vision transformer"):
        Adaptation(LoRAConfig()).check_fits(CLIPConfig(image=ResNetConfig(), embed_width=2048, image_head="none"))


def test_layers_that_this_tower_does_not_have_are_named() -> None:
    with pytest.raises(UserError, match=r"targets = \('attention/qkv',\): expected patterns of the layers of a LLaMA"):
        Adaptation(text=LoRAConfig()).check_fits(CLIPConfig(text=LlamaConfig()))
    gated = LoRAConfig(targets=("mlp/gate",))
    with pytest.raises(UserError, match=r"targets = \('mlp/gate',\): expected patterns of attention/qkv"):
        Adaptation(text=gated).check_fits(CLIPConfig(text=GPTConfig()))
    with pytest.raises(UserError, match=r"LoRAConfig\.targets = \('mlp/gate', 'mlp/fc1'\)"):
        LoRAConfig(targets=("mlp/gate", "mlp/fc1"))
    with pytest.raises(UserError, match=r"AdaLoRAConfig\.ranks.*numbers for attention/query only"):
        AdaLoRAConfig(targets=("attention/query",), ranks=(("attention/key", (1, 1)),))
    found = LoRAConfig(targets=("attention/*",))
    assert found.layers_in(LAYERS) == ("attention/qkv", "attention/out")
    assert found.layers_in(LLAMA_LAYERS) == ("attention/query", "attention/key", "attention/value", "attention/out")
    with pytest.raises(UserError, match=r"Adaptation\.text.*at most positions = 16"):
        model(PrefixConfig(tokens=9), "LLaMA")


def test_counts_of_a_llama() -> None:
    """As PEFT counts them for a Llama 2 with 70B's grouped heads and 7B's depth and width, from the shapes of its layers."""
    text = LlamaConfig(key_value_heads=8)
    narrow = 4096 // 32 * 8
    expected = {
        LoRAConfig(targets=("attention/query", "attention/value")): 32 * 8 * (4096 + 4096 + 4096 + narrow),
        IA3Config(("attention/key", "attention/value"), ("mlp/down",)): 32 * (2 * narrow + 11_008),
        PrefixConfig(): 32 * 20 * 2 * narrow,
    }
    for adapter, count in expected.items():
        leaves = abstract_leaves(Adapted(CLIPConfig(text=text), Adaptation(text=adapter)))
        assert sum(leaf.size for path, leaf in leaves.items() if is_adapter(path)) == count
