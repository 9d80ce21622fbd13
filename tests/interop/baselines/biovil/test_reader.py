"""BioViL's and BioViL-T's released layouts, against their forward pass put together from torchvision and transformers.

hi-ml-multimodal asks for SimpleITK and other packages that nothing here needs. Its own classes (0.2.2) were run once with
weights of `Reference`, and gave the same pixels and features, bit for bit.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import load_open_clip, randomise, write_vocabulary
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.biovil.reader import IMAGE_FILES, preprocess_config
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.write import write_model

BERT = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 200}
BERT_FULL = {"vocab_size": 30_522}
TEXTS = ["there is no pneumothorax or pleural effusion", "opacity", "the chest x-ray of a tumor with cells, " * 10]


class Reference:
    """hi-ml's `ImageModel` (temporal: on its `MultiImageEncoder`, given one image) and `CXRBertModel`."""

    def __init__(self, temporal: bool, blocks: list[int], bert: dict):
        load_open_clip()
        import torch
        from torch import nn
        from torchvision.models.resnet import Bottleneck, ResNet
        from transformers import BertConfig, BertForMaskedLM

        torch.manual_seed(0)
        self.resnet = ResNet(Bottleneck, blocks)
        width = 512 if temporal else 2048
        self.projector = nn.Sequential(
            nn.Conv2d(width, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.Conv2d(128, 128, 1)
        )
        self.reduce = nn.Conv2d(2048, 256, 1, bias=False) if temporal else nn.Identity()
        self.no_earlier = torch.randn(1, 256, 1, 1) if temporal else None
        self.bert = BertForMaskedLM(BertConfig(**bert))
        self.hidden, self.out = nn.Linear(self.bert.config.hidden_size, 128), nn.Linear(128, 128)
        self.norm = nn.LayerNorm(128, 1e-12)
        for module in (self.resnet, self.projector, self.reduce, self.bert, self.hidden, self.norm, self.out):
            randomise(module.eval())
        self._measure_batch_norm()
        with torch.no_grad():
            for parameter in self.bert.parameters():
                if parameter.ndim > 1:
                    parameter *= 3  # at the usual 0.02 the first token hardly sees the others

    def _measure_batch_norm(self) -> None:
        """Statistics as of a trained network; without, what all images have in common drowns what tells them apart."""
        for module in (self.resnet, self.projector):
            for layer in module.modules():
                if hasattr(layer, "momentum"):
                    layer.momentum = 1.0
            module.train()
        self.image_features(pixels_of(some_images(), 224))
        self.resnet.eval()
        self.projector.eval()

    def positions_in_float64(self, pixels: Any) -> tuple[Any, Any]:
        """`positions` without the rounding of float32, which fifty layers of it make larger than what is compared."""
        import torch

        modules, earlier = (self.resnet, self.projector, self.reduce), self.no_earlier
        for module in modules:
            module.to(torch.float64)
        self.no_earlier = None if earlier is None else earlier.to(torch.float64)
        found = self.positions(pixels.to(torch.float64))
        for module in modules:
            module.to(torch.float32)
        self.no_earlier = earlier
        return found

    def positions(self, pixels: Any) -> tuple[Any, Any]:
        """hi-ml's `patch_embeddings` and `projected_patch_embeddings`, [n, D, h, w]."""
        import torch

        net, x = self.resnet, pixels
        with torch.no_grad():
            x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
            x = self.reduce(net.layer4(net.layer3(net.layer2(net.layer1(x)))))
            if self.no_earlier is not None:
                x = torch.cat([x, self.no_earlier.expand(len(x), -1, *x.shape[2:])], dim=1)
            return x, self.projector(x)

    def image_features(self, pixels: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            return torch.nn.functional.normalize(self.positions(pixels)[1].mean(dim=(2, 3)), dim=-1).numpy()

    def text_features(self, tokens: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            states = self.bert.bert(tokens, attention_mask=tokens != 0).last_hidden_state[:, 0]
            out = self.out(self.norm(torch.nn.functional.gelu(self.hidden(states))))
            return torch.nn.functional.normalize(out, dim=-1).numpy()

    def image_state(self) -> dict[str, Any]:
        import torch

        state = {f"encoder.encoder.{name}": t for name, t in self.resnet.state_dict().items()}
        state |= {f"projector.model.{name}": t for name, t in self.projector.state_dict().items()}
        if self.no_earlier is not None:
            state["encoder.backbone_to_vit.weight"] = self.reduce.weight.data
            state["encoder.missing_previous_emb"] = self.no_earlier
            state["encoder.vit_pooler.type_embed"] = torch.zeros(2, 1, 256)
            state["encoder.vit_pooler.blocks.0.attn.proj_q.weight"] = torch.zeros(256, 256)
        return state

    def text_state(self) -> dict[str, Any]:
        import torch

        state = self.bert.state_dict() | {"bert.embeddings.position_ids": torch.arange(512)[None]}
        parts = {"dense_to_hidden": self.hidden, "LayerNorm": self.norm, "dense_to_output": self.out}
        return state | {f"cls_projection_head.{p}.{n}": t for p, m in parts.items() for n, t in m.state_dict().items()}


def write_release(folder: Path, temporal: bool, blocks: list[int], bert: dict) -> Reference:
    """The files as they lie on the hub."""
    import torch

    reference = Reference(temporal, blocks, bert)
    folder.mkdir(exist_ok=True)
    torch.save(reference.image_state(), folder / IMAGE_FILES[temporal])
    torch.save(reference.text_state(), folder / "pytorch_model.bin")
    config = {k: v for k, v in reference.bert.config.to_dict().items() if k != "model_type"}
    named = {"architectures": ["CXRBertModel"], "projection_size": 128} | ({} if temporal else {"model_type": "cxr-bert"})
    (folder / "config.json").write_text(json.dumps(config | named))
    write_vocabulary(folder, bert["vocab_size"])
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "CXRBertTokenizer"}))
    return reference


