"""The update: the same loss and gradient however it is split up, and a program without communication inside its loops."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

from biomedclip_jax.config import OptimizerConfig, Stage
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop import open_clip
from biomedclip_jax.interop.layout import flatten, from_params
from biomedclip_jax.models import abstract_model, init_params
from biomedclip_jax.sharding import make_mesh, put_batch, replicated
from biomedclip_jax.train.step import MAX_LOGIT_SCALE, State, check_stage, decays, loss_and_gradient, make_optimizer, make_step

ROWS = 64  # the fewest that 8 devices x 8 microbatches can share
Result = tuple[float, dict[str, np.ndarray]]


def stage(microbatches: int) -> Stage:
    return Stage(ROWS, steps=1, microbatch=ROWS // microbatches, patch_keep=0.5)


@functools.cache
def parameters() -> dict[str, Any]:
    """Random everywhere: biases and norms start at 0 and 1, where a mistake with them would not show."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x + 0.05 * rng.normal(size=x.shape), np.float32), init_params(tiny.MODEL, 0))


@functools.cache
def gradient(devices: int, microbatches: int) -> Callable[[dict[str, np.ndarray]], Result]:
    graph, _ = abstract_model(tiny.MODEL)
    mesh = make_mesh(jax.devices()[:devices])
    run = jax.jit(loss_and_gradient(graph, mesh, stage(microbatches), seed=0))

    def on_batch(batch: dict[str, np.ndarray]) -> Result:
        loss, gradients = run(parameters(), put_batch(batch, mesh))
        return float(loss), {name: np.asarray(leaf) for name, leaf in flatten(gradients).items()}

    return on_batch


def assert_same(ours: Result, expected: Result) -> None:
    assert abs(ours[0] - expected[0]) <= 1e-5 * expected[0]
    for name, leaf in expected[1].items():
        assert np.abs(leaf).max() > 1e-3, f"{name}: no leaf's true gradient is zero, or rounding would be compared"
        assert np.abs(ours[1][name] - leaf).max() <= 1e-5 * np.abs(leaf).max(), name


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_accumulation_is_exact(microbatches: int) -> None:
    batch = tiny.batch(ROWS)
    assert_same(gradient(8, microbatches)(batch), gradient(8, 1)(batch))


def test_one_device_is_eight_devices() -> None:
    batch = tiny.batch(ROWS)
    assert_same(gradient(1, 1)(batch), gradient(8, 1)(batch))


def test_randomness_belongs_to_the_example_not_to_its_place() -> None:
    batch = tiny.batch(ROWS)
    loss, _ = gradient(8, 1)(batch)
    order = np.random.default_rng(1).permutation(ROWS)
    moved, _ = gradient(8, 1)({name: array[order] for name, array in batch.items()})
    assert abs(moved - loss) <= 1e-6 * loss
    # the images and captions move, the draws stay: dropout and patch drop are on, so this is another loss
    other, _ = gradient(8, 1)(batch | {"index": batch["index"][order]})
    assert abs(other - loss) > 1e-4 * loss
    later, _ = gradient(8, 1)(batch | {"index": batch["index"] + ROWS})
    assert abs(later - loss) > 1e-4 * loss


# --- the compiled program -------------------------------------------------------------------------------------------

RATE = 1e-3


def rate(step: Any) -> jax.Array:
    return jnp.float32(RATE)


@functools.cache
def compiled_step() -> Any:
    """One update with two microbatches on eight devices, compiled: its text is read, and it is run."""
    graph, shapes = abstract_model(tiny.MODEL)
    optimizer = make_optimizer(OptimizerConfig(), rate)
    step = make_step(graph, make_mesh(), stage(2), optimizer, rate, seed=0)
    state = {"params": shapes, "opt": jax.eval_shape(optimizer.init, shapes), "step": jax.ShapeDtypeStruct((), jnp.int32)}
    return step.lower(state, tiny.batch(ROWS)).compile()


