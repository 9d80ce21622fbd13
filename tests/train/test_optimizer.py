"""AdamW as PyTorch has it, over the parameters that are trained, from the update on in which they first are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import tiny

from biomedclip_jax.config import MeterConfig, OptimizerConfig, Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._mapping import from_params
from biomedclip_jax.interop.formats.open_clip import mapping as open_clip
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.train.optimizer import Optimizer, ParameterSet, averaged, decays, make_optimizer

RATE = 1e-2
Numbers = dict[str, np.ndarray]


def test_decay_is_open_clips_rule_by_name() -> None:
    """open_clip leaves out what has fewer than two axes, and norms, biases and the temperature. Ours are stacked over depth."""
    image = dataclasses.replace(tiny.MODEL.image, patch_bias=True, registers=2, layer_scale=True, position_on_prefix=False)
    model = dataclasses.replace(tiny.MODEL, image=image, init_logit_bias=-10.0)
    params = init_params(model, 0)
    ours = decays(list(flatten_dict(params, sep="/")))
    entries = open_clip.entries(model, timm=True, text_prefix="text.")
    tensors = from_params(params, entries)
    for entry in entries:
        for name in (name for row in entry.names for name in row):
            kept_small = tensors[name].ndim >= 2 and "bias" not in name and name != "logit_scale"
            assert ours[entry.path] == kept_small, (entry.path, name)
    assert {path.split("/")[-1] for path, decayed in ours.items() if decayed} == {
        *("kernel", "position", "class_token", "registers", "word", "token_type"),
    }
    assert {path.split("/")[-1] for path, decayed in ours.items() if not decayed} == {
        *("bias", "scale", "scale1", "scale2", "logit_scale", "logit_bias"),
    }


# --- against PyTorch ------------------------------------------------------------------------------------------------

SHAPES = {"image/a/kernel": (4, 3), "image/a/bias": (3,), "text/b/kernel": (2, 5), "logit_scale": ()}


def start() -> Numbers:
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape) for path, shape in SHAPES.items()}


def some_gradients(updates: int) -> list[Numbers]:
    """Of sizes below and above what is clipped."""
    rng = np.random.default_rng(1)
    sizes = np.resize([0.1, 1.0, 3.0], updates)
    return [{path: size * rng.normal(size=shape) for path, shape in SHAPES.items()} for size in sizes]


class Torch:
    """torch.optim.AdamW, Adamax or SGD with a group for each parameter; each begins with the update that first moves it."""

    def __init__(self, config: OptimizerConfig, factors: dict[str, float]):
        import torch

        self.torch = torch
        self.config = config
        self.parameters = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in start().items()}
        decayed = decays(list(SHAPES))
        groups = [
            {"params": [p], "weight_decay": config.weight_decay * decayed[path], "lr": RATE * factors.get(path, 1.0)}
            for path, p in self.parameters.items()
        ]
        adam = torch.optim.Adamax if config.rule == "adamax" else torch.optim.AdamW
        adaptive = adam(groups, betas=(config.beta1, config.beta2), eps=config.eps)
        self.optimizer = torch.optim.SGD(groups, momentum=config.momentum) if config.rule == "sgd" else adaptive

    def step(self, gradients: Numbers) -> None:
        for path, parameter in self.parameters.items():
            parameter.grad = self.torch.tensor(gradients[path]) if path in gradients else None
        if self.config.clip_norm is not None:
            self.torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm)
        self.optimizer.step()  # leaves alone what has no gradient


def moved_as(optimizer: Optimizer, theirs: Torch, stages: list[int]) -> None:
    """One update a stage in `stages`, of ours and of theirs: the same movement of each parameter."""
    ours = {path: jnp.asarray(value, jnp.float32) for path, value in start().items()}
    state = optimizer.init(ours)
    update = jax.jit(optimizer.update, static_argnums=3)
    for stage, gradients in zip(stages, some_gradients(len(stages)), strict=True):
        gradients = {path: gradients[path] for path in optimizer.trained(stage)}
        new, state = update({p: jnp.float32(g) for p, g in gradients.items()}, state, ours, stage, jnp.float32(RATE))
        assert new.keys() == gradients.keys()
        ours |= new
        theirs.step(gradients)
    for path, parameter in theirs.parameters.items():
        moved = parameter.detach().numpy() - start()[path]
        assert np.abs(ours[path] - start()[path] - moved).max() <= 1e-4 * np.abs(moved).max(), path


def stage(*trainable: str) -> Stage:
    return Stage(8, steps=1, trainable=trainable or ("*",))


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_optimizer_is_torchs_adamw(clip_norm: float | None) -> None:
    config = OptimizerConfig(clip_norm=clip_norm)
    moved_as(make_optimizer(config, [stage()], list(SHAPES)), Torch(config, {}), [0, 0, 0])


def test_groups_have_their_own_rate() -> None:
    """The first pattern that fits counts; the decay follows the rate, as in PyTorch; a factor of 0 stands still."""
    config = OptimizerConfig(groups=(("image/a/bias", 2.0), ("image", 0.1), ("*/kernel", 3.0), ("logit_scale", 0.0)))
    factors = {"image/a/bias": 2.0, "image/a/kernel": 0.1, "text/b/kernel": 3.0, "logit_scale": 0.0}
    moved_as(make_optimizer(config, [stage()], list(SHAPES)), Torch(config, factors), [0, 0, 0])


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_what_starts_late_or_pauses_is_torchs_adamw_begun_then(clip_norm: float | None) -> None:
    """text begins in stage 1 with a bias correction of its own; image pauses there and goes on in stage 2 where it was."""
    config = OptimizerConfig(clip_norm=clip_norm)
    stages = [stage("image"), stage("text"), stage("image", "text")]
    optimizer = make_optimizer(config, stages, list(SHAPES))
    moved_as(optimizer, Torch(config, {}), [0, 0, 1, 1, 1, 2, 2])
    assert optimizer.trained(0) == ["image/a/kernel", "image/a/bias"] and optimizer.trained(1) == ["text/b/kernel"]
    assert sorted(optimizer.all_trained()) == sorted(optimizer.trained(2))


def test_sgd_is_torchs() -> None:
    """With momentum, and weight decay as part of the gradient, also of what pauses."""
    config = OptimizerConfig(rule="sgd", momentum=0.9, weight_decay=1e-2, clip_norm=1.0)
    stages = [stage("image"), stage("text"), stage("image", "text")]
    moved_as(make_optimizer(config, stages, list(SHAPES)), Torch(config, {}), [0, 0, 1, 1, 1, 2, 2])


def test_adamax_is_torchs() -> None:
    """With weight decay as part of the gradient, also of what starts late or pauses; a parameter of no gradient stays."""
    config = OptimizerConfig(rule="adamax", beta2=0.999, eps=1e-8, weight_decay=1e-2, clip_norm=1.0)
    stages = [stage("image"), stage("text"), stage("image", "text")]
    moved_as(make_optimizer(config, stages, list(SHAPES)), Torch(config, {}), [0, 0, 1, 1, 1, 2, 2])
    rule = ParameterSet(OptimizerConfig(rule="adamax", weight_decay=0.0, eps=1e-8), (0,), ("a",)).rule
    zeros = {"a": jnp.zeros(3)}
    steps: Any = rule.update(zeros, rule.init(zeros), zeros)[0]
    assert np.array_equal(steps["a"], np.zeros(3))


def test_a_stage_with_an_optimizer_of_its_own_has_moments_of_its_own() -> None:
    own = OptimizerConfig(rule="sgd", learning_rate=1.0, weight_decay=0.0, momentum=0.5)
    stages = [stage("image"), dataclasses.replace(stage("image", "text"), optimizer=own), stage("image")]
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.0), stages, list(SHAPES))
    assert {name: (each.config.rule, each.paths) for name, each in optimizer.sets.items()} == {
        "stages 0,2": ("adamw", ("image/a/kernel", "image/a/bias")),
        "stages 1": ("sgd", ("image/a/kernel", "image/a/bias", "text/b/kernel")),
    }
    assert sorted(optimizer.all_trained()) == ["image/a/bias", "image/a/kernel", "text/b/kernel"]
    params = {path: jnp.zeros(shape) for path, shape in SHAPES.items()}
    state, steps = optimizer.init(params), []
    for number in (0, 1, 1, 2):
        gradients = {path: jnp.ones_like(params[path]) for path in optimizer.trained(number)}
        new, state = optimizer.update(gradients, state, params, number, jnp.float32(1.0))
        steps.append(float((params["image/a/bias"] - new["image/a/bias"])[0]))
        params |= new
    assert np.allclose(steps, [1, 1, 1.5, 1], atol=1e-4), "Adam's step is 1; SGD's with momentum 1, then 1 + 0.5"


def test_what_decays_besides_is_torchs_adamw_too() -> None:
    config = OptimizerConfig(decayed=("logit_scale", "image/*/bias"))
    theirs = Torch(config, {})
    for group, path in zip(theirs.optimizer.param_groups, SHAPES, strict=True):
        group["weight_decay"] = config.weight_decay
        assert path in ("logit_scale", "image/a/bias") or decays([path])[path]
    moved_as(make_optimizer(config, [stage()], list(SHAPES)), theirs, [0, 0, 0])


# --- METER's recipe ---------------------------------------------------------------------------------------------------

ANSWERING = MeterConfig(answers=("yes", "no"), question_length=8, layers=2, width=32, heads=4, mlp_width=48)
# what METER's code keeps from decaying (zdou0830/METER, meter/modules/meter_utils.py), by parts of PyTorch's names
STILL = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")
HEAD = "answering/classifier/norm/scale"


def in_meter(path: str) -> str:
    """METER's name of a parameter of its layers and head, as far as its rules read it."""
    if path == HEAD:
        return "vqa_classifier.1.weight"
    kind = "LayerNorm" if "/norm" in path else "dense"
    end = "bias" if path.endswith("bias") else "weight"
    group = "vqa_classifier" if "/classifier/" in path else "token_type_embeddings" if "token_type" in path else "cross_modal"
    return f"{group}.{kind}.{end}"


