"""The state of a run: what it starts from, and what becomes of it at another image size."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from reference import load_open_clip, open_clip_model

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    Stage,
    TrainConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.folders import read_model
from biomedclip_jax.interop.layout import flatten
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.models.vit import resize_positions
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train.state import abstract_state, at_image_size, model_at, new_state, parameter_count
from biomedclip_jax.train.step import State, make_optimizer


def config(model: CLIPConfig, **changes: Any) -> TrainConfig:
    return TrainConfig(
        name="test",
        data=DataConfig(train="train.csv"),
        stages=(Stage(8, steps=1),),
        model=model,
        preprocess=PreprocessConfig(image_size=model.image.image_size),
        **changes,
    )


def optimizer(clip_norm: float | None = 1.0) -> Any:
    return make_optimizer(OptimizerConfig(clip_norm=clip_norm), lambda step: jnp.float32(1e-3))


def start(config: TrainConfig, image_size: int | None = None) -> State:
    return new_state(config, image_size or config.model.image.image_size, optimizer(), make_mesh())


def model(config: TrainConfig, state: State) -> CLIP:
    graph, _ = abstract_model(config.model)
    return nnx.merge(graph, state["params"])


# --- another image size ---------------------------------------------------------------------------------------------


# with clipping Adam's moments lie one level deeper
@pytest.mark.parametrize(("clip_norm", "on_prefix"), [(None, True), (1.0, False)])
def test_positions_and_their_moments_are_resized(clip_norm: float | None, on_prefix: bool) -> None:
    image = dataclasses.replace(tiny.MODEL.image, position_on_prefix=on_prefix, registers=1)
    run = config(dataclasses.replace(tiny.MODEL, image=image))
    rng = np.random.default_rng(0)
    before = new_state(run, 16, optimizer(clip_norm), make_mesh())
    # moments as training leaves them: no zeros, and second moments of very different size side by side
    before["opt"] = jax.tree.map(
        lambda x: jnp.asarray(rng.exponential(size=x.shape) ** 4, x.dtype) if x.ndim else x, before["opt"]
    )
    after = at_image_size(before, run, 32)
    shapes = abstract_state(run, 32, optimizer(clip_norm), make_mesh())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)

    resized = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        if old.shape == new.shape:
            assert np.array_equal(old, new), place
            continue
        resized.append(place.split("/image/")[0].split("/")[-1])
        expected = np.asarray(resize_positions(old, 2 if on_prefix else 0, 4))
        if "/nu/" in place:
            assert expected.min() < 0, "the test has a table whose cubic interpolation goes below 0"
            expected = np.maximum(expected, 0)
        assert np.array_equal(new, expected), place
    assert sorted(resized) == ["mu", "nu", "params"]


# --- what a run starts from -----------------------------------------------------------------------------------------


def test_fresh_parameters_follow_the_seed() -> None:
    run = config(tiny.MODEL)
    first, again, other = (start(dataclasses.replace(run, seed=seed)) for seed in (0, 0, 1))
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(again)))
    assert not np.array_equal(first["params"]["text"]["word"], other["params"]["text"]["word"])
    assert int(first["step"]) == 0 and all(np.all(x == 0) for x in jax.tree.leaves(first["opt"]))
    assert sum(x.size for x in jax.tree.leaves(first["params"])) == parameter_count(run.model)


SMALL_VIT = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=4, mlp_width=128)
SMALL_BERT = BertConfig(vocab_size=60, context_length=8, positions=16, width=32, depth=2, heads=4, mlp_width=64)
SMALL = CLIPConfig(image=SMALL_VIT, text=SMALL_BERT, embed_width=16)


def timm_folder(folder: Path) -> Any:
    """A ViT as timm publishes it, with ImageNet's classifier: `vit_tiny_patch16_224`, made smaller. Returns the model."""
    load_open_clip()
    import timm
    from safetensors.torch import save_file

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 7}
    vit = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    folder.mkdir()
    save_file(vit.state_dict(), folder / "model.safetensors")
    return vit


def bert_folder(folder: Path, kind: str = "BertModel") -> Any:
    """A BERT as transformers writes it, bare or under pretraining heads. Returns the bare model."""
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    described = transformers.BertConfig(vocab_size=60, max_position_embeddings=16, **sizes)
    model = getattr(transformers, kind)(described).eval()
    model.save_pretrained(folder)
    return getattr(model, "bert", model)


def assert_fresh_elsewhere(run: TrainConfig, state: State, given: str) -> None:
    fresh = flatten(start(config(run.model))["params"])
    for path, leaf in flatten(state["params"]).items():
        assert path.startswith(given) or np.array_equal(leaf, fresh[path]), path


