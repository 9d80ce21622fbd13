"""UniMed-CLIP's released file against its own composition: open_clip's CLIP ViT and HFTextEncoder, quick GELU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.reference import BERT_SMALL, load_open_clip, randomise, write_vocabulary

import biomedclip_jax as bc
from biomedclip_jax.config import BertConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model

VISION = {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16}


def reference_model(folder: Path, vision: dict[str, Any], bert: dict[str, Any], embed_dim: int) -> Any:
    """mbzuai-oryx/UniMed-CLIP `src/open_clip/model.py: CLIP` with random weights; BERT's config.json in `folder`."""
    load_open_clip()
    import torch
    from open_clip.hf_model import HFTextEncoder
    from open_clip.model import CLIPVisionCfg, _build_vision_tower
    from transformers import BertConfig

    torch.manual_seed(0)
    BertConfig(**bert).save_pretrained(folder)
    model = torch.nn.Module()
    model.visual = _build_vision_tower(embed_dim, CLIPVisionCfg(**vision), quick_gelu=True)
    model.text_encoder = HFTextEncoder(
        str(folder), embed_dim, proj_type="mlp", pooler_type="cls_last_hidden_state_pooler", pretrained=False
    )
    model.logit_scale = torch.nn.Parameter(torch.tensor(4.2))
    randomise(model)
    return model.eval()


def save(model: Any, path: Path) -> None:
    """As its training saves: names behind "module.", NumPy numbers and the optimizer beside the state dict."""
    import torch

    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    rest = {"epoch": 10, "name": "unimed", "best": np.float64(61.63), "optimizer": {"state": {0: {"step": 5}}}}
    torch.save(rest | {"state_dict": state}, path)


def compare(path: Path, reference: Any, size: int, length: int, vocabulary: int) -> float:
    import torch

    model = read_model(path)
    assert model.config.text.context_length == 256
    clip = nnx.merge(abstract_model(model.config)[0], model.params)
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(2, size, size, 3)) + 2 * rng.normal(size=(2, 1, 1, 3))).astype(np.float32)
    tokens = rng.integers(5, vocabulary, (2, length))
    tokens[:, 0] = 2
    tokens[1, 9:] = 0
    with torch.no_grad():
        image = torch.nn.functional.normalize(reference.visual(torch.from_numpy(images).permute(0, 3, 1, 2)), dim=-1).numpy()
        text = torch.nn.functional.normalize(reference.text_encoder(torch.from_numpy(tokens)), dim=-1).numpy()
    difference = max(np.abs(clip.encode_image(images) - image).max(), np.abs(clip.encode_text(tokens) - text).max())
    assert difference <= 1e-5
    assert np.abs(image[0] - image[1]).max() > 1e-3 and np.abs(text[0] - text[1]).max() > 1e-3
    assert float(model.params["logit_scale"]) == reference.logit_scale.item()
    return float(difference)


def test_the_released_file(tmp_path: Path) -> None:
    reference = reference_model(tmp_path, VISION, BERT_SMALL, 32)
    save(reference, tmp_path / "unimed-clip-vit-b16.pt")
    with pytest.raises(UserError, match=r"unimed-clip-vit-b16\.pt: no tokenizer beside it; fetch vocab\.txt from https"):
        read_model(tmp_path / "unimed-clip-vit-b16.pt")
    write_vocabulary(tmp_path)
    compare(tmp_path / "unimed-clip-vit-b16.pt", reference, 64, 40, 199)
    clip = bc.from_pretrained(tmp_path)
    assert clip.classify([np.zeros((40, 50, 3), np.uint8)], ["chest ray", "brain"]).shape == (1, 2)
    report = read_model(tmp_path).report
    assert sorted([*report.used, *report.ignored]) == sorted(reference.state_dict())


def test_it_becomes_an_open_clip_folder(tmp_path: Path) -> None:
    open_clip = load_open_clip()
    import torch

    (tmp_path / "in").mkdir()
    reference = reference_model(tmp_path / "in", VISION, BERT_SMALL, 32)
    save(reference, tmp_path / "in" / "unimed-clip-vit-b16.pt")
    write_vocabulary(tmp_path / "in")
    model = read_model(tmp_path / "in")
    assert model.text_model == "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    # a stand-in for the hub, which these tests do not reach
    object.__setattr__(model, "text_model", str(tmp_path / "in"))
    write_model(model, tmp_path / "out", "open_clip-bin")
    assert read_model(tmp_path / "out").config == model.config
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'out'}", pretrained_text=False).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.encode_image(images), reference.visual(images))


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    reference = reference_model(tmp_path, VISION, BERT_SMALL, 32)
    import torch

    reference.adapter = torch.nn.Linear(2, 2)
    save(reference, tmp_path / "unimed-clip-vit-b16.pt")
    write_vocabulary(tmp_path)
    with pytest.raises(UserError, match=r"2 unknown tensors: adapter\.bias, adapter\.weight"):
        read_model(tmp_path)


@pytest.mark.slow
def test_at_full_size(tmp_path: Path, vocabulary: Path) -> None:
    """ViT-B/16; BERT's config.json is left on the hub, as in the release."""
    reference = reference_model(tmp_path, {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}, {}, 512)
    (tmp_path / "config.json").unlink()
    save(reference, tmp_path / "unimed-clip-vit-b16.pt")
    (tmp_path / "vocab.txt").symlink_to(vocabulary / "vocab.txt")
    print(f"UniMed-CLIP: {compare(tmp_path, reference, 224, 256, 30_000):.2e}")
    model = read_model(tmp_path)
    assert isinstance(model.config.text, BertConfig) and model.config.text.heads == 12
    total = sum(x.size for x in flatten_dict(model.params, sep="/").values())
    assert total == sum(p.numel() for p in reference.parameters())