@pytest.mark.parametrize(
    ("timm", "norm_pre", "decayed"),
    [(False, True, ("image/*/scale", HEAD)), (True, False, (HEAD,))],
    ids=["CLIP's ViT", "timm's"],
)
def test_what_decays_in_meter(timm: bool, norm_pre: bool, decayed: tuple[str, ...]) -> None:
    """Its rule reads names, so that it lets the norms of CLIP's ViT decay, and those of a timm ViT not."""
    model = dataclasses.replace(
        tiny.MODEL, image=dataclasses.replace(tiny.MODEL.image, norm_pre=norm_pre, patch_bias=timm), answering=ANSWERING
    )
    paths = list(flatten_dict(abstract_model(model)[1], sep="/"))
    trained = stage("image", "text", "answering")
    (found,) = make_optimizer(OptimizerConfig(decayed=decayed), [trained], paths).sets.values()
    names = {e.path: [n for row in e.names for n in row] for e in open_clip.entries(model, timm=timm, text_prefix="text.")}
    names |= {path: [in_meter(path)] for path in paths if path.startswith("answering/")}
    expected = {path: not any(part in name for name in names[path] for part in STILL) for path in found.paths}
    assert found.decays() == expected
    scales = {path for path, decays in expected.items() if decays and path.endswith("scale")}
    of_clip = {"image/blocks/norm1/scale", "image/blocks/norm2/scale", "image/norm_pre/scale", "image/norm/scale"}
    assert scales == {HEAD} | (set() if timm else of_clip)
    assert {"image/class_token", "image/position", "text/position", "answering/token_type"} <= {
        p for p, d in expected.items() if d
    }


