"""Every config that the installed open_clip ships: which load here, which are refused, and whether all tensors have a place.

Models are built without numbers. `pytest -s` prints the table that docs/use.md tells of.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.reference import load_open_clip

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.open_clip import mapping
from biomedclip_jax.interop.formats.open_clip.config import read_config
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.models import abstract_model

# text models that are on the hub, not in open_clip: without their sizes nothing can be built
_OF_THE_HUB = ("roberta", "mt5", "nllb")
_OTHER_VITS = {  # image towers that are no plain vision transformer, by what timm calls them
    "eva": "EVA: rotary positions, SwiGLU and norms of its own",
    "vit_base_mci": "a stem of convolutions",
    "fastvit": "convolutions",
    "vit_pe_core": "rotary positions",
    "vitamin": "convolutions before the blocks",
    "convnext": "convolutions",
    "swin": "windows",
    "vit_medium_patch16_gap": "no bias on queries, keys and values",
    "vit_relpos": "relative positions",
}


class Shapes(TensorFile):
    """Names and shapes of a model without numbers."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self._shapes = shapes

    def __getitem__(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.float32(0), self._shapes[name])

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Any:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def built(content: dict[str, Any]) -> Any:
    """open_clip's model on torch's device without memory."""
    open_clip = load_open_clip()
    import torch

    custom = content.get("custom_text", False)
    content = {field: value for field, value in content.items() if field != "custom_text"}
    with torch.device("meta"):
        return (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**content)


def configs() -> dict[str, Path]:
    folder = Path(load_open_clip().__file__).parent / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def our_shapes(config: CLIPConfig, names: Shapes, *, timm: bool, prefix: str) -> dict[str, tuple[int, ...]]:
    """The tensors that we would write, or read: their names and shapes."""
    leaves = flatten_dict(abstract_model(config)[1], sep="/")
    params = unflatten_dict({path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in leaves.items()}, sep="/")
    table = mapping.entries(config, timm=timm, text_prefix=prefix)
    if mapping.OWN_HEAD in names:
        table = mapping.with_own_head(table)
    return {name: tensor.shape for name, tensor in from_params(params, table).items()}


def activation_of(model: Any) -> str:
    """What the MLPs of open_clip's image tower really compute."""
    visual = model.visual
    mlp = visual.trunk.blocks[0].mlp.act if hasattr(visual, "trunk") else visual.transformer.resblocks[0].mlp.gelu
    kind = type(mlp).__name__
    return {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(kind, "gelu_tanh" if "tanh" in repr(mlp) else "gelu")


def outcome(name: str, tmp_path: Path) -> str:
    """How a config fares: "loads" and what it is, or the line that refuses it. AssertionError if it loads wrongly."""
    content = json.loads(configs()[name].read_text())
    text, vision = content["text_cfg"], content["vision_cfg"]
    hub = any(kind in str(text.get("hf_model_name")) for kind in _OF_THE_HUB)
    shapes = Shapes({})
    model = None
    if not hub and "multimodal_cfg" not in content:
        model = built(content)
        shapes = Shapes({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    try:
        config, preprocess = read_config({"model_cfg": content}, shapes, tmp_path)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error).replace(str(tmp_path), "FOLDER")
    assert model is not None and preprocess.image_size == config.image.image_size
    prefix = "text." if content.get("custom_text") else ""
    ours = our_shapes(config, shapes, timm=bool(vision.get("timm_model_name")), prefix=prefix)
    theirs = {key: shapes.shape(key) for key in shapes if not key.endswith(("attn_mask", "num_batches_tracked"))}
    assert ours == theirs
    if isinstance(config.image, ViTConfig):
        assert config.image.activation == activation_of(model)
    kinds: dict[type, str] = {BertConfig: "BERT", ClipTextConfig: "text transformer", ViTConfig: "ViT", ResNetConfig: "ResNet"}
    return f"loads: {kinds[type(config.image)]} and {kinds[type(config.text)]}"


@pytest.mark.slow
def test_every_config_of_open_clip_loads_or_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = {name: outcome(name, tmp_path) for name in configs()}
    loaded = [name for name, result in table.items() if result.startswith("loads")]
    with capsys.disabled():
        for name, result in table.items():
            print(f"{name:36} {result[:110]}")
        print(f"{len(loaded)} of {len(table)} load")
    for name, result in table.items():
        content = json.loads(configs()[name].read_text())
        timm = str(content["vision_cfg"].get("timm_model_name") or "")
        other = any(timm.startswith(kind) for kind in _OTHER_VITS)
        other |= "multimodal_cfg" in content or any(
            kind in str(content["text_cfg"].get("hf_model_name")) for kind in _OF_THE_HUB
        )
        assert (name in loaded) != other, f"{name}: {result}"
