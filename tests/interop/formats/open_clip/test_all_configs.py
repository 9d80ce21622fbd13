"""Every config that open_clip ships: which load here, which are refused, and whether all tensors have a place.

Of the open_clip that is imported: `PYTHONPATH=.../open_clip/src pytest -s` walks another version's. Towers are built
without numbers, and once for all configs that have them. `pytest -s` prints the table that docs/use.md tells of.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers.reference import load_open_clip

from biomedclip_jax.config import BertConfig, CLIPConfig, ClipTextConfig, ComputeConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.baselines.resnet.tower import ResNetConfig
from biomedclip_jax.interop.formats.open_clip import mapping
from biomedclip_jax.interop.formats.open_clip.config import read_config
from biomedclip_jax.interop.tensor_files import TensorFile
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models._clip_text import ClipText
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.models.clip import image_head, text_head
from biomedclip_jax.models.vit import ViT

Sizes = dict[str, tuple[int, ...]]

# sizes of text models that are on the hub, not in open_clip
_ROBERTA = {"model_type": "roberta", "vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_HUB = {
    "roberta-base": _ROBERTA,
    "xlm-roberta-base": _ROBERTA | {"model_type": "xlm-roberta", "vocab_size": 250_002},
    "xlm-roberta-large": _ROBERTA | {"model_type": "xlm-roberta", "vocab_size": 250_002} | _LARGE,
}
_OTHER_MODELS = {  # no image and text tower, by what their configs have
    "multimodal_cfg": "CoCa",
    "audio_cfg": "CLAP",
    "genlip_cfg": "GenLIP",
    "genlap_cfg": "GenLAP",
}
_OTHER_VITS = {  # image towers that are no plain vision transformer, by what timm calls them, and what is said of them
    "eva02": "EVA-02: rotary",
    "eva": "no bias on the keys",
    "vit_base_mci": "a stem of convolutions",
    "fastvit": "convolutions",
    "vit_pe_core": "rotary positions",
    "vitamin": "convolutions before attention",
    "convnext": "convolutions",
    "swin": "windows",
    "vit_medium_patch16_gap": "no bias on queries, keys and values",
    "vit_relpos": "relative positions",
    "naflexvit": "NaFlexViT",
}
_OTHER_TEXTS = {"mt5": "mT5", "nllb": "NLLB", "modernbert": "ModernBERT"}


class Shapes(TensorFile):
    """Names and shapes of a model without numbers."""

    def __init__(self, shapes: Sizes):
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


def other_feature(content: dict[str, Any]) -> str | None:
    """What the error has to name: None for a model that has to load."""
    for field, kind in _OTHER_MODELS.items():
        if field in content:
            return kind
    timm = str(content["vision_cfg"].get("timm_model_name") or "")
    text = content["text_cfg"]
    hub = str(text.get("hf_model_name") or "")
    found = [feature for start, feature in _OTHER_VITS.items() if timm.startswith(start)]
    found += [feature for part, feature in _OTHER_TEXTS.items() if part in hub]
    found += ["text_arch = 'modern'"] if text.get("text_arch") == "modern" else []
    return found[0] if found else None


# how numbers begin, which takes most of the time where there are none
_INITIALISERS = ("normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")


@functools.cache
def tower(kind: str, embed_width: int, cfg: str, quick: bool) -> Any:
    """open_clip's tower of a JSON config, on torch's device without memory; kind: "vision" or "text"."""
    import torch

    library = load_open_clip().model
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        for name in _INITIALISERS:
            patch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)
        return {"vision": library._build_vision_tower, "text": library._build_text_tower}[kind](
            embed_width, json.loads(cfg), quick
        )


@functools.cache
def tensors(kind: str, embed_width: int, cfg: str) -> Sizes:
    """Those of a tower: which activation it has makes no difference."""
    # a causal mask is a constant, and BatchNorm's counters are no numbers of the model
    named = tower(kind, embed_width, cfg, False).state_dict().items()
    return {name: tuple(tensor.shape) for name, tensor in named if not name.endswith(("attn_mask", "num_batches_tracked"))}


def tensors_of_model(content: dict[str, Any], tmp_path: Path) -> Sizes:
    """Names and shapes in open_clip's file of a model: CLIP has its text tower's without a beginning of their own."""
    width, custom, text = content["embed_dim"], content.get("custom_text", False), content["text_cfg"]
    if hub := text.get("hf_model_name"):
        from transformers import AutoConfig

        folder = tmp_path / hub
        AutoConfig.for_model(**_HUB[hub]).save_pretrained(folder)
        text, custom = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}, True
    found = {f"visual.{name}": shape for name, shape in tensors("vision", width, json.dumps(content["vision_cfg"])).items()}
    prefix = "text." if custom else ""
    found |= {f"{prefix}{name}": shape for name, shape in tensors("text", width, json.dumps(text)).items()}
    numbers = ("logit_scale", "logit_bias") if content.get("init_logit_bias") is not None else ("logit_scale",)
    return found | dict.fromkeys(numbers, ())


@functools.cache
def our_tower(config: Any) -> dict[str, Any]:
    kinds: dict[type, Any] = {ViTConfig: ViT, BertConfig: Bert, ClipTextConfig: ClipText}
    make = kinds.get(type(config), lambda config, *given: config.build(*given))
    return shapes_of(lambda rngs: make(config, ComputeConfig(), rngs))


def shapes_of(make: Any) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0)))))


def our_shapes(config: CLIPConfig) -> dict[str, Any]:
    """Those of `abstract_model`, each tower traced once for all configs that have it."""
    same = {"activation": "gelu", "layer_norm_eps": 1e-5, "causal": True, "pad_id": 0, "eos_id": 2}  # shapes no parameter
    numbers = ("logit_scale",) if config.init_logit_bias is None else ("logit_scale", "logit_bias")
    found: dict[str, Any] = dict.fromkeys(numbers, np.float32(0))
    for name, head in (("image", image_head), ("text", text_head)):
        sizes = getattr(config, name)
        free = same if isinstance(sizes, ViTConfig | ClipTextConfig) else {}
        free = {field: value for field, value in free.items() if hasattr(sizes, field)}
        found[name] = our_tower(dataclasses.replace(sizes, **free))
        found[f"{name}_head"] = shapes_of(lambda rngs, head=head: head(config, ComputeConfig(), rngs))
    return {name: jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), part) for name, part in found.items()}


def our_tensors(config: CLIPConfig, names: Sizes, *, timm: bool) -> Sizes:
    """The tensors that we would write, or read: their names and shapes."""
    prefix = "text." if any(name.startswith("text.") for name in names) else ""
    table = mapping.entries(config, timm=timm, text_prefix=prefix)
    if mapping.OWN_HEAD in names:
        table = mapping.with_own_head(table)
    return {name: tensor.shape for name, tensor in from_params(our_shapes(config), table).items()}


def activation_of(content: dict[str, Any]) -> str:
    """What the MLPs of open_clip's image tower really compute; one block of CLIP's own tells it."""
    cfg = content["vision_cfg"]
    one = cfg if cfg.get("timm_model_name") else cfg | {"layers": 1}
    quick = content.get("quick_gelu", False) and one is not cfg
    visual = tower("vision", content["embed_dim"], json.dumps(one), quick)
    mlp = visual.trunk.blocks[0].mlp.act if hasattr(visual, "trunk") else visual.transformer.resblocks[0].mlp.gelu
    kind = type(mlp).__name__
    return {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(kind, "gelu_tanh" if "tanh" in repr(mlp) else "gelu")


def outcome(content: dict[str, Any], tmp_path: Path) -> str:
    """How a config fares: "loads" and what it is, or the line that refuses it. AssertionError if it loads wrongly."""
    try:
        sizes = {} if other_feature(content) else tensors_of_model(content, tmp_path)
        config, preprocess = read_config({"model_cfg": content}, Shapes(sizes), tmp_path)
    except UserError as error:
        assert str(error).startswith(f"{tmp_path}/open_clip_config.json: ") and "\n" not in str(error)
        return str(error).replace(str(tmp_path), "FOLDER")
    assert preprocess.image_size == config.image.image_size
    assert our_tensors(config, sizes, timm=bool(content["vision_cfg"].get("timm_model_name"))) == sizes
    if config.init_logit_bias is not None or isinstance(config.text, BertConfig):  # a few, for they take long
        whole, parts = (flatten_dict(shapes) for shapes in (abstract_model(config)[1], our_shapes(config)))
        assert {path: leaf.shape for path, leaf in whole.items()} == {path: leaf.shape for path, leaf in parts.items()}
    if isinstance(config.image, ViTConfig):
        assert config.image.activation == activation_of(content)
    kinds: dict[type, str] = {BertConfig: "BERT", ClipTextConfig: "text transformer", ViTConfig: "ViT", ResNetConfig: "ResNet"}
    text = "RoBERTa" if isinstance(config.text, BertConfig) and config.text.position_offset else kinds[type(config.text)]
    return f"loads: {kinds[type(config.image)]} and {text}"


@pytest.mark.slow
def test_every_config_of_open_clip_loads_or_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = load_open_clip()
    contents = {
        path.stem: json.loads(path.read_text())
        for path in sorted((Path(library.__file__).parent / "model_configs").glob("*.json"))
    }
    table = {name: outcome(content, tmp_path) for name, content in contents.items()}
    loaded = [name for name, result in table.items() if result.startswith("loads")]
    with capsys.disabled():
        for name, result in table.items():
            print(f"{name:40} {result[:120]}")
        print(f"{len(loaded)} of {len(table)} of open_clip {library.__version__} load")
    for name, result in table.items():
        feature = other_feature(contents[name])
        assert result.startswith("loads") if feature is None else feature in result, f"{name}: {result}"
