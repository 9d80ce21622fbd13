"""PMC-CLIP in both released forms against its public code, rebuilt of open_clip's ModifiedResNet and transformers' BERT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers.reference import BERT_SMALL, load_open_clip, randomise, randomise_batch_norm, write_vocabulary

import biomedclip_jax as bc
from biomedclip_jax.config import BertConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model

SMALL = {"layers": [1, 2, 1, 2], "width": 16, "image_size": 64}
FULL = {"layers": [3, 4, 6, 3], "width": 64, "image_size": 224}
LENGTH = 77


def reference_model(folder: Path, vision: dict[str, Any], bert: dict[str, Any], embed_dim: int) -> Any:
    """WeixiongLin/PMC-CLIP `src/pmc_clip/model/pmc_clip.py: PMC_CLIP` with random weights; BERT's config.json in `folder`."""
    load_open_clip()
    import torch
    from open_clip.modified_resnet import ModifiedResNet
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(**bert)
    config.save_pretrained(folder)
    width = config.hidden_size
    model = torch.nn.Module()
    layers, stem = vision["layers"], vision["width"]
    model.visual = ModifiedResNet(layers, embed_dim, stem * 32 // 64, vision["image_size"], stem)
    model.text_encoder = BertModel(config)
    model.positional_embedding = torch.nn.Parameter(torch.zeros(LENGTH, width))
    model.ln_final = torch.nn.LayerNorm(width)
    model.text_projection = torch.nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
    model.mlm_projection = torch.nn.Parameter(torch.zeros(width, 20))
    model.logit_scale = torch.nn.Parameter(torch.tensor(4.3))
    model.img_special_token = torch.nn.Parameter(torch.zeros(1, 1, embed_dim))
    model.fusion_module = torch.nn.ModuleDict({"resblocks": torch.nn.ModuleList([torch.nn.Linear(4, 4)])})
    randomise(model)
    randomise_batch_norm(model)
    return model.eval()


def save_checkpoint(model: Any, path: Path) -> None:
    import torch

    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"epoch": 60, "name": "RN50_fusion4", "state_dict": state, "scaler": {"scale": np.float64(2)}}, path)


def save_three_files(model: Any, folder: Path) -> None:
    import torch

    torch.save(model.visual.state_dict(), folder / "image_encoder(resnet50).pth")
    torch.save(model.text_encoder.state_dict(), folder / "text_encoder.pth")
    torch.save(model.text_projection, folder / "text_projection_layer.pth")


def expected(model: Any, images: np.ndarray, tokens: np.ndarray, *, notebook: bool) -> tuple[np.ndarray, np.ndarray]:
    """The training code's embeddings, or those of the notebook and of BiomedCoOp: other heads, another token feature."""
    import torch
    from torch.nn.functional import normalize

    heads = model.visual.attnpool.num_heads
    model.visual.attnpool.num_heads = 8 if notebook else heads
    with torch.no_grad():
        image = model.visual(torch.from_numpy(images).permute(0, 3, 1, 2))
        output = model.text_encoder(input_ids=torch.from_numpy(tokens))  # no mask: padding counts
        text = (output.pooler_output if notebook else output.last_hidden_state[:, 0]) @ model.text_projection
    model.visual.attnpool.num_heads = heads
    return normalize(image, dim=-1).numpy(), normalize(text, dim=-1).numpy()


def compare(path: Path, reference: Any, size: int, vocabulary: int, *, notebook: bool) -> float:
    model = read_model(path)
    clip = nnx.merge(abstract_model(model.config)[0], model.params)
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(2, size, size, 3)) + 2 * rng.normal(size=(2, 1, 1, 3))).astype(np.float32)
    tokens = rng.integers(5, vocabulary, (2, LENGTH))
    tokens[:, 0] = 2
    tokens[1, 9:] = 0
    image, text = expected(reference, images, tokens, notebook=notebook)
    difference = max(np.abs(clip.encode_image(images) - image).max(), np.abs(clip.encode_text(tokens) - text).max())
    assert difference <= 1e-5
    assert np.abs(image[0] - image[1]).max() > 1e-3 and np.abs(text[0] - text[1]).max() > 1e-3
    return float(difference)


@pytest.fixture
def reference(tmp_path: Path) -> Any:
    write_vocabulary(tmp_path)
    return reference_model(tmp_path, SMALL, BERT_SMALL | {"max_position_embeddings": 128}, 32)


