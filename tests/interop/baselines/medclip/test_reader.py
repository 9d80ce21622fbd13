"""MedCLIP's released layout, against its forward pass put together from transformers and torchvision.

The package itself (medclip 0.0.3) needs a transformers of 2022. Its own classes, with the image code of transformers 4.24,
were run once with weights of `Reference`, and gave the same pixels and features, bit for bit.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import load_open_clip, randomise, write_vocabulary
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.medclip._swin import SwinConfig
from biomedclip_jax.interop.baselines.medclip.reader import PREPROCESS
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.write import write_model

BERT = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 200}
SWIN = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 7}
RESNET = [1, 2, 1, 1]
TEXTS = ["lungs remain severely hyperinflated", "opacity", "the chest x-ray of a tumor with cells, " * 10]


class Reference:
    """MedCLIPModel: both towers, both projections and the temperature."""

    def __init__(self, kind: str, bert: dict, vision: Any, width: int):
        load_open_clip()
        import torch
        from torch import nn
        from torchvision.models.resnet import Bottleneck, ResNet
        from transformers import BertConfig, BertModel, SwinConfig, SwinModel

        torch.manual_seed(0)
        self.text = BertModel(BertConfig(**bert)).eval()
        self.text_head = nn.Linear(bert["hidden_size"], width, bias=False)
        if kind == "swin":
            self.vision: Any = SwinModel(SwinConfig(**vision)).eval()
            self.vision_head = nn.Linear(self.vision.num_features, width, bias=False)
        else:
            self.vision = ResNet(Bottleneck, vision).eval()
            self.vision.fc = nn.Linear(2048, width, bias=False)
            self.vision_head = nn.Identity()
        for module in (self.text, self.text_head, self.vision, self.vision_head):
            randomise(module)
        for name, values in self.vision.named_parameters():
            if name.endswith("relative_position_bias_table"):
                values.data += torch.randn(values.shape)
        if kind == "resnet":  # statistics as of a trained network: without, all images are much alike
            for layer in self.vision.modules():
                if hasattr(layer, "momentum"):
                    layer.momentum = 1.0
            self.vision.train()
            self.image_features(pixels_of(some_images()))
            self.vision.eval()

    def image_features(self, pixels: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            out = self.vision(pixels)
            out = self.vision_head(out if isinstance(out, torch.Tensor) else out.pooler_output)
            return (out / out.norm(dim=-1, keepdim=True)).numpy()

    def text_features(self, tokens: Any) -> np.ndarray:
        """tokens [B, N]; the mean goes over padding, too."""
        import torch

        with torch.no_grad():
            states = self.text(tokens, attention_mask=tokens != 0, output_hidden_states=True).hidden_states
            three = torch.stack([states[1], states[2], states[-1]])
            out = self.text_head(three.permute(1, 0, 2, 3).mean(2).mean(1))
            return (out / out.norm(dim=-1, keepdim=True)).numpy()

    def state_dict(self, folder: Path, logit_scale: float) -> dict[str, Any]:
        """Under the names of transformers 4.24, with which the release was saved."""
        import torch
        from safetensors.torch import load_file
        from torch import nn

        state: dict[str, Any] = {"logit_scale": torch.tensor(logit_scale)}
        for prefix, module in (("vision_model.model.", self.vision), ("text_model.model.", self.text)):
            if hasattr(module, "save_pretrained"):
                module.save_pretrained(folder / "saved")
                named = load_file(folder / "saved" / "model.safetensors")
            else:
                named = module.state_dict()
            state |= {prefix + name: tensor for name, tensor in named.items()}
        state["text_model.projection_head.weight"] = self.text_head.weight.data
        if isinstance(self.vision_head, nn.Linear):
            state["vision_model.projection_head.weight"] = self.vision_head.weight.data
            for i, depth in enumerate(self.vision.config.depths):
                for j in range(depth):
                    name = f"vision_model.model.encoder.layers.{i}.blocks.{j}.attention.self.relative_position_index"
                    state[name] = torch.zeros(49, 49, dtype=torch.int64)
        state["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
        return state


def write_release(folder: Path, kind: str, logit_scale: float = 2.5) -> Reference:
    import torch

    reference = Reference(kind, BERT, SWIN if kind == "swin" else RESNET, 48)
    folder.mkdir()
    torch.save(reference.state_dict(folder, logit_scale), folder / "pytorch_model.bin")
    write_vocabulary(folder)
    (folder / "tokenizer_config.json").unlink()  # Bio_ClinicalBERT has none
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"} | BERT))
    return reference


def pixels_of(images: list[Image.Image]) -> Any:
    """`MedCLIPFeatureExtractor` in transformers 4.24, then the three channels that the vision models make of one."""
    import torch

    found = []
    for image in images:
        x, y = image.size
        size = max(224, x, y)
        square = Image.new("L", (size, size), 0)
        square.paste(image, (int((size - x) / 2), int((size - y) / 2)))
        values = np.array(square.resize((224, 224), resample=Image.Resampling.BICUBIC)).astype(np.float32) * (1 / 255.0)
        found.append(torch.from_numpy((values - 0.5862785803043838) / 0.27950088968644304)[None])
    return torch.stack(found).to(torch.float32).repeat((1, 3, 1, 1))


def some_images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    gray = [Image.fromarray(rng.integers(0, 256, size, np.uint8)) for size in ((300, 411), (224, 224), (90, 61))]
    color = Image.fromarray(rng.integers(0, 256, (333, 250, 3), np.uint8))
    return [*gray, color, color.quantize(64), gray[0].convert("LA")]


def compare(clip: Any, reference: Reference, bound: float = 1e-5) -> tuple[float, float]:
    """Of images and texts, the largest differences of unit embeddings."""
    import torch

    images = some_images()
    ours = clip.encode_images(images)
    assert np.ptp(ours, axis=0).max() > 0.02  # different images have different embeddings
    image = np.abs(ours - reference.image_features(pixels_of(images))).max()
    tokens = clip.processor.tokens(TEXTS)
    assert tokens.shape[1] == 77 and (tokens[2] != 0).all()
    alone = [reference.text_features(torch.from_numpy(row[row != 0][None].astype(np.int64))) for row in tokens]
    ours = clip.encode_texts(TEXTS)
    assert np.ptp(ours, axis=0).max() > 0.02
    text = np.abs(ours - np.concatenate(alone)).max()
    assert image <= bound and text <= bound, (image, text)
    return image, text


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_released_layout(tmp_path: Path, kind: str) -> None:
    reference = write_release(tmp_path / "medclip", kind)
    clip = bc.from_pretrained(tmp_path / "medclip")
    assert isinstance(clip.config.image, SwinConfig) == (kind == "swin")
    compare(clip, reference)
    assert abs(clip.logit_scale - np.exp(2.5)) < 1e-4
    assert clip.classify(some_images()[:1], ["pneumonia", "edema"], "{}").shape == (1, 2)


def test_pixels_are_those_of_medclips_processor() -> None:
    ours = np.stack([preprocess(image, PREPROCESS) for image in some_images()])
    expected = pixels_of(some_images()).permute(0, 2, 3, 1).numpy()
    # one rounding apart: MedCLIP multiplies by 1/255, everybody else divides by 255
    assert np.abs(ours - expected).max() <= 1e-6


def test_an_image_whose_square_would_not_fit_into_memory() -> None:
    with pytest.raises(UserError, match="20000 x 2 pixels is too large"):
        preprocess(Image.new("L", (20_000, 2)), PREPROCESS)


def test_temperature_is_clamped_as_medclip_does_in_use(tmp_path: Path) -> None:
    write_release(tmp_path / "medclip", "resnet", logit_scale=5.3)
    assert abs(bc.from_pretrained(tmp_path / "medclip").logit_scale - np.exp(4.6052)) < 1e-3


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    import torch

    write_release(tmp_path / "medclip", "swin")
    file = tmp_path / "medclip" / "pytorch_model.bin"
    state = torch.load(file)
    report = read_model(tmp_path / "medclip").report
    assert {*report.used, *report.ignored} == state.keys()
    torch.save(state | {"vision_model.model.extra": torch.zeros(2)}, file)
    with pytest.raises(UserError, match=r"unknown tensors: vision_model.model.extra"):
        read_model(tmp_path / "medclip")
    del state["vision_model.model.encoder.layers.0.downsample.norm.bias"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"missing: vision_model.model.encoder.layers.0.downsample.norm.bias"):
        read_model(tmp_path / "medclip")


def test_without_a_vocabulary_the_message_names_the_file_to_fetch(tmp_path: Path) -> None:
    write_release(tmp_path / "medclip", "resnet")
    (tmp_path / "medclip" / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"vocab.txt of emilyalsentzer/Bio_ClinicalBERT"):
        bc.from_pretrained(tmp_path / "medclip")


@pytest.mark.parametrize("format", ["open_clip", "huggingface"])
@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_it_has_no_form_to_be_written_in(tmp_path: Path, kind: str, format: Any) -> None:
    write_release(tmp_path / "medclip", kind)
    with pytest.raises(UserError):
        write_model(read_model(tmp_path / "medclip"), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_at_full_size(tmp_path: Path, kind: str) -> None:
    import torch

    load_open_clip()
    bert = {"vocab_size": 28_996}
    bert |= {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    reference = Reference(kind, bert, {} if kind == "swin" else [3, 4, 6, 3], 512)
    torch.save(reference.state_dict(tmp_path, 4.0), tmp_path / "pytorch_model.bin")
    write_vocabulary(tmp_path, 28_996)
    print(kind, compare(bc.from_pretrained(tmp_path), reference))
