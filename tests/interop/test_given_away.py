"""Model folders that are moved and given away: the code in their README.md is run as it stands there, and no path stays."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.reference import load_open_clip, open_clip_model, write_vocabulary

import biomedclip_jax as bc
from biomedclip_jax.cli.main import main
from biomedclip_jax.config import (
    UNADAPTED,
    Adaptation,
    BertConfig,
    CLIPConfig,
    GPTConfig,
    LlamaConfig,
    PrefixConfig,
    PreprocessConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.models import init_params

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}
TEXTS = ["chest ray", "this is a photo of the lung, and of more than sixteen tokens", "brain: tumor cells"]
IMAGES = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)

VIT = ViTConfig(image_size=32, patch_size=16, width=32, depth=2, heads=4, mlp_width=64)
DINO = dataclasses.replace(VIT, registers=4, position_on_registers=False, layer_scale=True, pool="mean_prenorm")
SIZES: dict[str, Any] = {"vocab_size": 200, "context_length": 16, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}
BERT = BertConfig(**SIZES, positions=16)
GPT = GPTConfig(**SIZES, positions=20, pool="first_eos", pad_id=199)
LLAMA = LlamaConfig(**SIZES, positions=20, key_value_heads=2, pad_id=2)
MODELS = {
    "as BiomedCLIP": CLIPConfig(image=VIT, text=BERT, embed_width=16),
    "mean, and BERT's pooler": CLIPConfig(
        image=dataclasses.replace(VIT, pool="mean"),
        text=dataclasses.replace(BERT, pool="cls_pooler"),
        embed_width=16,
        text_head="linear",
        image_head="mlp",
    ),
    "no projections, mean of a text": CLIPConfig(
        image=VIT, text=dataclasses.replace(BERT, pool="mean"), embed_width=32, image_head="none", text_head="none"
    ),
    "maximum of a text": CLIPConfig(image=VIT, text=dataclasses.replace(BERT, pool="max"), embed_width=16),
    "mean and pooler, as open_clip has them": CLIPConfig(
        image=dataclasses.replace(VIT, pool="mean"),
        text=dataclasses.replace(BERT, pool="cls_pooler"),
        embed_width=16,
        text_head="linear",
    ),
    "mean of a text, as open_clip has it": CLIPConfig(
        image=VIT, text=dataclasses.replace(BERT, pool="mean"), embed_width=32, text_head="none"
    ),
    "DINOv2 and BERT": CLIPConfig(image=DINO, text=BERT, embed_width=16, text_head_bias=True, image_head_bias=True),
    "CLEFT's towers": CLIPConfig(
        image=DINO, text=GPT, embed_width=16, text_head="linear", text_head_bias=True, image_head_bias=True
    ),
    "ViT and LLaMA": CLIPConfig(image=VIT, text=LLAMA, embed_width=16),
    "registers and the mean": CLIPConfig(image=dataclasses.replace(DINO, pool="mean"), text=GPT, embed_width=16),
}


def model_of(config: CLIPConfig, tokenizer: Path, adaptation: Adaptation = UNADAPTED) -> Model:
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), init_params(config, 0, adaptation)
    )
    tokenizer.mkdir()
    if isinstance(config.text, BertConfig):
        write_vocabulary(tokenizer)
    else:
        write_byte_pairs(tokenizer)
    preprocess = PreprocessConfig(image_size=config.image.image_size, resize_mode="squash")
    return Model(config, preprocess, params, tokenizer, adaptation=adaptation)


def write_byte_pairs(folder: Path) -> None:
    """A byte-level tokenizer of printable signs, whose end-of-text token is not where its class would look."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [chr(number) for number in range(33, 127)] + ["Ġ"]
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"ch": 95, "es": 96, "<|endoftext|>": 199}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("c", "h"), ("e", "s")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def blocks(folder: Path, language: str) -> list[str]:
    """The code in the README of a folder."""
    parts = (folder / "README.md").read_text().split(f"```{language}\n")[1:]
    return [part.partition("```")[0] for part in parts]