def some_images() -> list[Image.Image]:
    """Gray of little contrast, so that stretching shows, one smaller than the crop; then color. Large shapes and fine noise."""
    rng = np.random.default_rng(0)

    def image(height: int, width: int, *channels: int) -> Image.Image:
        shapes = Image.fromarray(rng.integers(31, 150, (6, 5, *channels), np.uint8)).resize((width, height))
        return Image.fromarray(np.asarray(shapes) + rng.integers(0, 30, (height, width, *channels), np.uint8))

    return [image(700, 611), image(512, 640), image(90, 61), image(533, 550, 3)]


def pixels_of(images: list[Image.Image], crop: int) -> Any:
    """`load_image` and `create_chest_xray_transform_for_inference` of hi-ml."""
    load_open_clip()
    import torch
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    transform = Compose([Resize(512), CenterCrop(crop), ToTensor()])
    found = []
    for image in images:
        array = np.array(image).astype(float)
        array -= array.min()
        array /= array.max()
        array *= 255
        found.append(transform(Image.fromarray(array.astype(np.uint8)).convert("L")))
    return torch.stack(found).repeat_interleave(3, dim=1)


def rows_of(positions: Any, normalised: bool) -> np.ndarray:
    """[n, D, h, w] as rows [n, h * w, D], of length 1 if asked."""
    import torch

    rows = positions.flatten(2).transpose(1, 2)
    return (torch.nn.functional.normalize(rows, dim=-1) if normalised else rows).numpy()


def compare(clip: Any, reference: Reference, crop: int) -> tuple[float, float]:
    """Of images and texts, the largest differences of unit embeddings."""
    import torch

    images = some_images()
    ours = clip.encode_images(images)
    assert np.ptp(ours, axis=0).max() > 0.02  # different images have different embeddings
    image = np.abs(ours - reference.image_features(pixels_of(images, crop))).max()
    pixels = pixels_of(images, crop)
    exact, theirs = reference.positions_in_float64(pixels), reference.positions(pixels)
    for projected in (False, True):
        true, rounded = (rows_of(each[projected], projected) for each in (exact, theirs))
        error, own = (np.abs(each - true).max() for each in (clip.image_tokens(images, projected=projected), rounded))
        # fifty layers in float32: no farther from the exact numbers than twice what PyTorch's own rounding is
        assert error <= max(1e-5 * np.abs(true).max(), 2 * own)
    tokens = clip.processor.tokens(TEXTS)
    assert tokens.shape[1] == 512
    used = int((tokens != 0).sum(axis=1).max())
    expected = reference.text_features(torch.from_numpy(tokens[:, :used].astype(np.int64)))
    ours = clip.encode_texts(TEXTS)
    assert np.ptp(ours, axis=0).max() > 0.02
    text = np.abs(ours - expected).max()
    assert image <= 1e-5 and text <= 1e-5, (image, text)
    return image, text