def test_meters_rates() -> None:
    """The head 50 times the rate of the towers, all else that is new 5 times, but not the embeddings of the modalities."""
    groups = (("answering/classifier", 50.0), ("answering/token_type", 1.0), ("answering", 5.0))
    paths = list(flatten_dict(abstract_model(dataclasses.replace(tiny.MODEL, answering=ANSWERING))[1], sep="/"))
    trained = stage("image", "text", "answering")
    (found,) = make_optimizer(OptimizerConfig(groups=groups), [trained], paths).sets.values()
    factors = {"vqa_classifier": 50.0, "cross_modal": 5.0, "token_type_embeddings": 1.0}
    expected = {p: factors[in_meter(p).split(".")[0]] if p.startswith("answering/") else 1.0 for p in found.paths}
    assert {path: found.factor(path) for path in found.paths} == expected
    assert sorted(set(expected.values())) == [1.0, 5.0, 50.0]


# --- sets -----------------------------------------------------------------------------------------------------------


def counts(state: dict[str, Any]) -> dict[str, int]:
    return {name: int(adam.count) for name, (adam, *_) in state.items()}


def test_a_set_that_pauses_keeps_moments_and_count() -> None:
    optimizer = make_optimizer(OptimizerConfig(), [stage("image", "text"), stage("image")], list(SHAPES))
    assert {name: (each.stages, each.paths) for name, each in optimizer.sets.items()} == {
        "stages 0": ((0,), ("text/b/kernel",)),
        "stages 0,1": ((0, 1), ("image/a/kernel", "image/a/bias")),
    }
    params = {path: jnp.asarray(value, jnp.float32) for path, value in start().items()}
    state = optimizer.init(params)
    assert counts(state) == {"stages 0": 0, "stages 0,1": 0}
    before: dict[str, Any] = {}
    for number in (0, 1, 1):
        before = state
        gradients = {path: jnp.ones_like(params[path]) for path in optimizer.trained(number)}
        new, state = optimizer.update(gradients, state, params, number, jnp.float32(RATE))
        params |= new
    assert counts(state) == {"stages 0": 1, "stages 0,1": 3}
    assert all(map(np.array_equal, jax.tree.leaves(state["stages 0"]), jax.tree.leaves(before["stages 0"])))
    assert np.array_equal(params["logit_scale"], np.float32(start()["logit_scale"])), "no stage trains it"