def run(code: str, name: str, folder: Path) -> dict[str, Any]:
    """What the code leaves behind, with the folder in place of its name."""
    assert code.count(f'"{name}"') == 1
    names: dict[str, Any] = {}
    exec(code.replace(f'"{name}"', repr(str(folder))), names)
    return names


def moved(folder: Path) -> Path:
    """The folder elsewhere; where it was there is nothing."""
    place = folder.parent / "given away" / folder.name
    place.parent.mkdir(exist_ok=True)
    return Path(shutil.move(folder, place))


def check_transformers(names: dict[str, Any], folder: Path) -> None:
    """The README's two functions give our embeddings of the model in `folder`, which is where it was not written."""
    import torch

    ours = bc.from_pretrained(folder)
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    assert np.abs(names["encode_image"](pixels).numpy() - np.asarray(ours.model.encode_image(IMAGES))).max() <= 1e-5
    theirs = names["encode_text"](TEXTS).numpy()
    assert np.abs(theirs - ours.encode_texts(TEXTS)).max() <= 1e-5
    assert np.abs(theirs[0] - theirs[2]).max() > 1e-3, "the tower tells texts apart"


@pytest.mark.parametrize("name", MODELS)
def test_a_pair_says_how_transformers_embeds(tmp_path: Path, name: str) -> None:
    load_open_clip()
    model = model_of(MODELS[name], tmp_path / "tokenizer")
    write_model(model, tmp_path / "pair", "huggingface")
    shutil.rmtree(tmp_path / "tokenizer")
    pair = moved(tmp_path / "pair")
    (code,) = blocks(pair, "python")
    check_transformers(run(code, "FOLDER", pair), pair)


def test_images_are_made_as_ours(tmp_path: Path) -> None:
    """The processor that the README loads, on an image file's pixels."""
    load_open_clip()
    write_model(model_of(MODELS["as BiomedCLIP"], tmp_path / "tokenizer"), tmp_path / "pair", "huggingface")
    pair = moved(tmp_path / "pair")
    names = run(blocks(pair, "python")[0], "FOLDER", pair)
    image = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3)).astype(np.uint8)
    pixels = names["processor"]([image], return_tensors="pt")["pixel_values"]
    theirs = names["encode_image"](pixels).numpy()
    assert np.abs(theirs - bc.from_pretrained(pair).encode_images([image])).max() <= 1e-5


def test_an_open_clip_folder_says_how_both_load_it(tmp_path: Path) -> None:
    """open_clip from the folder itself; transformers from the pair that the README's command makes of it."""
    load_open_clip()
    import torch

    open_clip_model(tmp_path / "made", VISION | {"no_ln_pre": True}, TEXT, bert={"num_hidden_layers": 1})
    write_model(dataclasses.replace(read_model(tmp_path / "made"), text_model=""), tmp_path / "written")
    shutil.rmtree(tmp_path / "made")
    folder = moved(tmp_path / "written")
    of_open_clip, of_transformers = blocks(folder, "python")

    names = run(of_open_clip, "FOLDER", folder)
    ours = bc.from_pretrained(folder)
    with torch.no_grad():
        images = names["model"].encode_image(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), normalize=True).numpy()
        texts = names["model"].encode_text(names["tokenizer"](TEXTS), normalize=True).numpy()
    assert np.abs(images - np.asarray(ours.model.encode_image(IMAGES))).max() <= 1e-5
    assert np.abs(texts - ours.encode_texts(TEXTS)).max() <= 1e-5

    (command,) = blocks(folder, "bash")
    places = {"FOLDER": str(folder), "PAIR": str(tmp_path / "pair")}
    program, *arguments = [places.get(word, word) for word in command.split()]
    assert program == "biomedclip"
    main(arguments)
    pair = moved(tmp_path / "pair")
    check_transformers(run(of_transformers, "PAIR", pair), folder)
    assert blocks(pair, "python") == [of_transformers.replace('"PAIR"', '"FOLDER"')], "the pair has the same code"


