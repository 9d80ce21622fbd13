"""A checkpoint of mmlearn with BiomedCLIP's towers, against open_clip's model whose weights it holds."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.reference import open_clip_model

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import detect, read_model

TINY = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}


class Partial:
    """Stands for what Lightning saves of a module's arguments: objects of classes that need not be there."""


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    """Its tensors; BERT's config.json and vocabulary are in tmp_path / "theirs"."""
    reference = open_clip_model(tmp_path / "theirs", TINY, TEXT, bert={})
    names = {"visual.": "encoders.rgb.model.", "text.": "encoders.text.model."}
    state = {}
    for name, tensor in reference.state_dict().items():
        head = next((part for part in names if name.startswith(part)), None)
        own = "postprocessors.norm_and_logit_scale.logit_scale.log_logit_scale"
        state[own if head is None else names[head] + name.removeprefix(head)] = tensor
    return state


def save(state: dict[str, Any], path: Path) -> Path:
    import torch

    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"optimizer": Partial()}}, path)
    return path


def test_towers_and_temperature(tmp_path: Path, state: dict[str, Any]) -> None:
    path = save(state, tmp_path / "theirs" / "OPEN_PMC_CLIP.ckpt")
    expected = read_model(tmp_path / "theirs")
    assert detect(path).kind == "mmlearn"
    found = read_model(path)
    assert found.config.image == expected.config.image and found.config.embed_width == 32
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, expected.params))
    assert sorted(found.report.used) == sorted(state)


def test_other_encoders_of_mmlearn_are_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    other = {name.replace(".model.trunk.", ".backbone."): tensor for name, tensor in state.items()}
    path = save(other, tmp_path / "theirs" / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: a checkpoint of mmlearn, but not of BiomedCLIP's two towers .* holds"):
        read_model(path)
