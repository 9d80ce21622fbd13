"""transformers' SiglipModel, which MedSigLIP is: embeddings, gradients, texts, training, and the way back."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.reference import load_open_clip
from helpers.tiny_run import config as run_config
from helpers.tiny_run import make_data
from helpers.tiny_siglip import siglip, write_gemma, write_spiece
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.config import DataConfig, Sigmoid, Softmax, Stage
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.detect import detect, read_model
from biomedclip_jax.interop.formats.huggingface.siglip import siglip_entries
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.interop.write import export_format, write_model
from biomedclip_jax.losses import pair_loss
from biomedclip_jax.models import abstract_model
from biomedclip_jax.train.main import train

TEXTS = ["Chest X-ray, of a LUNG!", "an_image of a brain", "", "photo " * 40]


def test_embeddings_loss_and_gradients(tmp_path: Path) -> None:
    reference = siglip(tmp_path)
    import torch

    model = read_model(tmp_path)
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(4, 32, 32, 3)) + 2 * rng.normal(size=(4, 1, 1, 3))).astype(np.float32)
    tokens = rng.integers(2, 60, (4, 16))
    tokens[0, 5:], tokens[1, 1:] = 1, 1
    graph, _ = abstract_model(model.config)

    def loss(params: dict) -> tuple:
        clip = nnx.merge(graph, params)
        image, text = clip.encode_image(images), clip.encode_text(tokens)
        return pair_loss(Sigmoid(), image, text, {name: params[name] for name in ("logit_scale", "logit_bias")}), (image, text)

    (value, (image, text)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    out = reference(torch.from_numpy(tokens), torch.from_numpy(images).permute(0, 3, 1, 2), return_loss=True)
    assert np.abs(image - out.image_embeds.detach().numpy()).max() <= 1e-5
    assert np.abs(text - out.text_embeds.detach().numpy()).max() <= 1e-5
    assert abs(float(value) / out.loss.item() - 1) <= 1e-5
    out.loss.backward()
    ours = from_params(gradient, siglip_entries(model.config))
    parameters = dict(reference.named_parameters())
    assert ours.keys() == parameters.keys()
    for name, array in ours.items():
        theirs = parameters[name].grad.numpy()
        assert array.shape == theirs.shape
        if name.endswith("k_proj.bias"):  # a softmax does not see the keys' bias: this is what rounding leaves
            assert max(np.linalg.norm(array), np.linalg.norm(theirs)) <= 1e-5, name
        else:
            assert np.linalg.norm(array - theirs) <= 1e-4 * np.linalg.norm(theirs), name


def test_there_and_back_again(tmp_path: Path) -> None:
    reference = siglip(tmp_path / "theirs", image_size=36)  # 4 pixels over beside the last whole patch, as of 384 in 14s
    import torch
    from transformers import SiglipModel

    assert detect(tmp_path / "theirs").kind == "transformers' SigLIP"
    model = read_model(tmp_path / "theirs")
    assert export_format(model.config, model.preprocess) == "huggingface"
    with pytest.raises(UserError, match=r"no open_clip form: .*: write the model in the huggingface format"):
        write_model(model, tmp_path / "open_clip")
    write_model(model, tmp_path / "ours", "huggingface")
    again = SiglipModel.from_pretrained(tmp_path / "ours").eval()
    before, after = (read_weights(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) and before.shape(name) == after.shape(name) for name in before)
    for part in ("text_config", "vision_config"):  # what decides
        found, expected = getattr(again.config, part), getattr(reference.config, part)
        assert {**found.to_dict(), "dtype": None} == {**expected.to_dict(), "dtype": None}
    back = read_model(tmp_path / "ours")
    assert (back.config, back.preprocess) == (model.config, model.preprocess)
    images = torch.randn(2, 3, 36, 36)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(again.get_image_features(images).pooler_output, dim=-1)
    graph, _ = abstract_model(model.config)
    ours = nnx.merge(graph, model.params).encode_image(images.permute(0, 2, 3, 1).numpy())
    assert np.abs(ours - expected.numpy()).max() <= 1e-5


def test_texts_as_siglip_was_trained_on(tmp_path: Path) -> None:
    """Small letters, no punctuation, the end token, filled up with it to the last token, which is what is read."""
    reference = siglip(tmp_path)
    import torch

    clip = bc.from_pretrained(tmp_path)
    tokens = clip.processor.tokens(TEXTS)
    words = [[clip.processor.tokenizer._tokenizer.id_to_token(int(i)) for i in row] for row in tokens]
    assert words[0] == ["▁chest", "▁x", "r", "a", "y", "▁of", "▁a", "▁lung", *["</s>"] * 8]
    assert words[1] == ["▁an", "i", "m", "a", "g", "e", "▁of", "▁a", "▁brain", *["</s>"] * 7]
    assert words[2] == ["</s>"] * 16
    assert words[3] == ["▁photo"] * 15 + ["</s>"]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(reference.get_text_features(torch.from_numpy(tokens)).pooler_output, dim=-1)
    assert np.abs(clip.encode_texts(TEXTS) - expected.numpy()).max() <= 1e-5
    cut = clip.model.encode_text(tokens[:2, :9])  # without padding that does no more than fill up
    assert np.abs(cut - expected[:2].numpy()).max() <= 1e-5


def test_images_as_siglip_sees_them(tmp_path: Path) -> None:
    """Squashed, not cropped; and a temperature above CLIP's limit."""
    reference = siglip(tmp_path)
    import torch
    from transformers import AutoImageProcessor

    clip = bc.from_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    ours = clip.processor.image(Image.fromarray(pixels))
    processor = AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    theirs = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() <= 2 / 255 / 0.5
    tokens = torch.from_numpy(clip.processor.tokens(["a photo of a lung", "a photo of a brain"]))
    with torch.no_grad():
        scores = reference(tokens, torch.from_numpy(ours).permute(2, 0, 1)[None]).logits_per_image
    found = clip.classify([Image.fromarray(pixels)], ["lung", "brain"], "a photo of a {}")
    assert np.abs(found - scores.softmax(dim=-1).numpy()).max() <= 1e-4


