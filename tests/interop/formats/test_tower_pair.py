"""Model folders of two towers that open_clip has no place for: written, loaded by transformers, read again."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.reference import load_open_clip, write_vocabulary

import biomedclip_jax as bc
from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    AdapterConfig,
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    GPTConfig,
    LlamaConfig,
    LoRAConfig,
    PrefixConfig,
    PreprocessConfig,
    ViTConfig,
)
from biomedclip_jax.config.adapters import LLAMA_LAYERS
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.tower_pair import CONFIG_FILE
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.models import init_params

VIT = ViTConfig(image_size=28, patch_size=14, width=32, depth=2, heads=4, mlp_width=64)
DINO = dataclasses.replace(VIT, registers=4, position_on_registers=False, layer_scale=True, pool="mean_prenorm")
SIZES = {"vocab_size": 300, "context_length": 12, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
GPT = GPTConfig(**SIZES, positions=16, pool="first_eos", pad_id=299)
LLAMA = LlamaConfig(**SIZES, positions=16, key_value_heads=2, pad_id=2)
BERT = BertConfig(**SIZES, positions=16)
HEADS: dict[str, Any] = {"embed_width": 16, "text_head": "linear", "text_head_bias": True, "image_head_bias": True}
MODELS = {
    "CLEFT's towers": CLIPConfig(image=DINO, text=GPT, **HEADS),
    "ViT and LLaMA": CLIPConfig(image=VIT, text=LLAMA, embed_width=16, text_head="mlp", init_logit_bias=-3.0),
    "DINOv2 and BERT": CLIPConfig(image=dataclasses.replace(DINO, registers=0, position_on_registers=True), text=BERT, **HEADS),
}


def write_byte_pairs(folder: Path) -> None:
    """A byte-level tokenizer as GPT-2's, with all bytes, a few merges and the end-of-text token as 299."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("c", "h"), ("e", "s"), ("Ġ", "c"), ("ch", "es"), ("ches", "t"), ("r", "a"), ("ra", "y")]
    words = [*letters, *(a + b for a, b in merges)]
    vocabulary = {word: i for i, word in enumerate(words)} | {"<|endoftext|>": 299}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def model_of(config: CLIPConfig, tokenizer: Path, adaptation: Adaptation = UNADAPTED) -> Model:
    rng = np.random.default_rng(0)
    fresh = init_params(config, 0, adaptation)
    params = jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), fresh)
    pre = PreprocessConfig(image_size=config.image.image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_mode="squash")
    if isinstance(config.text, BertConfig):
        tokenizer.mkdir(exist_ok=True)
        write_vocabulary(tokenizer)
    else:
        write_byte_pairs(tokenizer)
    return Model(config, pre, params, tokenizer, adaptation=adaptation)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    model = model_of(MODELS[name], tmp_path / "tokenizer")
    assert export_format(model.config) == "huggingface"
    write_model(model, tmp_path / "model", "huggingface")
    back = read_model(tmp_path / "model")
    assert (back.config, back.preprocess) == (model.config, model.preprocess)
    before, after = flatten_dict(model.params, sep="/"), flatten_dict(back.params, sep="/")
    assert before.keys() == after.keys() and all(np.array_equal(before[path], after[path]) for path in before)
    shutil.move(tmp_path / "model", tmp_path / "moved")
    clip = bc.from_pretrained(tmp_path / "moved")
    image = [np.zeros((40, 50, 3), np.uint8)]
    assert clip.classify(image, ["chest ray", "brain"], template="{}").shape == (1, 2)
    for format in ("open_clip", "open_clip-bin"):
        with pytest.raises(UserError, match="no open_clip form"):
            write_model(model, tmp_path / "other", format)
        assert not list(tmp_path.glob("other*"))


def test_a_folder_written_before_is_read(tmp_path: Path) -> None:
    """BERT's config had one field more, which was false in every folder that could be written."""
    model = model_of(MODELS["DINOv2 and BERT"], tmp_path / "tokenizer")
    write_model(model, tmp_path / "model", "huggingface")
    path = tmp_path / "model" / "biomedclip_config.json"
    content = json.loads(path.read_text())
    content["model"]["text"]["attend_padding"] = False
    path.write_text(json.dumps(content))
    assert read_model(tmp_path / "model").config == model.config