def collectives_in_loops(text: str) -> list[str]:
    """Kinds of the collectives of an HLO text in computations that a loop reaches."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        header = re.match(r"(?:ENTRY )?%?([\w.\-]+).*\{$", line)
        if header:
            lines = computations.setdefault(header[1], [])
        else:
            lines.append(line)

    def named(name: str, roles: str) -> list[str]:
        return re.findall(rf"(?:{roles})=\{{?%?([\w.\-]+)", "\n".join(computations[name]))

    inside: set[str] = set()
    waiting = [loop for name in computations for loop in named(name, "body|condition")]
    assert waiting, "no loop at all in this text: the scans were unrolled, or HLO is now written in another way"
    while waiting:
        name = waiting.pop()
        if name not in inside:
            inside.add(name)
            waiting += named(name, "body|condition|calls|to_apply|true_computation|false_computation")
    kinds = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
    return [found[1] for name in inside for line in computations[name] if (found := kinds.search(line))]


def test_no_collective_inside_a_loop() -> None:
    text = compiled_step().as_text()
    assert collectives_in_loops(text) == []
    assert " all-reduce(" in text and " all-gather(" in text, "outside the loops there must be some"


def test_the_search_finds_a_collective_inside_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: parameters that are not made device-varying have their gradients summed in every turn of the scans."""
    monkeypatch.setattr(lax, "pcast", lambda x, *_, **__: x)
    graph, shapes = abstract_model(tiny.MODEL)
    run = jax.jit(loss_and_gradient(graph, make_mesh(), stage(2), seed=0))
    assert "all-reduce" in collectives_in_loops(run.lower(shapes, tiny.batch(ROWS)).compile().as_text())


# --- what an update does --------------------------------------------------------------------------------------------


def update(logit_scale: float) -> tuple[State, State, dict[str, jax.Array]]:
    """State before (donated, so gone), state after, metrics."""
    mesh = make_mesh()
    params = parameters() | {"logit_scale": np.float32(logit_scale)}
    state = {"params": params, "opt": make_optimizer(OptimizerConfig(), rate).init(params), "step": jnp.int32(0)}
    # a copy, so that no NumPy view of the parameters keeps a buffer alive
    state = jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=replicated(mesh))(state)
    after, metrics = compiled_step()(state, put_batch(tiny.batch(ROWS), mesh))
    return state, after, metrics


def test_state_is_donated() -> None:
    before, after, _ = update(2.0)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert int(after["step"]) == 1


@pytest.mark.parametrize(("start", "end"), [(5.0, MAX_LOGIT_SCALE), (-0.5, 0.0)])
def test_logit_scale_is_clamped(start: float, end: float) -> None:
    _, after, _ = update(start)
    assert float(after["params"]["logit_scale"]) == np.float32(end)


def test_metrics_are_those_of_the_state_that_went_in() -> None:
    _, after, metrics = update(float(parameters()["logit_scale"]))
    loss, gradients = gradient(8, 1)(tiny.batch(ROWS))
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in gradients.values()))
    scale = np.exp(parameters()["logit_scale"])
    expected = {"loss": loss, "grad_norm": norm, "logit_scale": scale, "learning_rate": RATE}
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(float(metrics[name]) - value) <= 1e-5 * value, name
    # Adam's first update has the size of the rate and the sign of the gradient; the temperature is not decayed besides
    moved = float(after["params"]["logit_scale"]) - parameters()["logit_scale"]
    assert abs(moved + RATE * np.sign(gradients["logit_scale"])) <= 1e-3 * RATE


def test_decay_is_open_clips_rule_by_name() -> None:
    """open_clip leaves out what has fewer than two axes, and norms, biases and the temperature. Ours are stacked over depth."""
    image = dataclasses.replace(tiny.MODEL.image, patch_bias=True, registers=2, layer_scale=True, position_on_prefix=False)
    model = dataclasses.replace(tiny.MODEL, image=image)
    params = init_params(model, 0)
    ours = flatten(decays(params))
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
        *("bias", "scale", "scale1", "scale2", "logit_scale"),
    }


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_optimizer_is_torchs_adamw(clip_norm: float | None) -> None:
    import torch

    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    config = OptimizerConfig(learning_rate=1e-2, clip_norm=clip_norm)
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [
        {"params": [theirs["kernel"]], "weight_decay": config.weight_decay},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.eps)
    optimizer = make_optimizer(config, lambda step: jnp.float32(config.learning_rate))
    ours = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = optimizer.init(ours)
    for size in (0.1, 1.0, 3.0):  # below and above what is clipped
        gradients = {name: size * rng.normal(size=value.shape) for name, value in start.items()}
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name])
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(theirs.values()), clip_norm)
        adamw.step()
        updates, state = optimizer.update({name: jnp.float32(g) for name, g in gradients.items()}, state, ours)
        ours = {name: value + updates[name] for name, value in ours.items()}
    for name, parameter in theirs.items():
        moved = parameter.detach().numpy() - start[name]
        assert np.abs(ours[name] - start[name] - moved).max() <= 1e-4 * np.abs(moved).max(), name


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    check_stage(Stage(64, steps=1, microbatch=16), devices=8)
    with pytest.raises(UserError, match=r"batch_size = 64: expected a multiple of 6 devices x 1 microbatches"):
        check_stage(Stage(64, steps=1), devices=6)
    with pytest.raises(UserError, match=r"8 devices x 16 microbatches = 128"):
        check_stage(Stage(64, steps=1, microbatch=4), devices=8)