def test_the_whole_checkpoint(reference: Any, tmp_path: Path) -> None:
    save_checkpoint(reference, tmp_path / "checkpoint.pt")
    compare(tmp_path / "checkpoint.pt", reference, 64, 199, notebook=False)
    model = read_model(tmp_path)
    assert float(model.params["logit_scale"]) == reference.logit_scale.item()
    assert sorted([*model.report.used, *model.report.ignored]) == sorted(
        [*reference.state_dict(), "text_encoder.embeddings.position_ids"]
    )
    left_out = {name.split(".")[0] for name in model.report.ignored} - {"visual", "text_encoder"}
    assert left_out == {"positional_embedding", "ln_final", "mlm_projection", "img_special_token", "fusion_module"}


@pytest.mark.parametrize("image_file", ["image_encoder(resnet50).pth", "image_encoder_resnet50.pth"])
def test_three_files(reference: Any, image_file: str, tmp_path: Path) -> None:
    save_three_files(reference, tmp_path)
    (tmp_path / "image_encoder(resnet50).pth").rename(tmp_path / image_file)
    compare(tmp_path, reference, 64, 199, notebook=True)
    compare(tmp_path / image_file, reference, 64, 199, notebook=True)
    model = read_model(tmp_path)
    assert isinstance(model.config.image, ResNetConfig) and model.config.image.heads == 8
    assert abs(bc.from_pretrained(tmp_path).logit_scale - np.exp(4.4292)) < 1e-3
    (tmp_path / "text_projection_layer.pth").unlink()
    with pytest.raises(UserError, match=r"no text_projection_layer\.pth; expected it beside image_encoder"):
        read_model(tmp_path)


@pytest.mark.parametrize("notebook", [False, True])
def test_sentences_are_always_padded(reference: Any, notebook: bool, tmp_path: Path) -> None:
    """Padding counts in this model, so a batch of short sentences must not be cut to its longest."""
    save_three_files(reference, tmp_path) if notebook else save_checkpoint(reference, tmp_path / "checkpoint.pt")
    clip = bc.from_pretrained(tmp_path)
    texts = ["chest ray", "brain tumor of the lung " * 30]
    tokens = clip.processor.tokens(texts)
    assert tokens.shape == (2, LENGTH) and (tokens[0] == 0).sum() > 60
    _, text = expected(reference, np.zeros((1, 64, 64, 3), np.float32), tokens.astype(np.int64), notebook=notebook)
    assert np.abs(clip.encode_texts(texts) - text).max() <= 1e-5
    assert np.abs(clip.encode_texts(texts[:1]) - text[:1]).max() <= 1e-5


def test_the_tower_adds_the_padding_that_is_missing(reference: Any, tmp_path: Path) -> None:
    """Tokens cut to the longest of a batch, and learned prompts, are seen with all their padding."""
    save_checkpoint(reference, tmp_path / "checkpoint.pt")
    model = read_model(tmp_path)
    clip = nnx.merge(abstract_model(model.config)[0], model.params)
    tokens = np.zeros((2, LENGTH), np.int32)
    tokens[:, :9] = np.random.default_rng(0).integers(5, 199, (2, 9))
    whole, cut = clip.encode_text(tokens), clip.encode_text(tokens[:, :12])
    words = clip.encode_words(model.params["text"]["word"][tokens[:, :12]], tokens[:, :12])
    assert np.abs(whole - cut).max() <= 1e-6 and np.abs(whole - words).max() <= 1e-6


def test_other_formats_have_no_place_for_it(reference: Any, tmp_path: Path) -> None:
    save_checkpoint(reference, tmp_path / "checkpoint.pt")
    model = read_model(tmp_path)
    for format in ("open_clip", "huggingface"):
        with pytest.raises(UserError, match="this text tower has no open_clip form: it looks at padding"):
            write_model(model, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_too_much_is_named(reference: Any, tmp_path: Path) -> None:
    import torch

    reference.adapter = torch.nn.Linear(2, 2)
    save_checkpoint(reference, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"2 unknown tensors: adapter\.bias, adapter\.weight"):
        read_model(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.pt: no tokenizer beside it; fetch vocab\.txt from https"):
        read_model(tmp_path)


@pytest.mark.slow
def test_at_full_size(tmp_path: Path, vocabulary: Path) -> None:
    reference = reference_model(tmp_path, FULL, {}, 768)
    (tmp_path / "config.json").unlink()
    (tmp_path / "vocab.txt").symlink_to(vocabulary / "vocab.txt")
    save_checkpoint(reference, tmp_path / "checkpoint.pt")
    print(f"PMC-CLIP, checkpoint.pt: {compare(tmp_path / 'checkpoint.pt', reference, 224, 30_000, notebook=False):.2e}")
    text = read_model(tmp_path / "checkpoint.pt").config.text
    assert isinstance(text, BertConfig) and text.heads == 12 and text.context_length == LENGTH
    (tmp_path / "checkpoint.pt").unlink()
    save_three_files(reference, tmp_path)
    print(f"PMC-CLIP, three files: {compare(tmp_path, reference, 224, 30_000, notebook=True):.2e}")