@pytest.mark.parametrize("adapter", [PrefixConfig(3), LoRAConfig(4, targets=LLAMA_LAYERS)], ids=["prefix", "LoRA"])
def test_adapters_of_a_llama_stay_beside_its_weights(tmp_path: Path, adapter: AdapterConfig) -> None:
    model = model_of(MODELS["ViT and LLaMA"], tmp_path / "tokenizer", Adaptation(text=adapter))
    write_model(model, tmp_path / "model", "huggingface")
    back = read_model(tmp_path / "model")
    assert (back.config, back.adaptation) == (model.config, model.adaptation)
    before, after = flatten_dict(model.params, sep="/"), flatten_dict(back.params, sep="/")
    assert before.keys() == after.keys() and all(np.array_equal(before[path], after[path]) for path in before)
    with pytest.raises(UserError, match="merge them first"):
        write_model(model, tmp_path / "other")
    # earlier versions had the adapter in the model's config
    path = tmp_path / "model" / "biomedclip_config.json"
    content = json.loads(path.read_text())
    content["model"] |= {"image_adapter": None, "text_adapter": content.pop("adaptation")["text"], "context": 0}
    path.write_text(json.dumps(content))
    again = read_model(tmp_path / "model")
    assert (again.config, again.adaptation) == (model.config, model.adaptation)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_the_towers(tmp_path: Path, name: str) -> None:
    load_open_clip()
    import torch
    from transformers import AutoModel

    model = model_of(MODELS[name], tmp_path / "tokenizer")
    write_model(model, tmp_path / "model", "huggingface")
    clip = bc.from_pretrained(tmp_path / "model").model
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    vision, loading = AutoModel.from_pretrained(tmp_path / "model" / "vision", output_loading_info=True)
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    assert not {key for kind in kinds for key in loading[kind] if "pooler" not in str(key)}
    text, loading = AutoModel.from_pretrained(tmp_path / "model" / "text", output_loading_info=True)
    assert not {key for kind in kinds for key in loading[kind] if "pooler" not in str(key)}
    tokens = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])
    with torch.no_grad():
        out = vision.eval()(torch.from_numpy(images).permute(0, 3, 1, 2), output_hidden_states=True)
        hidden = text.eval()(torch.from_numpy(tokens), attention_mask=torch.ones(2, 4).long()).last_hidden_state.numpy()
    pooled = out.hidden_states[-1].mean(dim=1) if model.config.vit.pool == "mean_prenorm" else out.last_hidden_state[:, 0]
    assert np.abs(clip.image(images) - pooled.numpy()).max() <= 1e-5 * np.abs(pooled.numpy()).max()
    config = clip.config.text
    if isinstance(config, BertConfig):
        assert np.abs(clip.text(tokens) - hidden[:, 0]).max() <= 1e-5 * np.abs(hidden).max()
    else:
        last = dataclasses.replace(config, pool="last_token")
        clip.text.config = last
        assert np.abs(clip.text(tokens) - hidden[:, -1]).max() <= 1e-5 * np.abs(hidden).max()


def test_texts_of_all_lengths_through_the_tokenizer(tmp_path: Path) -> None:
    """Sorted by length and cut to the longest of a batch: the same embeddings as one by one, padded to the whole context."""
    model = model_of(MODELS["CLEFT's towers"], tmp_path / "tokenizer")
    write_model(model, tmp_path / "model", "huggingface")
    clip = bc.from_pretrained(tmp_path / "model")
    texts = ["chest ray", "", "a", "chest", "a chest ray with a full context, which is cut", "12 letters:)"]
    tokens = clip.processor.tokens(texts)
    assert (tokens == 299).sum(axis=1).tolist() == [9, 12, 11, 11, 0, 0]
    assert tokens[0, :2].tolist() != [299, 299] and tokens[3, 0] == tokens[0, 0], "no token at the beginning"
    whole = np.asarray(clip.model.encode_text(tokens))
    assert np.abs(clip.encode_texts(texts) - whole).max() <= 1e-5
    assert np.abs(clip.encode_texts(texts, batch_size=2) - whole).max() <= 1e-5


@pytest.mark.parametrize("kind", ["vocab.json and merges.txt", "tokenizer.json"])
def test_gpt2s_tokenizer(tmp_path: Path, kind: str) -> None:
    """Ids, right padding and cutting as transformers does them with the end-of-text token as padding, from either form."""
    load_open_clip()
    from transformers import AutoTokenizer, GPT2Config

    from biomedclip_jax.data.text import Tokenizer

    write_byte_pairs(tmp_path)
    if kind != "tokenizer.json":
        content = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
        (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"] | {"<|endoftext|>": 299}))
        pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in content["merges"]]
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
        (tmp_path / "tokenizer.json").unlink()
        GPT2Config(vocab_size=300).save_pretrained(tmp_path)
        theirs = AutoTokenizer.from_pretrained(tmp_path)
    else:
        from transformers import PreTrainedTokenizerFast

        theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>")
    theirs.pad_token = theirs.eos_token
    texts = ["chest ray", " chest", "", "Pleural effusion, left: 3 cm", "é ≥ ü"]
    expected = theirs([" ".join(text.split()) for text in texts], padding="max_length", truncation=True, max_length=12)
    found = Tokenizer(tmp_path, 12, 299, 300)(texts)
    assert found.tolist() == expected["input_ids"]


# --- what is wrong with a folder -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(model_of(MODELS["CLEFT's towers"], tmp_path / "tokenizer"), tmp_path / "model", "huggingface")
    return tmp_path / "model"


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_model(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_config_that_is_not_ours_is_named(folder: Path) -> None:
    path = folder / CONFIG_FILE
    content = json.loads(path.read_text())
    for broken in ({}, {"model": {}, "preprocess": {}}, content | {"model": {"kind": "Unknown"}}, content | {"model": 3}):
        path.write_text(json.dumps(broken))
        assert CONFIG_FILE in message(folder)
    del content["model"]["text"]["kind"]
    path.write_text(json.dumps(content))
    assert CONFIG_FILE in message(folder)
    path.write_text("{")
    assert CONFIG_FILE in message(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "heads.safetensors").rename(folder / "away")
    assert "heads.safetensors" in message(folder)
    (folder / "away").rename(folder / "heads.safetensors")
    (folder / "text" / "model.safetensors").unlink()
    assert "text: no weights here" in message(folder)


def test_a_model_that_fits_nowhere_is_refused_with_open_clips_reason() -> None:
    image = dataclasses.replace(DINO, position_on_registers=True)
    with pytest.raises(UserError, match="this text tower \\(GPT\\) has no open_clip form"):
        export_format(CLIPConfig(image=image, text=GPT, **HEADS))
    with pytest.raises(UserError, match="no open_clip form: open_clip never pools before the last norm"):
        text = ClipTextConfig(width=32, heads=4)
        export_format(CLIPConfig(image=DINO, text=text, **HEADS))
