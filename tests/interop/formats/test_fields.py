"""Every field of a foreign config is used, known to change nothing, or refused in one line that names it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip

from biomedclip_jax.config import BertConfig, ComputeConfig, GPTConfig, LlamaConfig, PreprocessConfig, ViTConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.formats._preprocessor import read_preprocessor
from biomedclip_jax.interop.formats.huggingface import causal, dinov2
from biomedclip_jax.interop.formats.huggingface.clip import read_clip_config
from biomedclip_jax.interop.formats.huggingface.mapping import check_same_bert
from biomedclip_jax.interop.formats.open_clip.config import read_config, read_preprocess
from biomedclip_jax.interop.formats.open_clip.timm import timm_config
from biomedclip_jax.interop.initial import image_tower, text_tower
from biomedclip_jax.models.bert import Bert
from biomedclip_jax.support.fields import Fields

NOTHING: Any = {}  # no tensors: sizes that only they tell are not asked for


def message(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_three_kinds_of_fields() -> None:
    fields = Fields(used=("a",), harmless={"b": "a note"}, only={"c": (1.0, None), "d": (True,)})
    fields.check({"a": 7, "b": [], "c": 1, "d": True}, "file")
    fields.check({}, "file")
    assert message(lambda: fields.check({"c": 2}, "file")).startswith("file: c = 2 is not supported; supported: 1.0, None")
    assert message(lambda: fields.check({"d": 1}, "file")).startswith("file: d = 1 is not supported; supported: True")
    assert message(lambda: fields.check({"e": 1}, "file")).startswith("file: unknown or unsupported field 'e' = 1")
    assert message(lambda: fields.check("text", "file")) == "file: found 'text'; expected an object with fields"
    assert len(message(lambda: fields.check({"e": "x" * 10_000}, "file"))) < 300


# --- open_clip ------------------------------------------------------------------------------------------------------

VISION = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 32}
CLIP_TEXT = {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 2, "layers": 1}


def described(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    cfg = {"embed_dim": 16, "vision_cfg": VISION | (vision or {}), "text_cfg": CLIP_TEXT | (text or {})}
    return {"model_cfg": cfg | model, "preprocess_cfg": {}}


def test_open_clips_configs_with_every_default_written_out_are_what_they_are_without() -> None:
    """Also with the fields of timm and transformers, which are null where there are none."""
    library = load_open_clip()
    vision, text = library.model.CLIPVisionCfg(**VISION), library.model.CLIPTextCfg(**CLIP_TEXT)
    whole = described(dataclasses.asdict(vision), dataclasses.asdict(text), quick_gelu=False, custom_text=False)
    whole["preprocess_cfg"] = dataclasses.asdict(library.transform.PreprocessCfg()) | {"fill_color": None}
    assert read_config(whole, NOTHING, Path("x")) == read_config(described(), NOTHING, Path("x"))


def test_open_clips_own_configs_load_or_say_which_field_is_in_the_way() -> None:
    folder = Path(load_open_clip().__file__).parent / "model_configs"
    loaded, refused = set(), {}
    for file in folder.glob("*.json"):
        try:
            read_config({"model_cfg": json.loads(file.read_text())}, NOTHING, Path("x"))
            loaded.add(file.stem)
        except UserError as error:
            refused[file.stem] = str(error)
            assert str(error).startswith("x") and "\n" not in str(error)
    assert {"ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14-336", "ViT-bigG-14", "RN50x64"} <= loaded and len(loaded) >= 60
    assert "multimodal_cfg" in refused["coca_ViT-B-32"] and "ViT-H-14-worldwide" in loaded


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"vision": {"attentional_pool": True}}, "vision_cfg: attentional_pool = True is not supported"),
        ({"vision": {"qk_norm": True}}, "vision_cfg: qk_norm = True"),
        ({"vision": {"block_type": "custom"}}, "vision_cfg: block_type = 'custom'"),
        ({"vision": {"act_kwargs": {"inplace": True}}}, "act_kwargs: unknown or unsupported field 'inplace'"),
        ({"vision": {"norm_kwargs": {"elementwise_affine": False}}}, "norm_kwargs: unknown or unsupported field"),
        ({"vision": {"norm_kwargs": {"eps": "small"}}}, "norm_kwargs: eps = 'small': expected a number"),
        ({"vision": {"image_size": [32, 64]}}, "vision_cfg: image_size = [32, 64]: expected a number"),
        ({"vision": {"no_ln_pre": "yes"}}, "no_ln_pre = 'yes': expected true or false"),
        ({"vision": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 384}}, "image_size = 384: expected 224"),
        ({"text": {"scale_fc": True}}, "text_cfg: scale_fc = True"),
        ({"text": {"pool_type": "first"}}, "text_cfg: pool_type = 'first' is not supported"),
        ({"text": {"no_causal_mask": 1}}, "text_cfg: no_causal_mask = 1: expected true or false"),
        ({"text": {"embed_cls": True}}, "text_cfg: embed_cls = True"),
        ({"text": {"tokenizer_mode": "clips"}}, "text_cfg: tokenizer_mode = 'clips'"),
        ({"text": {"eos_id": "</s>"}}, "text_cfg: eos_id = '</s>': expected a whole number"),
        ({"text": {"tokenizer_kwargs": {"language": "fra_Latn"}}}, "tokenizer_kwargs: language = 'fra_Latn'"),
        ({"text": {"tokenizer_kwargs": {"use_fast": False}}}, "tokenizer_kwargs: unknown or unsupported field 'use_fast'"),
        ({"text": {"tokenizer_kwargs": {"clean": "upper"}}}, "tokenizer_kwargs: clean = 'upper' is not supported"),
        ({"text": {"embed_dropout": 0.1}}, "text_cfg: unknown or unsupported field 'embed_dropout'"),
        ({"nonscalar_logit_scale": True}, "model_cfg: nonscalar_logit_scale = True"),
        ({"quick_gelu": True, "vision": {"act_kwargs": {"approximate": "tanh"}}}, "act_kwargs: unknown or unsupported field"),
        ({"rope": True}, "model_cfg: unknown or unsupported field 'rope' = True"),
    ],
)
def test_what_open_clip_would_compute_otherwise_is_refused(change: dict[str, Any], expected: str) -> None:
    found = message(lambda: read_config(described(**change), NOTHING, Path("folder")))
    assert found.startswith("folder/open_clip_config.json: ") and expected in found


def test_open_clips_preprocessing() -> None:
    nulls = dict.fromkeys(("mean", "std", "interpolation", "resize_mode", "fill_color", "mode"))
    assert read_preprocess(nulls | {"size": [99, 99]}, 32, "x") == PreprocessConfig(image_size=32)
    for change, expected in (
        ({"interpolation": "random"}, "interpolation = 'random' is not supported; supported: 'bicubic', 'bilinear'"),
        ({"resize_mode": "pad"}, "resize_mode = 'pad' is not supported"),
        ({"mean": [0.5, 0.5]}, "mean = [0.5, 0.5]: expected three numbers"),
        ({"std": [0, 1, 1]}, "x: PreprocessConfig.std"),
        ({"mode": "L"}, "mode = 'L' is not supported"),
        ({"crop_pct": 0.9}, "unknown or unsupported field 'crop_pct'"),
    ):
        assert expected in message(lambda change=change: read_preprocess(change, 32, "x"))


# --- transformers' models -------------------------------------------------------------------------------------------

TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def written(folder: Path, content: dict[str, Any], name: str = "config.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def saved(folder: Path, kind: str, **values: Any) -> dict[str, Any]:
    """What transformers writes for a config of this class, and all that it holds."""
    load_open_clip()
    import transformers

    config = getattr(transformers, kind)(**values)
    config.save_pretrained(folder)
    return config.to_dict() | json.loads((folder / "config.json").read_text())


def test_configs_as_transformers_writes_them_are_read(tmp_path: Path) -> None:
    """Short, as in the file, and with every field that the class has."""
    for kind, wanted in (("GPT2Config", GPTConfig), ("LlamaConfig", LlamaConfig)):
        content = saved(tmp_path / kind, kind)
        short = causal.read_config(tmp_path / kind)
        assert isinstance(short, wanted) and causal.read_config(written(tmp_path / kind, content)) == short
    content = saved(tmp_path / "bert", "BertConfig")
    for each in (content, {**content, "pooler_type": "first_token_transform", "gradient_checkpointing": False}):
        check_same_bert(written(tmp_path / "bert", each), BertConfig())
    content = saved(tmp_path / "clip", "CLIPConfig")
    short_clip = read_clip_config(tmp_path / "clip")
    assert read_clip_config(written(tmp_path / "clip", content)) == short_clip
    for kind, registers in (("Dinov2Config", 0), ("Dinov2WithRegistersConfig", 4)):
        content = saved(tmp_path / kind, kind)
        assert dinov2.read_config(content, "x").registers == registers


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"text_config": {"eos_token_id": 99}}, "text_config: eos_token_id = 99 is not supported; supported: 109"),
        ({"text_config": {"eos_token_id": None}}, "text_config: eos_token_id = None"),
        ({"text_config": {"hidden_act": "relu"}}, "text_config: hidden_act = 'relu' is not supported"),
        ({"text_config": {"use_attention_mask": True}}, "text_config: unknown or unsupported field 'use_attention_mask'"),
        ({"text_config": {"model_type": "siglip_text_model"}}, "text_config: model_type = 'siglip_text_model'"),
        ({"vision_config": {"num_channels": 1}}, "vision_config: num_channels = 1"),
        ({"vision_config": {"hidden_size": "32"}}, "vision_config: hidden_size = '32': expected a whole number"),
        ({"vision_config": {"num_attention_heads": 5}}, "ViTConfig.heads = 5: expected a divisor of width = 32"),
        ({"vision_config": {"pruned_heads": {"0": [1]}}}, "vision_config: pruned_heads = {'0': [1]}"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4} is not supported"),
        ({"text_config_dict": {"vocab_size": 110, "eos_token_id": 99}}, "text_config: eos_token_id = 99"),
    ],
)
def test_what_transformers_clip_would_compute_otherwise_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    text = TOWER | {"vocab_size": 110, "max_position_embeddings": 16, "eos_token_id": 109}
    plain = {"model_type": "clip", "projection_dim": 16, "text_config": text}
    plain["vision_config"] = TOWER | {"image_size": 32, "patch_size": 16}
    config = read_clip_config(written(tmp_path, plain))
    old = plain | {"text_config": text | {"eos_token_id": 2}, "text_config_dict": text | {"eos_token_id": 2}}
    assert read_clip_config(written(tmp_path, old)) == config
    changed = plain | {name: plain.get(name, {}) | value for name, value in change.items()}
    found = message(lambda: read_clip_config(written(tmp_path, changed)))
    assert found.startswith(f"{tmp_path}/config.json: ") and expected in found


def test_a_bert_to_begin_with_computes_what_its_config_says_or_is_refused(tmp_path: Path) -> None:
    """Heads, activation and epsilon do not show in the shapes of the tensors."""
    load_open_clip()
    import torch
    from transformers import BertConfig as TheirConfig
    from transformers import BertModel

    torch.manual_seed(0)
    sizes = TOWER | {"vocab_size": 50, "max_position_embeddings": 16, "initializer_range": 0.4}
    theirs = BertModel(TheirConfig(**sizes, hidden_act="gelu_new", layer_norm_eps=1e-5)).eval()
    theirs.save_pretrained(tmp_path)
    right = BertConfig(
        vocab_size=50,
        positions=16,
        context_length=16,
        width=32,
        depth=2,
        heads=4,
        mlp_width=64,
        activation="gelu_tanh",
        layer_norm_eps=1e-5,
    )
    tokens = np.array([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).last_hidden_state[0, 0].numpy()
    graph, _ = nnx.split(nnx.eval_shape(lambda: Bert(right, ComputeConfig(), nnx.Rngs(0))))
    found = np.asarray(nnx.merge(graph, text_tower(str(tmp_path), right))(tokens))[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.linalg.norm(expected)

    free = dataclasses.replace(right, context_length=7, pool="mean", dropout=0.0, attention_dropout=0.3)
    text_tower(str(tmp_path), free)
    wrong = dataclasses.replace(right, heads=2, activation="gelu", layer_norm_eps=1e-12, pad_id=1)
    said = message(lambda: text_tower(str(tmp_path), wrong))
    for part in ("heads = 4 (config: 2)", "activation = 'gelu_tanh' (config: 'gelu')", "layer_norm_eps = 1e-05", "pad_id = 0"):
        assert part in said
    content = json.loads((tmp_path / "config.json").read_text())
    for change, part in (
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder = True"),
        ({"model_type": "electra"}, "model_type = 'electra'; expected a 'bert' or 'roberta'"),
        ({"model_type": "roberta"}, "position_offset = 1 (config: 0)"),
        ({"alibi": True}, "unknown or unsupported field 'alibi'"),
        ({"num_hidden_layers": 1}, "depth = 1 (config: 2)"),
        ({"auto_map": {"AutoModel": "other.Model"}}, "unknown or unsupported field 'auto_map'"),
    ):
        written(tmp_path, content | change)
        assert part in message(lambda: text_tower(str(tmp_path), right))


def test_a_vit_to_begin_with_is_compared_with_its_config(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from biomedclip_jax.config import CLIPConfig
    from biomedclip_jax.interop._mapping import from_params
    from biomedclip_jax.interop.formats.open_clip.mapping import timm_entries
    from biomedclip_jax.models import init_params

    vit = ViTConfig(image_size=32, patch_size=16, width=192, depth=1, heads=3, mlp_width=768)
    params = init_params(CLIPConfig(image=vit), 0)["image"]
    save_file(from_params({"image": params}, timm_entries(vit)), tmp_path / "model.safetensors")
    timm = {"architecture": "vit_tiny_patch16_224", "num_classes": 1000, "num_features": 192, "global_pool": "token"}
    timm |= {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "crop_pct": 0.9}, "model_args": {"depth": 1, "img_size": 32}}
    image_tower(str(written(tmp_path, timm)), vit)
    image_tower(str(tmp_path), dataclasses.replace(vit, pool="mean"))
    deit = written(tmp_path, timm | {"architecture": "deit_tiny_patch16_224.fb_in1k"})
    image_tower(str(deit), vit)
    written(tmp_path, timm)
    assert "heads = 3 (config: 6)" in message(lambda: image_tower(str(tmp_path), dataclasses.replace(vit, heads=6)))
    for change, part in (
        ({"act_layer": "quick_gelu"}, "activation = 'quick_gelu' (config: 'gelu')"),
        ({"qk_norm": True}, "model_args: qk_norm = True is not supported"),
        ({"norm_layer": "rmsnorm"}, "model_args: norm_layer = 'rmsnorm'"),
        ({"rope": True}, "model_args: unknown or unsupported field 'rope'"),
        ({"init_values": 1e-5}, "layer_scale = True (config: False)"),
    ):
        written(tmp_path, timm | {"model_args": timm["model_args"] | change})
        assert part in message(lambda: image_tower(str(tmp_path), vit))
    written(tmp_path, {"model_type": "vit"})
    assert "model_type = 'vit'; expected 'dinov2'" in message(lambda: image_tower(str(tmp_path), vit))
    image_tower(str(tmp_path / "model.safetensors"), vit)  # beside a bare file may stand another model's config
    assert timm_config({"architecture": "vit_large_patch16_224", "model_args": {"init_values": 1.0}}, "x").layer_scale


# --- transformers' images -------------------------------------------------------------------------------------------

PLAIN = {"size": 32, "crop_size": 32, "image_processor_type": "CLIPImageProcessor"}
SQUASHED = PreprocessConfig(
    image_size=32, interpolation="bilinear", resize_mode="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def test_the_class_of_an_image_processor_says_what_its_file_leaves_out(tmp_path: Path) -> None:
    for content, expected in (
        ({"feature_extractor_type": "ViTFeatureExtractor"}, SQUASHED),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2}, SQUASHED),
        ({"image_processor_type": "SiglipImageProcessor"}, dataclasses.replace(SQUASHED, interpolation="bicubic")),
        ({"image_processor_type": "CLIPImageProcessorFast", "crop_size": None, "do_pad": None}, PreprocessConfig(32)),
        ({"image_processor_type": "ViTImageProcessor", "do_center_crop": None, "default_to_square": True}, SQUASHED),
        (PLAIN | {"size": {"shortest_edge": 40}}, PreprocessConfig(32, resize_size=40)),
    ):
        assert read_preprocessor(written(tmp_path, content, "preprocessor_config.json"), 32) == expected
    nested = {"processor_class": "CLIPProcessor", "image_processor": {"image_processor_type": "ViTImageProcessor"}}
    assert read_preprocessor(written(tmp_path, nested, "processor_config.json"), 32) == SQUASHED, "this one counts"
    written(tmp_path, {"processor_class": "CLIPProcessor"}, "processor_config.json")
    assert read_preprocessor(tmp_path, 32) == PreprocessConfig(32, resize_size=40)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rescale_factor": 1 / 127.5}, "rescale_factor = 0.00784"),
        ({"rescale_offset": True}, "rescale_offset = True is not supported"),
        ({"do_pad": True}, "do_pad = True is not supported"),
        ({"crop_pct": 0.875}, "crop_pct = 0.875 is not supported"),
        ({"do_rescale": False}, "do_rescale = False is not supported"),
        (
            {"image_processor_type": "ConvNextImageProcessor"},
            "image_processor_type = 'ConvNextImageProcessor' is not supported",
        ),
        ({"image_processor_type": "DeiTImageProcessor"}, "image_processor_type = 'DeiTImageProcessor' is not supported"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size = {'shortest_edge': 32"),
        ({"image_mean": 0.5}, "image_mean = 0.5: expected three numbers"),
        ({"image_std": [0, 0, 0]}, "PreprocessConfig.std"),
        ({"do_sharpen": True}, "unknown or unsupported field 'do_sharpen'"),
    ],
)
def test_other_pixels_than_ours_are_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    written(tmp_path, PLAIN | {"rescale_factor": 0.00392156862745098}, "preprocessor_config.json")
    assert read_preprocessor(tmp_path, 32) == PreprocessConfig(32)
    written(tmp_path, PLAIN | change, "preprocessor_config.json")
    found = message(lambda: read_preprocessor(tmp_path, 32))
    assert found.startswith(f"{tmp_path}/preprocessor_config.json: ") and expected in found