def test_gemma_tokenizer_of_siglip_2(tmp_path: Path) -> None:
    """Its texts are in small letters, and filled up with token 0, which the model's own config does not say."""
    siglip(tmp_path)
    write_gemma(tmp_path)
    config = read_model(tmp_path).config
    assert (config.text.pad_id, json.loads((tmp_path / "config.json").read_text())["text_config"].get("pad_token_id", 1)) == (
        0,
        1,
    )
    tokenizer = Tokenizer(tmp_path, 16, 0, 120)
    assert np.array_equal(tokenizer(["CHE a"]), tokenizer(["che a"]))
    ids = tokenizer._tokenizer
    assert [ids.id_to_token(int(i)) for i in tokenizer(["Che a"])[0][:6]] == ["che", "▁", "a", "<eos>", "<pad>", "<pad>"]
    with pytest.raises(UserError, match="fills texts up with '<pad>', id 0, but the text tower's pad_id is 1"):
        Tokenizer(tmp_path, 16, 1, 120)
    content = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content | {"padding_side": "left"}))
    with pytest.raises(UserError, match="padding_side = 'left'"):
        Tokenizer(tmp_path, 16, 0, 120)


def test_other_sentencepiece_files_are_refused(tmp_path: Path) -> None:
    write_spiece(tmp_path, model_type=2)
    with pytest.raises(UserError, match=r"spiece.model: no unigram model"):
        Tokenizer(tmp_path, 16, 1, 120)
    (tmp_path / "spiece.model").write_bytes(b"no protocol buffer")
    with pytest.raises(UserError, match=r"spiece.model: not a readable tokenizer"):
        Tokenizer(tmp_path, 16, 1, 120)