def test_a_model_without_such_a_form_promises_none(tmp_path: Path) -> None:
    """CLIP's own ViT begins with a norm, which transformers' has not."""
    load_open_clip()
    open_clip_model(tmp_path / "made", VISION, TEXT, bert={"num_hidden_layers": 1})
    model = dataclasses.replace(read_model(tmp_path / "made"), text_model="")
    write_model(model, tmp_path / "written")
    assert len(blocks(tmp_path / "written", "python")) == 1 and not blocks(tmp_path / "written", "bash")
    with pytest.raises(UserError, match="no form in transformers"):
        write_model(model, tmp_path / "pair", "huggingface")


def test_adapters_beside_the_weights_are_said(tmp_path: Path) -> None:
    """The towers alone are another model: there is no code that would give its embeddings as this one's."""
    model = model_of(MODELS["ViT and LLaMA"], tmp_path / "tokenizer", Adaptation(text=PrefixConfig(3)))
    write_model(model, tmp_path / "pair", "huggingface")
    assert not blocks(tmp_path / "pair", "python")
    assert "adapters.safetensors" in (tmp_path / "pair" / "README.md").read_text()


def texts_in(folder: Path) -> dict[str, str]:
    """The files of a folder that are not weights, by their names in it."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix in (".json", ".txt", ".md")]
    assert files
    return {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}


@pytest.mark.parametrize("name", MODELS)
def test_no_path_of_this_machine_is_written(tmp_path: Path, name: str) -> None:
    """Neither the folder's own nor those that transformers notes in a tokenizer's config; only BERT's, for open_clip."""
    model = model_of(MODELS[name], tmp_path / "tokenizer")
    config = tmp_path / "tokenizer" / "tokenizer_config.json"
    content = json.loads(config.read_text()) if config.is_file() else {"tokenizer_class": "GPT2Tokenizer"}
    places = {"name_or_path": str(tmp_path / "tokenizer"), "special_tokens_map_file": str(tmp_path / "map.json")}
    config.write_text(json.dumps(content | places | {"tokenizer_file": "C:\\models\\tokenizer.json"}))

    write_model(model, tmp_path / "pair", "huggingface")
    for text in texts_in(tmp_path / "pair").values():
        assert str(tmp_path) not in text and "C:" not in text
    assert json.loads((tmp_path / "pair" / "text" / "tokenizer_config.json").read_text()) == content, "the rest stays"

    if export_format(model.config, model.preprocess) == "open_clip":
        write_model(model, tmp_path / "open_clip")
        written = texts_in(tmp_path / "open_clip")
        assert [file for file, text in written.items() if str(tmp_path) in text] == ["open_clip_config.json"]
        fields = json.loads(written["open_clip_config.json"])["model_cfg"]["text_cfg"]
        named = [field for field, value in fields.items() if str(tmp_path) in str(value)]
        assert sorted(named) == ["hf_model_name", "hf_tokenizer_name"], "the two that the README says"


def test_a_name_of_the_hub_stays(tmp_path: Path) -> None:
    """open_clip finds it from everywhere: nothing is to be edited there, and a folder has no README on that."""
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    model = dataclasses.replace(model_of(MODELS["as BiomedCLIP"], tmp_path / "tokenizer"), text_model=name)
    write_model(model, tmp_path / "pair", "huggingface")
    back = read_model(tmp_path / "pair")
    assert back.text_model == name
    write_model(model, tmp_path / "open_clip")
    assert not (tmp_path / "open_clip" / "README.md").exists()
    own = dataclasses.replace(model, text_model="")
    write_model(own, tmp_path / "own", "huggingface")
    assert read_model(tmp_path / "own").text_model == "", "the pair's own, which open_clip could not find"
