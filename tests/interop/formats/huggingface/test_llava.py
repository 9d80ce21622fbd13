"""What `convert --format huggingface` writes, as the vision tower of transformers' LLaVA with a small language model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model
from helpers.tiny_siglip import siglip

from biomedclip_jax.cli.main import main
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.models import abstract_model

VISION = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64}
BERT_TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}
CLIP_TEXT = {"context_length": 24, "vocab_size": 200, "width": 64, "heads": 4, "layers": 2}
IMAGE = 11  # the token that LLaVA puts the patches in place of


def written(folder: Path, kind: str) -> tuple[Path, Path]:
    """(A model folder of this kind, the folder of its vision tower after conversion)."""
    if kind == "ViT and BERT":
        open_clip_model(folder / "model", VISION | {"no_ln_pre": True, "norm_kwargs": {"eps": 1e-6}}, BERT_TEXT, bert={})
    elif kind == "CLIP":
        open_clip_model(folder / "model", VISION, CLIP_TEXT)
    else:
        siglip(folder / "model", image_size=64)
    assert main(["convert", str(folder / "model"), str(folder / "out"), "--format", "huggingface"]) == 0
    return folder / "model", folder / "out" / "vision" if kind == "ViT and BERT" else folder / "out"


def vision_tower(folder: Path, kind: str) -> Any:
    from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

    classes = {"ViT and BERT": AutoModel, "CLIP": CLIPVisionModel, "SigLIP": SiglipVisionModel}
    return classes[kind].from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", ["ViT and BERT", "CLIP", "SigLIP"])
def test_llava_sees_what_our_tower_sees(kind: str, tmp_path: Path) -> None:
    load_open_clip()
    import torch
    from transformers import AutoImageProcessor, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    folder, tower_folder = written(tmp_path, kind)
    tower = vision_tower(tower_folder, kind)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(**sizes),
        image_token_index=IMAGE,
        vision_feature_select_strategy="full" if kind == "SigLIP" else "default",  # which has no class token to leave out
        vision_feature_layer=-1,
    )
    llava = LlavaForConditionalGeneration(config).eval()
    missing, unexpected = llava.model.vision_tower.load_state_dict(tower.state_dict(), strict=False)
    assert not unexpected and all("pooler" in name for name in missing)

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]
    pixels = AutoImageProcessor.from_pretrained(tower_folder)(pictures, return_tensors="pt")["pixel_values"]
    patches = (64 // tower.config.patch_size) ** 2
    tokens = torch.tensor([[1, *[IMAGE] * patches, 7, 9]])
    with torch.no_grad():
        features = llava.get_image_features(pixels).pooler_output
        hidden = tower(pixels, output_hidden_states=True).hidden_states[-1]
        seen = hidden if kind == "SigLIP" else hidden[:, 1:]
        assert torch.allclose(torch.stack(list(features)), llava.model.multi_modal_projector(seen), atol=1e-5)
        answers = [llava(input_ids=tokens, pixel_values=each[None]).logits for each in pixels]
    assert answers[0].shape == (1, patches + 3, 50) and torch.isfinite(answers[0]).all()
    assert not torch.allclose(answers[0], answers[1], atol=1e-4), "the picture makes no difference"

    model = read_model(folder)
    graph, _ = abstract_model(model.config)
    ours = nnx.merge(graph, model.params).image(pixels.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        output = tower(pixels)
    theirs = output.last_hidden_state[:, 0] if kind == "ViT and BERT" else output.pooler_output
    assert np.abs(ours - theirs.numpy()).max() <= 1e-4