def test_the_moving_average_follows_the_weights() -> None:
    """Also of a parameter that has stopped moving: its average comes to it."""
    found = {"a": jnp.float32(2.0), "b": jnp.float32(5.0)}
    params = {"a": jnp.float32(4.0), "b": jnp.float32(6.0), "never trained": jnp.float32(1.0)}
    found = averaged(found, params, 0.75)
    assert {path: float(value) for path, value in found.items()} == {"a": 2.5, "b": 5.25}
    for _ in range(100):
        found = averaged(found, params, 0.75)
    assert float(found["a"]) == pytest.approx(4.0, rel=1e-6) and float(found["b"]) == pytest.approx(6.0, rel=1e-6)


@pytest.mark.parametrize(
    ("config", "stages", "message"),
    [
        (
            OptimizerConfig(groups=(("image", 1.0), ("txet", 0.1))),
            [stage()],
            r"^OptimizerConfig\.groups: 'txet' is no parameter of this model; did you mean 'text'\?$",
        ),
        (
            OptimizerConfig(decayed=("image/nrom/scale",)),
            [stage()],
            r"^OptimizerConfig\.decayed: 'image/nrom/scale' is no parameter of this model; did you mean 'image/norm/scale'\?$",
        ),
        (
            OptimizerConfig(),
            [stage(), stage("image/block/mlp")],
            r"^stages\.1\.trainable: 'image/block/mlp' is no parameter of this model; did you mean 'image/blocks/mlp'\?$",
        ),
    ],
)
def test_a_pattern_that_means_nothing_is_named(config: OptimizerConfig, stages: list[Stage], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_optimizer(config, stages, list(flatten_dict(abstract_model(tiny.MODEL)[1], sep="/")))


def test_low_rank_matrices_and_prefixes_decay_and_factors_do_not() -> None:
    qkv = "text/blocks/attention/qkv"
    decayed = {f"{qkv}/lora_a", f"{qkv}/query_lora_b", "text/blocks/attention/prefix/virtual_keys"}
    still = {f"{qkv}/lora_e", f"{qkv}/key_ia3", "text/blocks/mlp/fc2/ia3"}
    assert decays(sorted(decayed | still)) == {path: path in decayed for path in sorted(decayed | still)}
