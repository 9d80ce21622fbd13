"""The state of a run: what it starts from, and what becomes of it at another image size."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from helpers import tiny
from helpers.reference import load_open_clip, open_clip_model
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import (
    BertConfig,
    CLIPConfig,
    ClipTextConfig,
    DataConfig,
    OptimizerConfig,
    PreprocessConfig,
    ShardingConfig,
    Sigmoid,
    Stage,
    TrainConfig,
    ViTConfig,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.models import CLIP, abstract_model
from biomedclip_jax.models.vit import resize_positions
from biomedclip_jax.sharding import make_mesh
from biomedclip_jax.train.state import (
    TrainState,
    abstract_state,
    at_image_size,
    exported_params,
    new_state,
    optimizer_for,
    parameter_count,
    starting_params,
)


def config(model: CLIPConfig, *stages: Stage, **changes: Any) -> TrainConfig:
    return TrainConfig(
        name="test",
        data=DataConfig(train="train.csv"),
        stages=stages or (Stage(8, steps=1),),
        model=model,
        preprocess=PreprocessConfig(image_size=model.image.image_size),
        **changes,
    )


def start(config: TrainConfig, image_size: int | None = None) -> TrainState:
    mesh = make_mesh(fsdp=config.sharding.fsdp)
    return new_state(config, image_size or config.model.image.image_size, optimizer_for(config), mesh)


def described(state: TrainState) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), state)


def model(config: TrainConfig, state: TrainState) -> CLIP:
    graph, _ = abstract_model(config.model)
    return nnx.merge(graph, state.params)


# --- described before it is made ------------------------------------------------------------------------------------

TEXT_THEN_ALL = (Stage(8, steps=1, trainable=("text", "*_head")), Stage(8, steps=1))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"optimizer": OptimizerConfig(ema=0.9, clip_norm=1.0)},
    "split": {"optimizer": OptimizerConfig(ema=0.9), "sharding": ShardingConfig(fsdp=4)},
}


@pytest.mark.parametrize("stages", [(), TEXT_THEN_ALL], ids=["one stage", "two stages"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_as_it_was_described(kind: str, stages: tuple[Stage, ...]) -> None:
    run = config(tiny.MODEL, *stages, **KINDS[kind])
    state = start(run, 24)
    mesh = make_mesh(fsdp=run.sharding.fsdp)
    assert described(state) == described(abstract_state(run, 24, optimizer_for(run), mesh))
    assert state.params["image"]["position"].shape == (1 + 9, 32)
    assert bool(state.ema) == (kind != "plain")
    assert list(state.opt) == (["stages 0,1", "stages 1"] if stages else ["stages 0"])
    # no two arrays share memory, as they are donated apart
    places = [shard.data.unsafe_buffer_pointer() for x in jax.tree.leaves(state) for shard in x.addressable_shards if x.ndim]
    assert len(places) == len(set(places))


def test_what_no_stage_trains_has_neither_moments_nor_average() -> None:
    run = config(tiny.MODEL, Stage(8, steps=1, trainable=("text_head", "logit_scale")), optimizer=OptimizerConfig(ema=0.9))
    state = start(run)
    paths = ["text_head/fc1/kernel", "text_head/fc2/kernel", "logit_scale"]
    numbers = parameter_count(run.model, paths)
    assert sorted(state.ema) == sorted(paths) == sorted(optimizer_for(run).all_trained())
    assert sum(x.size for x in jax.tree.leaves(state.opt)) == 2 * numbers + 1
    assert numbers == 32 * 24 + 24 * 16 + 1 < parameter_count(run.model)


def test_a_pattern_without_a_parameter_is_refused() -> None:
    with pytest.raises(UserError, match=r"^stages\.0\.trainable: 'tetx' is no parameter of this model; did you mean 'text'"):
        optimizer_for(config(tiny.MODEL, Stage(8, steps=1, trainable=("tetx",))))


# --- what a run hands over ------------------------------------------------------------------------------------------


def trained(run: TrainConfig) -> TrainState:
    """A state as training leaves it: weights and average that have moved apart."""
    state = start(run)
    params = jax.tree.map(lambda x: x + 1, state.params)
    return dataclasses.replace(state, params=params, ema={path: x + 3 for path, x in state.ema.items()})


@pytest.mark.parametrize(
    ("ema", "interpolate", "fsdp"), [(None, 1.0, 1), (0.9, 1.0, 4), (None, 0.25, 4), (0.9, 0.25, 1), (0.9, 0.0, 1)]
)
def test_the_exported_model(ema: float | None, interpolate: float, fsdp: int) -> None:
    """The average where there is one, mixed with the start; whole on each device."""
    run = config(
        tiny.MODEL,
        Stage(8, steps=1, trainable=("text",)),
        optimizer=OptimizerConfig(ema=ema),
        interpolate=interpolate,
        sharding=ShardingConfig(fsdp=fsdp),
        seed=3,
    )
    found = exported_params(trained(run), run, 16)
    assert (found["image"]["blocks"]["mlp"]["fc1"]["kernel"].sharding.is_fully_replicated) == (fsdp == 1), (
        "split as in training"
    )
    beginning = flatten_dict(start(run).params, sep="/")
    for path, leaf in flatten_dict(found, sep="/").items():
        by = 3 if ema is not None and path.startswith("text/") else 1
        expected = np.asarray(beginning[path]) + by * interpolate
        assert np.abs(leaf - expected).max() <= 1e-6, path


def test_starting_params_are_the_same_again() -> None:
    run = config(tiny.MODEL, sharding=ShardingConfig(fsdp=2), seed=5)
    state = start(run)
    again = starting_params(run, 16, state.params)
    assert described(again) == described(state.params)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(state.params)))


# --- another image size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "on_prefix"), [((), True), (TEXT_THEN_ALL, False)])
def test_positions_with_their_moments_and_average_are_resized(stages: tuple[Stage, ...], on_prefix: bool) -> None:
    image = dataclasses.replace(tiny.MODEL.image, position_on_prefix=on_prefix, registers=1)
    run = config(dataclasses.replace(tiny.MODEL, image=image), *stages, optimizer=OptimizerConfig(ema=0.9, clip_norm=1.0))
    rng = np.random.default_rng(0)
    before = start(run)
    # moments as training leaves them: no zeros, and second moments of very different size side by side
    opt = jax.tree.map(lambda x: jnp.asarray(rng.exponential(size=x.shape) ** 4, x.dtype) if x.ndim else x, before.opt)
    before = dataclasses.replace(before, opt=opt)
    before = jax.device_put(before, jax.tree.map(lambda x: x.sharding, start(run)))
    after = at_image_size(before, run, 32)
    assert described(after) == described(abstract_state(run, 32, optimizer_for(run), make_mesh()))

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
    assert sorted(resized) == ["ema", "mu", "nu", "params"]


def test_a_split_position_table_is_resized_and_lies_as_the_next_stage_wants_it() -> None:
    """36 rows of 32 are split along the rows, 81 along the width."""
    image = dataclasses.replace(tiny.MODEL.image, image_size=48, class_token=False, pool="mean")
    run = config(
        dataclasses.replace(tiny.MODEL, image=image), sharding=ShardingConfig(fsdp=4), optimizer=OptimizerConfig(ema=0.9)
    )
    before = start(run)
    assert before.params["image"]["position"].sharding.spec == P("fsdp")
    old = np.asarray(before.params["image"]["position"])
    after = at_image_size(before, run, 72)
    assert described(after) == described(abstract_state(run, 72, optimizer_for(run), make_mesh(fsdp=4)))
    assert after.params["image"]["position"].sharding.spec == P(None, "fsdp"), "81 rows do not split"
    found = np.asarray(after.params["image"]["position"])
    assert np.abs(found - resize_positions(jnp.asarray(old), 0, 9)).max() <= 1e-6


# --- what a run starts from -----------------------------------------------------------------------------------------


def test_fresh_parameters_follow_the_seed() -> None:
    run = config(tiny.MODEL)
    first, again, other = (start(dataclasses.replace(run, seed=seed)) for seed in (0, 0, 1))
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(again)))
    assert not np.array_equal(first.params["text"]["word"], other.params["text"]["word"])
    assert int(first.step) == 0 and all(np.all(x == 0) for x in jax.tree.leaves(first.opt))
    assert sum(x.size for x in jax.tree.leaves(first.params)) == parameter_count(run.model)


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


def assert_fresh_elsewhere(run: TrainConfig, state: TrainState, given: str) -> None:
    fresh = flatten_dict(start(config(run.model)).params, sep="/")
    for path, leaf in flatten_dict(state.params, sep="/").items():
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
    assert np.array_equal(state.params["image"]["position"], vit.pos_embed[0].detach().numpy())
    assert_fresh_elsewhere(run, state, "image/")
    larger = start(run, 48).params["image"]["position"]
    assert np.array_equal(larger, resize_positions(state.params["image"]["position"], 1, 6))


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
    assert float(state.params["logit_scale"]) == theirs.logit_scale.item()
    larger = start(run, 48).params["image"]["position"]
    assert np.array_equal(larger, resize_positions(state.params["image"]["position"], 1, 6))
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
    assert "vocab_size = 60 (config: 61)" in message("text_init", "bert", vocab_size=61)
    assert "depth = 2 (config: 3)" in message("text_init", "bert", depth=3)
    (tmp_path / "bert" / "config.json").unlink()  # then the shapes alone can tell
    assert "embeddings.word_embeddings.weight has shape (60, 32), expected (61, 32)" in message(
        "text_init", "bert", vocab_size=61
    )
    assert "16 tensors are missing: encoder.layer.2." in message("text_init", "bert", depth=3)
    assert "no such folder" in message("text_init", "nowhere")


def test_clips_own_text_tower_has_no_pretrained_text(tmp_path: Path) -> None:
    bert_folder(tmp_path / "bert")
    text = ClipTextConfig(vocab_size=60, context_length=8, width=32, depth=1, heads=4, mlp_width=64)
    with pytest.raises(UserError, match="text_init: expected a BERT, GPT-2 or LLaMA"):
        start(config(dataclasses.replace(SMALL, text=text), text_init=str(tmp_path / "bert")))


def test_the_sigmoid_loss_can_start_from_a_model_without_a_bias(tmp_path: Path) -> None:
    text = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 8}
    open_clip_model(tmp_path / "clip", CLIP_VISION, text, bert={"hidden_size": 32, "num_hidden_layers": 1})
    found = read_model(tmp_path / "clip").config
    assert found.init_logit_bias is None
    stage = Stage(8, steps=1, loss=Sigmoid())
    run = config(dataclasses.replace(found, init_logit_bias=-10.0), stage, model_init=str(tmp_path / "clip"))
    params = start(run).params
    assert float(params["logit_bias"]) == -10.0
    plain = flatten_dict(start(config(found, model_init=str(tmp_path / "clip"))).params, sep="/")
    assert all(
        np.array_equal(leaf, plain[path]) for path, leaf in flatten_dict(params, sep="/").items() if path != "logit_bias"
    )


def test_a_trained_bias_is_kept_and_not_lost(tmp_path: Path) -> None:
    text = {"context_length": 8, "vocab_size": 60, "width": 32, "heads": 4, "layers": 1}
    theirs = open_clip_model(tmp_path / "clip", CLIP_VISION, text, init_logit_bias=-9.0)
    found = read_model(tmp_path / "clip").config
    run = config(dataclasses.replace(found, init_logit_bias=-10.0), model_init=str(tmp_path / "clip"))
    assert float(start(run).params["logit_bias"]) == theirs.logit_bias.item() != -9.0
    with pytest.raises(UserError, match="they differ in init_logit_bias"):
        start(config(dataclasses.replace(found, init_logit_bias=None), model_init=str(tmp_path / "clip")))


def test_model_of_a_stage() -> None:
    larger = config(SMALL, Stage(8, steps=1, image_size=48), Stage(8, steps=1))
    assert [larger.model_in(stage).image.image_size for stage in larger.stages] == [48, 32]
    assert larger.model_at(48) == larger.model_in(larger.stages[0]) and larger.model_at(32) == SMALL
