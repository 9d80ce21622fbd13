"""Models at their exact sizes with random weights: BiomedCLIP all the way from files to probabilities, and MedSigLIP."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers.reference import PREPROCESS, load_open_clip, randomise
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.pretrained import load

# The released config, letter by letter, but for the folder that stands for the hub's name of BERT.
MODEL = {
    "embed_dim": 512,
    "vision_cfg": {
        "timm_model_name": "vit_base_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {
        "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
    },
}


@pytest.mark.slow
def test_biomedclip_at_its_exact_size(tmp_path: Path, vocabulary: Path) -> None:
    open_clip = load_open_clip()
    import torch

    folder = tmp_path / "biomedclip"
    folder.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copyfile(vocabulary / name, folder / name)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}))
    text_cfg = MODEL["text_cfg"] | {"hf_model_name": str(vocabulary), "hf_model_pretrained": False}
    reference = open_clip.CustomTextCLIP(**(MODEL | {"text_cfg": text_cfg}))
    randomise(reference)
    reference.eval()
    with torch.no_grad():
        reference.logit_scale.fill_(4.4454)  # the released value
    state = reference.state_dict()
    assert len(state) == 351
    torch.save(state, folder / "open_clip_pytorch_model.bin")

    clip = bc.from_pretrained(folder)
    assert sum(x.size for x in jax.tree.leaves(clip.params)) == 195_902_721
    assert abs(clip.logit_scale - 85.2323) < 0.01
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((300, 411), (224, 224))]
    texts = ["this is a photo of brain MRI", "lymph node metastasis " * 200]
    tokens = open_clip.tokenizer.HFTokenizer(str(vocabulary), context_length=256)(texts)
    assert np.array_equal(clip.processor.tokens(texts), tokens.numpy())
    transform = open_clip.image_transform(224, is_train=False, mean=PREPROCESS["mean"], std=PREPROCESS["std"])
    pixels = torch.stack([transform(image) for image in images])
    assert np.abs(clip.processor.images(images) - pixels.permute(0, 2, 3, 1).numpy()).max() == 0
    with torch.no_grad():
        image, text, scale = reference(pixels, tokens)
        expected = (scale * image @ text.T).softmax(dim=-1).numpy()
    ours_image, ours_text = clip.encode_images(images), clip.encode_texts(texts)
    assert np.abs(ours_image - image.numpy()).max() <= 1e-5
    assert np.abs(ours_text - text.numpy()).max() <= 1e-5
    logits = clip.logit_scale * ours_image @ ours_text.T
    assert np.abs(logits - (scale * image @ text.T).numpy()).max() <= 1e-3
    probabilities = clip.classify(images, texts, "{}")
    assert np.abs(probabilities - expected).max() <= 1e-4

    write_model(load(folder), tmp_path / "out")
    after = read_weights(tmp_path / "out" / "open_clip_model.safetensors")
    assert after.keys() == state.keys()
    for name, tensor in state.items():
        assert np.array_equal(after[name], tensor.numpy()), name


@pytest.mark.slow
def test_medsiglip_at_its_exact_size(tmp_path: Path) -> None:
    """google/medsiglip-448's config, 878,300,338 parameters: embeddings, and every tensor on its way back."""
    load_open_clip()
    import torch
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    config = SiglipConfig(
        text_config=tower | {"vocab_size": 32_000, "max_position_embeddings": 64},
        vision_config=tower | {"image_size": 448, "patch_size": 14},
    )
    torch.manual_seed(0)
    reference = SiglipModel(config).eval()
    with torch.no_grad():
        reference.logit_scale.fill_(4.765)
        reference.logit_bias.fill_(-16.5)
    folder = tmp_path / "medsiglip"
    reference.save_pretrained(folder)
    size = {"height": 448, "width": 448}
    processor = {"image_processor_type": "SiglipImageProcessor", "size": size, "resample": 2, "image_mean": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"image_std": [0.5] * 3}))
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(1, 448, 448, 3)).astype(np.float32)
    tokens = rng.integers(2, 32_000, (2, 64))
    tokens[1, 6:] = 1
    with torch.no_grad():
        image = reference.get_image_features(torch.from_numpy(pixels).permute(0, 3, 1, 2)).pooler_output
        text = reference.get_text_features(torch.from_numpy(tokens)).pooler_output
    image, text = (torch.nn.functional.normalize(x, dim=-1).numpy() for x in (image, text))
    assert sum(x.numel() for x in reference.parameters()) == 878_300_338
    del reference  # each side has 3.5 GB of weights

    model = load(folder)
    assert sum(x.size for x in jax.tree.leaves(model.params)) == 878_300_338
    graph, _ = abstract_model(model.config)

    def encode(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        clip = nnx.merge(graph, params)
        return clip.encode_image(pixels), clip.encode_text(tokens)

    ours = jax.jit(encode)(model.params)
    assert np.abs(ours[0] - image).max() <= 1e-5
    assert np.abs(ours[1] - text).max() <= 1e-5
    write_model(model, tmp_path / "out", "huggingface")
    before, after = (read_weights(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name in before:
        assert before.shape(name) == after.shape(name) and np.array_equal(before[name], after[name]), name
