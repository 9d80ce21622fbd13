"""How images become pixels, in every format of model folder: kept, or refused in one line, never dropped."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference import load_open_clip, write_vocabulary
from PIL import Image

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, GPTConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats._preprocessor import preprocessor_json, read_preprocessor
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import Format, export_format, write_model
from biomedclip_jax.models import init_params

SIZES = {"width": 32, "depth": 1, "heads": 4, "mlp_width": 64}
VIT = ViTConfig(image_size=32, patch_size=16, **SIZES)
TEXT: dict[str, Any] = {"vocab_size": 300, "context_length": 8, **SIZES}
CLIPS = ViTConfig(image_size=32, patch_size=16, norm_pre=True, patch_bias=False, layer_norm_eps=1e-5, **SIZES)
MODELS = {
    "CLIP": CLIPConfig(image=CLIPS, text=ClipTextConfig(**TEXT), embed_width=16, text_head="linear"),
    "ViT and BERT": CLIPConfig(image=dataclasses.replace(VIT, patch_bias=False), text=BertConfig(**TEXT), embed_width=16),
    "ViT and GPT-2": CLIPConfig(image=VIT, text=GPTConfig(**TEXT, positions=8, pad_id=299), embed_width=16),
}
PLAIN = PreprocessConfig(image_size=32)
CHANGES: dict[str, Any] = {
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bilinear",
    "resize_mode": "squash",
    "fill_color": 7,
    "resize_size": 40,
    "gray": True,
    "stretch": True,
    "square_size": 48,
    "otsu_crop": True,
}
OTHERS = [*CHANGES.items(), ("interpolation", "nearest"), ("resize_mode", "longest"), ("resize_mode", "pad")]
OURS = {"interpolation nearest", "resize_mode pad", "resize_size", "gray", "stretch", "square_size", "otsu_crop"}
LEFT = {"resize_mode longest", "resize_mode pad", "fill_color", "gray", "stretch", "square_size", "otsu_crop"}
REFUSED = {  # {(model, format): what it has no place for}; what is in neither set is kept
    ("CLIP", "open_clip"): OURS,
    ("CLIP", "huggingface"): LEFT,
    ("ViT and BERT", "open_clip"): OURS,
    ("ViT and BERT", "huggingface"): set(),
    ("ViT and GPT-2", "huggingface"): set(),
}


def changed(field: str, value: Any) -> PreprocessConfig:
    changes = {field: value} | ({"resize_mode": "longest"} if field == "fill_color" else {})
    return dataclasses.replace(PLAIN, **changes)


def called(field: str, value: Any) -> str:
    return f"{field} {value}" if value in ("nearest", "longest", "pad") else field


@functools.cache
def params(name: str) -> dict[str, Any]:
    return init_params(MODELS[name], 0)


@pytest.mark.parametrize(("name", "format"), REFUSED, ids=lambda x: x)
def test_each_field_is_kept_or_refused(tmp_path: Path, name: str, format: Format) -> None:
    write_vocabulary(tmp_path)
    assert {field.name for field in dataclasses.fields(PreprocessConfig)} == {*CHANGES, "image_size"}
    refused = set()
    for i, (field, value) in enumerate(OTHERS):
        config = changed(field, value)
        folder = tmp_path / str(i)
        try:
            write_model(Model(MODELS[name], config, params(name), tmp_path), folder, format)
        except UserError as error:
            assert "this preprocessing has no" in str(error) and "\n" not in str(error)
            assert not folder.exists()
            refused.add(called(field, value))
            continue
        assert read_model(folder).preprocess == config, (field, value)
        file = next((f for f in (folder / "vision", folder) if (f / "preprocessor_config.json").is_file()), None)
        if file is not None and format == "huggingface":  # for those who read nothing else
            said = read_preprocessor(file, 32)
            assert dataclasses.replace(said, fill_color=config.fill_color) == config, (field, value)
        else:
            assert format != "huggingface" or called(field, value) in LEFT
    assert refused == REFUSED[name, format]


def test_a_run_knows_its_format_before_it_begins() -> None:
    gray = dataclasses.replace(PLAIN, gray=True)
    assert [export_format(MODELS["ViT and BERT"], p) for p in (None, PLAIN, gray)] == ["open_clip", "open_clip", "huggingface"]
    with pytest.raises(UserError, match="this preprocessing has no open_clip form"):
        export_format(MODELS["CLIP"], gray)


@pytest.mark.parametrize(
    "config",
    [PLAIN, changed("resize_size", 40), changed("resize_mode", "squash"), changed("interpolation", "bilinear")],
    ids=["shortest", "resize_size", "squash", "bilinear"],
)
def test_transformers_makes_the_same_pixels(tmp_path: Path, config: PreprocessConfig) -> None:
    load_open_clip()  # for a torchvision that transformers can import
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_json(config)))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    found = CLIPImageProcessorPil.from_pretrained(tmp_path)(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    expected = preprocess(image, config)
    assert np.abs(found - expected).max() <= 1 / 255 / min(config.std)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "do_normalize = False is not supported"),
        ({"resample": 1}, "resample = 1 is not supported; supported: 0, 2, 3"),
        ({"crop_size": {"height": 24, "width": 24}}, "crop_size = {'height': 24"),
        ({"do_center_crop": False}, "do_center_crop = False"),
        ({"size": {"height": 32, "width": 40}}, "size = {'height': 32"),
        ({"size": {"shortest_edge": 24}}, "resize_size = 24: expected at least image_size = 32"),
    ],
)
def test_what_a_file_asks_for_and_we_do_not_do(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    assert read_preprocessor(tmp_path, 32) == PLAIN, "no file: transformers' defaults"
    path.write_text(json.dumps({"size": 32, "crop_size": 32, "do_center_crop": True}))
    assert read_preprocessor(tmp_path, 32) == PLAIN, "as transformers 4.1 wrote it"
    path.write_text(json.dumps(preprocessor_json(PLAIN) | changes))
    with pytest.raises(UserError) as caught:
        read_preprocessor(tmp_path, 32)
    assert message in str(caught.value) and "\n" not in str(caught.value)