def test_configs_that_are_other_models(tmp_path: Path) -> None:
    siglip(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    changes = (
        ({"model_type": "siglip2"}, "model_type = 'siglip2' is not supported; supported: 'siglip'"),
        ({"vision_config": content["vision_config"] | {"vision_use_head": False}}, "vision_config: vision_use_head = False"),
        ({"text_config": content["text_config"] | {"projection_size": 7}}, "projection_size = 7: expected 48"),
        ({"text_config": content["text_config"] | {"new_field": 7}}, "text_config: unknown or unsupported field 'new_field'"),
    )
    for change, message in changes:
        path.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            read_model(tmp_path)


@pytest.mark.parametrize("loss", [Sigmoid(), Softmax()])
def test_a_stage_on_it_is_trained_and_written_back(tmp_path: Path, loss: Sigmoid | Softmax) -> None:
    """From transformers' folder, at another image size, to a folder that transformers loads."""
    siglip(tmp_path / "base")
    from transformers import SiglipModel

    base = read_model(tmp_path / "base")
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data")
    stage = Stage(8, steps=3, microbatch=8, image_size=40, patch_keep=0.5, loss=loss)
    named = DataConfig(str(data / "train.csv"), held_out=str(data / "held_out.csv"), tokenizer=str(tmp_path / "base"))
    changes = {"model": base.config, "preprocess": base.preprocess, "model_init": str(tmp_path / "base")}
    run = run_config(data, stages=(stage,), evaluate_every=3, export="last", **changes)
    run = dataclasses.replace(run, data=named)
    assert train(run, tmp_path / "run") is not None
    theirs = SiglipModel.from_pretrained(tmp_path / "run" / "model").eval()
    assert theirs.config.vision_config.image_size == 40
    assert theirs.logit_scale.item() > 4.7, "SigLIP's temperature has no limit at ln 100"
    ours = read_model(tmp_path / "run" / "model")
    before, after = flatten_dict(base.params, sep="/"), flatten_dict(ours.params, sep="/")
    assert before.keys() == after.keys()
    moved = {path for path in after if before[path].shape != after[path].shape or not np.array_equal(before[path], after[path])}
    still = set() if isinstance(loss, Sigmoid) else {"logit_bias"}
    assert moved == after.keys() - still
    clip = bc.from_pretrained(tmp_path / "run" / "model")
    assert np.array_equal(clip.processor.tokens(TEXTS), bc.from_pretrained(tmp_path / "base").processor.tokens(TEXTS))
    assert dataclasses.replace(ours.preprocess, image_size=32) == base.preprocess


def test_open_clip_reads_one_that_timm_knows(tmp_path: Path) -> None:
    """transformers' layout -> open_clip's, of the one small tower of which both have the tanh form of GELU."""
    open_clip = load_open_clip()
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    text = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80, "vocab_size": 120}
    text |= {"projection_size": 768, "max_position_embeddings": 16}
    config = SiglipConfig(text_config=text, vision_config={"image_size": 256, "patch_size": 32})
    reference = SiglipModel(config).eval()
    reference.save_pretrained(tmp_path / "theirs")
    write_spiece(tmp_path / "theirs")
    write_model(read_model(tmp_path / "theirs"), tmp_path / "ours")
    content = json.loads((tmp_path / "ours" / "open_clip_config.json").read_text())["model_cfg"]
    assert content["text_cfg"]["tokenizer_kwargs"] == {"clean": "canonicalize"}
    assert content["vision_cfg"]["timm_model_name"] == "vit_base_patch32_siglip_256"
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'ours'}").eval()
    images, tokens = torch.randn(2, 3, 256, 256), torch.randint(2, 120, (2, 16))
    with torch.no_grad():
        out = reference(tokens, images)
        image, text = loaded.encode_image(images, normalize=True), loaded.encode_text(tokens, normalize=True)
    assert (image - out.image_embeds).abs().max() <= 1e-5
    assert (text - out.text_embeds).abs().max() <= 1e-5
    again = read_model(tmp_path / "ours")
    assert np.array_equal(Tokenizer(tmp_path / "ours", 16, again.config.text.pad_id, 120)(["A lung."])[0][-1:], [1])
