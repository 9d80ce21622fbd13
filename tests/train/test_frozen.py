"""Runs on a frozen base: adapters learn, checkpoints have what was learned, and the finished run is a model and an adapter."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.tiny_run import TOTAL, config, final_state, make_data, read_lines

from biomedclip_jax.config import (
    Adaptation,
    CLIPConfig,
    GPTConfig,
    IA3Config,
    LoRAConfig,
    OptimizerConfig,
    PrefixConfig,
    Stage,
    TrainConfig,
)
from biomedclip_jax.config.files import load_config
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import read_model
from biomedclip_jax.interop.model import Model
from biomedclip_jax.interop.write import write_model
from biomedclip_jax.models import init_params
from biomedclip_jax.models.adapters import is_adapter
from biomedclip_jax.pretrained import Pretrained, from_pretrained
from biomedclip_jax.train import main as loop
from biomedclip_jax.train._checkpoint import About, Checkpoints
from biomedclip_jax.train._frozen import without_frozen
from biomedclip_jax.train.state import optimizer_for, parameter_count, trained_groups

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LEARNING = ("*lora*", "*ia3", "text_head", "logit_scale")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def write_base(folder: Path, data: Path, seed: int = 0) -> Path:
    """A model folder to start from, with weights that a fresh model does not have."""
    given, rng = config(data), np.random.default_rng(seed)
    params = jax.tree.map(lambda x: np.asarray(x + 0.02 * rng.normal(size=x.shape), np.float32), init_params(given.model, 1))
    write_model(Model(given.model, given.preprocess, params, data), folder)
    return folder


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "model", data)


def learning(data: Path, base: Path, **changes: Any) -> TrainConfig:
    """LoRA in the image tower, IA3 in the text tower, through three stages and two image sizes."""
    given = config(data)
    lora = LoRAConfig(rank=4, targets=("attention/query", "attention/value"))
    model = read_model(base).config
    model = dataclasses.replace(model, text=dataclasses.replace(model.text, dropout=0.1, attention_dropout=0.1))
    stages = tuple(dataclasses.replace(stage, trainable=LEARNING) for stage in given.stages)
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, ema=0.5)
    adaptation = Adaptation(lora, IA3Config())
    return config(data, model=model, adaptation=adaptation, model_init=str(base), stages=stages, optimizer=optimizer, **changes)


@pytest.fixture(scope="module")
def finished(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    assert loop.train(learning(data, base), workdir) is not None
    return workdir


def embeddings(clip: Pretrained, data: Path) -> np.ndarray:
    images = clip.encode_images([data / f"{i}.png" for i in (24, 25)])
    return np.concatenate([images, clip.encode_texts(["a chest image", "brain"])])


def test_only_what_is_trained_moves(data: Path, base: Path, finished: Path) -> None:
    run = learning(data, base)
    before = flatten_dict(read_model(base).params, sep="/")
    after = flatten_dict(final_state(run, finished)[1].params, sep="/")
    trained = set(optimizer_for(run).all_trained())
    assert {path for path in after if is_adapter(path)} < trained and {"logit_scale", "text_head/fc1/kernel"} < trained
    for path, leaf in after.items():
        if path not in trained and path != "image/position":
            assert np.array_equal(leaf, before[path]), path
    merged = flatten_dict(read_model(finished / "model").params, sep="/")
    moved = {
        path for path, leaf in merged.items() if leaf.shape != before[path].shape or not np.array_equal(leaf, before[path])
    }
    layers = [f"text/blocks/{x}" for x in ("attention/qkv/kernel", "attention/qkv/bias", "mlp/fc2/kernel")]
    layers += ["image/blocks/attention/qkv/kernel", "image/position"]
    assert moved == {*layers, *(p for p in trained if not is_adapter(p))}


def test_a_checkpoint_has_what_was_learned(data: Path, base: Path, finished: Path) -> None:
    run = learning(data, base)
    state = final_state(run, finished)[1]
    kept = dataclasses.replace(state, params=without_frozen(state.params, run, optimizer_for(run)))
    assert flatten_dict(kept.params, sep="/").keys() == {*optimizer_for(run).all_trained(), "image/position"}
    checkpoints = Checkpoints(finished)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), kept)
    again = checkpoints.restore(TOTAL, abstract)  # Orbax refuses another tree than it has written
    assert len(checkpoints.about(TOTAL).frozen or "") == 32
    checkpoints.close()
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(kept)))


def test_a_fully_trained_run_keeps_everything(data: Path, base: Path, tmp_path: Path) -> None:
    run = config(data, model_init=str(base), model=read_model(base).config)
    loop.train(run, tmp_path, max_steps=1)
    state = final_state(run, tmp_path)[1]
    stays = without_frozen(state.params, run, optimizer_for(run))
    assert flatten_dict(stays, sep="/").keys() == flatten_dict(state.params, sep="/").keys()
    checkpoints = Checkpoints(tmp_path)
    assert dataclasses.replace(checkpoints.about(1), data=None) == About(image_size=16, pairs=22)
    checkpoints.close()


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(data: Path, base: Path, finished: Path, tmp_path: Path) -> None:
    run = learning(data, base)
    for stop in (2, 6):  # before and after the image size has changed
        assert loop.train(run, tmp_path, max_steps=stop) is None
    assert np.array_equal(  # an unfinished run is a model, too
        embeddings(from_pretrained(tmp_path), data).shape, (4, run.model.embed_width)
    )
    assert loop.train(run, tmp_path) is not None
    (step, state), (_, whole) = final_state(run, tmp_path), final_state(run, finished)
    assert step == TOTAL and jax.tree.structure(state) == jax.tree.structure(whole)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(whole)))
    lines = [read_lines(folder / "metrics.jsonl") for folder in (tmp_path, finished)]
    losses = [[line.get("loss", line.get("held_out_loss")) for line in own] for own in lines]
    assert losses[0] == losses[1] and len(losses[0]) == TOTAL + 2, "start and end are evaluated, too"


def test_a_run_does_not_go_on_with_another_base(data: Path, tmp_path: Path) -> None:
    run = learning(data, write_base(tmp_path / "base", data))
    loop.train(run, tmp_path / "run", max_steps=1)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match=r"base: no such folder"):
        loop.train(run, tmp_path / "run")
    write_base(tmp_path / "base", data, seed=7)
    with pytest.raises(UserError, match=r"/base: these are not the weights that this run began with .*bring them back"):
        loop.train(run, tmp_path / "run")


def test_the_adapter_folder_makes_the_model_of_its_base(data: Path, base: Path, finished: Path, tmp_path: Path) -> None:
    expected = embeddings(from_pretrained(finished), data)
    folder = finished / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == ["biomedclip_adapter.json", "biomedclip_adapter.safetensors"]
    clip = from_pretrained(base, adapter=folder)
    assert clip.config.image.image_size == clip.processor.config.image_size == 24
    assert np.array_equal(embeddings(clip, data), expected)
    assert np.array_equal(embeddings(from_pretrained(folder), data), expected), "it knows where its base is"
    assert np.abs(embeddings(from_pretrained(base), data)[2:] - expected[2:]).max() > 1e-3
    with pytest.raises(UserError, match=r"^[^\n]*/other: not the base that this adapter was trained on \(fingerprint \w{32}"):
        from_pretrained(write_base(tmp_path / "other", data, seed=7), adapter=folder)
    content = json.loads((folder / "biomedclip_adapter.json").read_text())
    assert content["sources"] == {"": str(base)}
    changed = content | {"parameters": content["parameters"] | {"logit_scale": [2]}}
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "biomedclip_adapter.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"safetensors: logit_scale is missing or has another shape"):
        from_pretrained(base, adapter=tmp_path / "damaged")


def test_a_prefix_on_a_rounded_base(data: Path, base: Path, tmp_path: Path) -> None:
    """What cannot be merged is kept beside the weights, in the model folder, too."""
    run = learning(data, base)
    text = dataclasses.replace(run.model.text, context_length=6)
    run = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, text=text),
        adaptation=Adaptation(text=PrefixConfig(tokens=2)),
        stages=(Stage(16, steps=2, trainable=("*prefix*", "*_head")),),
        compute=dataclasses.replace(run.compute, frozen_dtype="bfloat16"),
    )
    assert loop.train(run, tmp_path, max_steps=1) is None
    assert loop.train(run, tmp_path) is not None
    clip = from_pretrained(tmp_path)
    assert clip.adaptation == Adaptation(text=PrefixConfig(tokens=2))
    kernel = np.asarray(clip.params["text"]["blocks"]["mlp"]["fc1"]["kernel"])
    original = read_model(base).params["text"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert np.array_equal(kernel, np.asarray(original.astype("bfloat16"), np.float32)) and not np.array_equal(kernel, original)
    expected = embeddings(clip, data)
    assert np.array_equal(embeddings(from_pretrained(base, adapter=tmp_path / "adapter"), data), expected)


def test_trained_groups(data: Path, base: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = load_config(CONFIGS / "lora_biomedclip.py")
    groups = trained_groups(run)
    lora = 12 * 2 * 8 * (768 + 768)
    assert groups == {
        "image adapter": lora,
        "image_head": 768 * 512,
        "logit_scale": 1,
        "text adapter": lora,
        "text_head": 768 * 640 + 640 * 512,
    }
    assert parameter_count(run.model) == 195_902_721 and sum(groups.values()) == 1_802_241
    # CLEFT's: 3.93 million numbers of the language model's side are trained: LoRA and the text projection
    cleft = CLIPConfig(text=GPTConfig(), text_head="linear", text_head_bias=True)
    stages = (Stage(64, steps=1, trainable=("*lora*", "text_head")), Stage(64, steps=1, trainable=("text_head",)))
    both = dataclasses.replace(run, model=cleft, adaptation=Adaptation(text=LoRAConfig()), stages=stages)
    assert trained_groups(both) == trained_groups(both, 0) == {"text adapter": 2_621_440, "text_head": 1_311_232}
    assert trained_groups(both, 1) == {"text_head": 1_311_232}
    loop.train(learning(data, base), tmp_path, max_steps=1)
    assert "\ntrained: image adapter 1,024, logit_scale 1, text adapter 320, text_head 1,152\n" in capsys.readouterr().out


def test_weights_that_were_trained_are_mixed_with_the_start(data: Path, base: Path, finished: Path) -> None:
    from biomedclip_jax.train.state import exported_params

    run = dataclasses.replace(learning(data, base), interpolate=0.25)
    state = final_state(run, finished)[1]
    found = flatten_dict(exported_params(state, run, 24), sep="/")
    whole = flatten_dict(exported_params(state, dataclasses.replace(run, interpolate=1.0), 24), sep="/")
    start = flatten_dict(read_model(base).params, sep="/")
    for path in ("image/blocks/attention/qkv/kernel", "text/blocks/attention/qkv/bias", "text_head/fc1/kernel"):
        assert np.abs(found[path] - (0.25 * whole[path] + 0.75 * start[path])).max() <= 1e-6, path
    assert unflatten_dict(found, sep="/").keys() == unflatten_dict(whole, sep="/").keys() and not any(map(is_adapter, found))


def test_a_pretrained_start_is_compared_with_the_end_without_being_asked(data: Path, base: Path, tmp_path: Path) -> None:
    """At a rate that ruins the weights, the start is what is handed over."""
    given = config(data, model_init=str(base), model=read_model(base).config)
    stages = (Stage(16, steps=1, trainable=("text_head",)),)  # the temperature cannot make up for it
    run = dataclasses.replace(given, stages=stages, optimizer=OptimizerConfig(learning_rate=3.0, warmup_steps=0))
    results = loop.train(run, tmp_path)
    losses = {line["step"]: line["held_out_loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "held_out_loss" in line}
    assert losses.keys() == {0, 1} and losses[0] < losses[1]
    assert results is not None and results.exported_step == 0
    start, handed_over = read_model(base).params, read_model(tmp_path / "model").params
    jax.tree.map(np.testing.assert_array_equal, start, handed_over)