@pytest.mark.parametrize(("temporal", "crop"), [(False, 480), (True, 448)])
def test_released_layout(tmp_path: Path, temporal: bool, crop: int) -> None:
    reference = write_release(tmp_path, temporal, [1, 1, 2, 1], BERT)
    clip = bc.from_pretrained(tmp_path)
    compare(clip, reference, crop)
    assert clip.logit_scale == 1
    report = read_model(tmp_path).report
    names = {f"image.{n}" for n in reference.image_state()} | {f"text.{n}" for n in reference.text_state()}
    assert {*report.used, *report.ignored} == names
    assert clip.classify(some_images()[:1], ["pneumonia", "edema"], "{}").shape == (1, 2)


@pytest.mark.parametrize(("temporal", "crop"), [(False, 480), (True, 448)])
def test_pixels_are_those_of_hi_ml(temporal: bool, crop: int) -> None:
    config = preprocess_config(temporal)
    expected = pixels_of(some_images(), crop).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack([preprocess(image, config) for image in some_images()]), expected)


def test_other_modes_and_an_image_of_one_value_are_stretched_too() -> None:
    config = preprocess_config(False)
    gray = some_images()[0]
    palette = gray.convert("RGB").quantize(64)
    palette.info["transparency"] = b"\x00\xff"
    for image in (gray.convert("LA"), gray.convert("1"), palette):
        pixels = preprocess(image, config)
        assert pixels.min() < 0.1 and pixels.max() > 0.9
    assert palette.info["transparency"] == b"\x00\xff"  # the caller's image is as it was
    assert preprocess(Image.new("L", (600, 500), 77), config).max() == 0


@pytest.mark.parametrize("change", [{"resize_size": 100}, {"resize_size": 512, "resize_mode": "squash"}])
def test_a_size_before_the_crop_needs_a_crop(change: dict) -> None:
    with pytest.raises(UserError, match=r"PreprocessConfig.resize_size"):
        PreprocessConfig(**change)


@pytest.mark.parametrize("format", ["open_clip", "huggingface"])
def test_it_has_no_form_to_be_written_in(tmp_path: Path, format: Any) -> None:
    write_release(tmp_path / "biovil", False, [1, 1, 1, 1], BERT)
    with pytest.raises(UserError):
        write_model(read_model(tmp_path / "biovil"), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    import torch

    reference = write_release(tmp_path, False, [1, 1, 1, 1], BERT)
    state = reference.image_state()
    image_file = tmp_path / IMAGE_FILES[0]
    torch.save(state | {"classifier.fc_0.weight": torch.zeros(2)}, image_file)
    with pytest.raises(UserError, match=r"unknown tensors: image.classifier.fc_0.weight"):
        read_model(tmp_path)
    torch.save({n: t for n, t in state.items() if n != "projector.model.1.running_var"}, image_file)
    with pytest.raises(UserError, match=r"missing: image.projector.model.1.running_var"):
        read_model(tmp_path)
    torch.save(state, image_file)
    torch.save({"bert.pooler.dense.bias": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="expected the CXR-BERT released with biovil_image"):
        read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no weights here"):
        read_model(tmp_path)
    torch.save(state, tmp_path / IMAGE_FILES[1])
    with pytest.raises(UserError, match="two models"):
        read_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("temporal", "crop"), [(False, 480), (True, 448)])
def test_at_full_size(tmp_path: Path, temporal: bool, crop: int) -> None:
    reference = write_release(tmp_path, temporal, [3, 4, 6, 3], BERT_FULL)
    assert len(reference.image_state()) == (332 if temporal else 328)  # 372 with the 44 of the pooler, of which 2 are here
    print(compare(bc.from_pretrained(tmp_path), reference, crop))