def test_image_tower_from_timm(tmp_path: Path) -> None:
    import torch

    vit = timm_folder(tmp_path / "vit")
    run = config(SMALL, image_init=str(tmp_path / "vit"))
    state = start(run)
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = vit.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0].numpy()
    assert np.abs(model(run, state).image(images) - expected).max() <= 1e-5
    assert np.array_equal(state["params"]["image"]["position"], vit.pos_embed[0].detach().numpy())
    assert_fresh_elsewhere(run, state, "image/")
    larger = start(run, 48)["params"]["image"]["position"]
    assert np.array_equal(larger, resize_positions(state["params"]["image"]["position"], 1, 6))


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_text_tower_from_transformers(tmp_path: Path, kind: str) -> None:
    import torch

    bert = bert_folder(tmp_path / "bert", kind)
    run = config(SMALL, text_init=str(tmp_path / "bert"))
    state = start(run)
    tokens = np.array([[2, 9, 8, 7, 3, 0, 0, 0], [2, 5, 3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        ids = torch.from_numpy(tokens)
        expected = bert(ids, attention_mask=(ids != 0).long()).last_hidden_state[:, 0].numpy()
    assert np.abs(model(run, state).text(tokens) - expected).max() <= 1e-5
    assert_fresh_elsewhere(run, state, "text/")


CLIP_VISION = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}


def test_whole_model(tmp_path: Path) -> None:
    import torch

    text = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 8}
    theirs = open_clip_model(tmp_path / "clip", CLIP_VISION, text, bert={"hidden_size": 32, "num_hidden_layers": 2})
    # what does not shape parameters is the run's own: dropout, a shorter context, another first temperature
    found = read_model(tmp_path / "clip").config
    free = dataclasses.replace(found.text, dropout=0.0, context_length=6)
    run = config(dataclasses.replace(found, text=free, init_logit_scale=1.0), model_init=str(tmp_path / "clip"))
    state = start(run)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
    tokens = np.array([[2, 9, 8, 7, 3, 0]])
    with torch.no_grad():
        image = theirs.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2), normalize=True).numpy()
        caption = theirs.encode_text(torch.from_numpy(tokens), normalize=True).numpy()
    clip = model(run, state)
    assert np.abs(clip.encode_image(images) - image).max() <= 1e-5
    assert np.abs(clip.encode_text(tokens) - caption).max() <= 1e-5
    assert float(state["params"]["logit_scale"]) == theirs.logit_scale.item()
    larger = start(run, 48)["params"]["image"]["position"]
    assert np.array_equal(larger, resize_positions(state["params"]["image"]["position"], 1, 6))
    with pytest.raises(UserError, match=r"clip: another model than the config asks for; they differ in text"):
        start(config(dataclasses.replace(run.model, text=SMALL_BERT), model_init=str(tmp_path / "clip")))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    timm_folder(tmp_path / "vit")
    bert_folder(tmp_path / "bert")

    def message(field: str, source: str, **sizes: Any) -> str:
        tower = field.removesuffix("_init")
        smaller = dataclasses.replace(getattr(SMALL, tower), **sizes)
        with pytest.raises(UserError) as caught:
            start(config(dataclasses.replace(SMALL, **{tower: smaller}), **{field: str(tmp_path / source)}))
        assert str(tmp_path / source) in str(caught.value)
        return str(caught.value)

    assert "12 tensors are missing: blocks.2." in message("image_init", "vit", depth=3)
    assert "12 unknown tensors: blocks.1." in message("image_init", "vit", depth=1)
    assert "patch_embed.proj.weight has shape (32, 3, 8, 8), expected (32, 3, 16, 16)" in message(
        "image_init", "vit", patch_size=16
    )
    assert "no tensor pos_embed" in message("image_init", "bert")
    assert "embeddings.word_embeddings.weight has shape (60, 32), expected (61, 32)" in message(
        "text_init", "bert", vocab_size=61
    )
    assert "16 tensors are missing: encoder.layer.2." in message("text_init", "bert", depth=3)
    assert "no such folder" in message("text_init", "nowhere")


def test_only_a_bert_has_pretrained_text(tmp_path: Path) -> None:
    bert_folder(tmp_path / "bert")
    text = ClipTextConfig(vocab_size=60, context_length=8, width=32, depth=1, heads=4, mlp_width=64)
    with pytest.raises(UserError, match="text_init: only a BERT"):
        start(config(dataclasses.replace(SMALL, text=text), text_init=str(tmp_path / "bert")))


def test_model_of_a_stage() -> None:
    assert model_at(config(SMALL), 48).image.image_size == 48 and model_at(config(SMALL), 32) == SMALL
