"""The update: the same loss and gradient however it is split up, and a program that communicates only where it must."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import tiny
from helpers.tiny_step import QUICKLY, ROWS, Way, assert_same, collectives_in_loops, compiled, kept, parameters, program, result

from biomedclip_jax.config import (
    Adaptation,
    ClipTextConfig,
    IA3Config,
    LoRAConfig,
    PrefixConfig,
    Sigmoid,
    Stage,
    TrainConfig,
    check_stage,
)
from biomedclip_jax.errors import UserError
from biomedclip_jax.models.adapters import is_adapter
from biomedclip_jax.sharding import as_varying, put_batch
from biomedclip_jax.train import _gradient as gradient
from biomedclip_jax.train._gradient import loss_and_gradient
from biomedclip_jax.train.optimizer import Optimizer
from biomedclip_jax.train.state import TrainState, initial_state, optimizer_for
from biomedclip_jax.train.step import MAX_LOGIT_SCALE, make_step
from biomedclip_jax.train.text_buckets import Bucket

# --- the same numbers, with dropout and patch drop on ---------------------------------------------------------------


@pytest.mark.parametrize("microbatches", [1, 2, 4, 8])
def test_accumulation_on_eight_devices_is_one_device_and_one_batch(microbatches: int) -> None:
    way = Way(microbatches=microbatches)
    assert_same(result(way), result(way.plain))


SPLIT = [
    Way(fsdp=2),
    Way(fsdp=2, microbatches=2, remat="full"),
    Way(fsdp=4, microbatches=4),
    Way(fsdp=8, microbatches=2, remat="dots"),
    Way(fsdp=4, microbatches=4, gather="step", remat="dots"),
    Way(fsdp=8, gather="step"),
]


def named(ways: Sequence[Way]) -> list[str]:
    return [f"fsdp {w.fsdp}, {w.gather}, {w.microbatches} microbatches, remat {w.remat}" for w in ways]


@pytest.mark.parametrize("way", SPLIT, ids=named(SPLIT))
def test_split_weights_are_whole_ones(way: Way) -> None:
    lying = jax.tree.leaves(program(way).input_shardings[0][0])
    assert sum("fsdp" in sharding.spec for sharding in lying) == 10, "the matrices are split: five in each tower"
    assert_same(result(way), result(way.plain))


def test_randomness_belongs_to_the_example_not_to_its_place() -> None:
    batch = tiny.batch(ROWS)
    loss, _ = result(Way(), batch)
    order = np.random.default_rng(1).permutation(ROWS)
    moved, _ = result(Way(), {name: array[order] for name, array in batch.items()})
    assert abs(moved - loss) <= 1e-6 * loss
    # the images and captions move, the draws stay: dropout and patch drop are on, so this is another loss
    other, _ = result(Way(), batch | {"index": batch["index"][order]})
    assert abs(other - loss) > 1e-4 * loss
    later, _ = result(Way(), batch | {"index": batch["index"] + ROWS})
    assert abs(later - loss) > 1e-4 * loss


TRAINABLE = ("text_head", "image/blocks/attention", "text/word", "logit_scale")


def test_the_gradient_of_some_parameters_is_that_of_all() -> None:
    way = Way(fsdp=2, microbatches=2, trainable=TRAINABLE)
    found = result(way)
    assert {"/".join(path.split("/")[:3]) for path in found[1]} == {
        *("text_head/fc1/kernel", "text_head/fc2/kernel", "image/blocks/attention", "text/word", "logit_scale"),
    }
    assert_same(found, result(way.plain))


# --- adapters on a frozen base ---------------------------------------------------------------------------------------

LOW_RANK = LoRAConfig(rank=40, targets=("attention/qkv", "mlp/*"))  # no array of it has the size of a kernel
WITH_LORA = Adaptation(LOW_RANK, LOW_RANK)
WITH_OTHERS = Adaptation(PrefixConfig(tokens=3), IA3Config())
LEARNING = ("*lora*", "*prefix*", "*ia3", "*_head", "logit_scale")
LORA_WAYS = {
    "microbatches": Way(microbatches=4, adaptation=WITH_LORA, trainable=(LEARNING[0], *LEARNING[3:])),
    "split by layer": Way(fsdp=2, microbatches=2, remat="dots", adaptation=WITH_LORA, trainable=(LEARNING[0], *LEARNING[3:])),
    "gathered once, other kinds": Way(fsdp=4, gather="step", adaptation=WITH_OTHERS, trainable=LEARNING[1:]),
}


@pytest.mark.parametrize("way", LORA_WAYS.values(), ids=LORA_WAYS)
def test_adapters_learn_the_same_however_the_work_is_split(way: Way) -> None:
    found = result(way)
    assert {path for path in parameter_paths(way) if is_adapter(path)} < found[1].keys()
    assert_same(found, result(way.plain))


def parameter_paths(way: Way) -> list[str]:
    return list(flatten_dict(parameters(way.model, way.adaptation), sep="/"))


def test_frozen_matrices_are_gathered_but_have_no_gradient() -> None:
    way = LORA_WAYS["split by layer"]
    found = collectives_in_loops(program(way).as_text())
    of_adapters = {32 * 40, 40 * 96, 40 * 64}
    assert {n for kind, sizes in found for n in sizes if kind == "all-gather"} == of_adapters | {32 * 96, 32 * 32, 32 * 64}
    assert {n for kind, sizes in found for n in sizes if kind == "reduce-scatter"} == {n // 2 for n in of_adapters}


def test_a_frozen_base_in_bfloat16_is_the_rounded_base() -> None:
    way = dataclasses.replace(LORA_WAYS["split by layer"], frozen_dtype="bfloat16")
    halves = flatten_dict(kept(way, parameters(way.model, way.adaptation)), sep="/")
    assert {path.rpartition("/")[2] for path, x in halves.items() if x.dtype == jnp.bfloat16} == {"kernel", "word"}
    assert all(x.dtype == jnp.float32 for path, x in halves.items() if path in result(way)[1])
    same = unflatten_dict({path: np.asarray(x, np.float32) for path, x in halves.items()}, sep="/")
    assert_same(result(way), result(way.plain, params=same))


# --- captions in buckets --------------------------------------------------------------------------------------------

# of the 64 captions 17 have at most 3 tokens; 7 have 8, so that the batch as it is does not fit
BUCKETED = Way(buckets=(Bucket(2, 3, 1), Bucket(6, 7, 1)))


def short_captions() -> dict[str, np.ndarray]:
    """A batch that fits: its longest captions lose the last token."""
    batch = tiny.batch(ROWS)
    batch["tokens"][:, 7] = 0
    return batch


CAUSAL = dataclasses.replace(
    tiny.MODEL,
    text=ClipTextConfig(vocab_size=50, context_length=8, width=32, depth=2, heads=4, mlp_width=64),
    text_head="linear",
    init_logit_bias=-3.0,
)
WITH_BUCKETS = {
    "BERT": BUCKETED,
    "split weights, microbatches": Way(fsdp=2, microbatches=2, buckets=(Bucket(2, 3, 1), Bucket(6, 7, 2))),
    "CLIP's own tower, sigmoid, weights gathered once": dataclasses.replace(
        BUCKETED, fsdp=4, gather="step", loss=Sigmoid(), model=CAUSAL
    ),
}


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("way", WITH_BUCKETS.values(), ids=WITH_BUCKETS.keys())
def test_captions_in_buckets_are_padded_captions(way: Way, fits: bool) -> None:
    batch = short_captions() if fits else tiny.batch(ROWS)
    assert_same(result(way, batch), result(way.plain, batch))


def test_only_a_batch_that_fits_is_computed_in_buckets() -> None:
    """Seen by a poisoned last row of the position table, which the buckets never read."""
    params = unflatten_dict(
        flatten_dict(parameters(), sep="/") | {"text/position": parameters()["text"]["position"].copy()}, sep="/"
    )
    params["text"]["position"][7] = np.nan
    assert np.isfinite(result(BUCKETED, short_captions(), params)[0])
    assert np.isnan(result(BUCKETED, tiny.batch(ROWS), params)[0])


# --- the compiled program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Way(microbatches=2), BUCKETED, SPLIT[4]], ids=["whole", "buckets", "gathered once"])
def test_no_collective_inside_a_loop(way: Way) -> None:
    text = program(way).as_text()
    assert collectives_in_loops(text) == []
    assert " all-reduce(" in text and " all-gather(" in text, "outside the loops there must be some"


BY_LAYER = [SPLIT[2], SPLIT[3], WITH_BUCKETS["split weights, microbatches"]]


@pytest.mark.parametrize("way", BY_LAYER, ids=[*named(BY_LAYER[:2]), "buckets"])
def test_split_weights_alone_are_sent_inside_loops(way: Way) -> None:
    """Matrices of one block are gathered and their gradients scattered; activations stay where they are."""
    matrices = {32 * 96, 32 * 32, 32 * 64}
    found = collectives_in_loops(program(way).as_text())
    assert {kind for kind, _ in found} == {"all-gather", "reduce-scatter"}
    assert {n for kind, sizes in found for n in sizes if kind == "all-gather"} == matrices
    assert {n for kind, sizes in found for n in sizes if kind == "reduce-scatter"} == {n // way.fsdp for n in matrices}


@pytest.mark.parametrize(("way", "times"), [(SPLIT[0], 2), (SPLIT[2], 3)], ids=named([SPLIT[0], SPLIT[2]]))
def test_whole_weights_are_not_kept_for_the_backward_pass(way: Way, times: int) -> None:
    """Four matrices in each tower are gathered once more there; with microbatches, whose forward pass is repeated, twice."""
    kinds = [kind for kind, sizes in collectives_in_loops(program(way).as_text()) for _ in sizes]
    assert kinds.count("reduce-scatter") == 8 and kinds.count("all-gather") == times * 8


def test_the_search_finds_a_collective_inside_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: arrays that are not made device-varying have their gradients summed in every turn of the scans."""

    def as_they_are(params: dict[str, Any], axes: dict[str, Any]) -> dict[str, Any]:
        # but for the temperature: the loss itself refuses one that is not varying
        return params | as_varying({"logit_scale": params["logit_scale"]}, {"logit_scale": -1})

    monkeypatch.setattr(gradient, "as_varying", as_they_are)
    way = Way(microbatches=2)
    text = compiled(loss_and_gradient(way.config(), way.stage(), way.mesh()), way).as_text()
    assert "all-reduce" in {kind for kind, _ in collectives_in_loops(text)}


# --- what an update does --------------------------------------------------------------------------------------------

RATE = 1e-3
EMA = 0.75


def rate(step: Any) -> jax.Array:
    return jnp.float32(RATE)


def batch_with_signal() -> dict[str, np.ndarray]:
    return tiny.batch(ROWS) | {"signal": np.array([0, 2] + [1] * (ROWS - 2), np.int32)}


PARTLY = ("text_head", "image/blocks/attention", "logit_scale")


def setting(kind: str) -> tuple[Way, TrainConfig]:
    """ "whole": each device has all weights and trains them. "split": weights in halves, an average, only some are trained."""
    if kind == "whole":
        way = Way(microbatches=2)
        return way, way.config()
    way = Way(microbatches=2, fsdp=2, trainable=PARTLY)
    later = Stage(ROWS, steps=1, trainable=("text/blocks", "text_head"))
    config = way.config(ema=EMA)
    return way, dataclasses.replace(config, stages=(*config.stages, later))


@functools.cache
def compiled_step(kind: str) -> tuple[Any, TrainConfig, Optimizer]:
    way, config = setting(kind)
    optimizer = optimizer_for(config)
    run = make_step(config, 0, way.mesh(), optimizer, rate)
    state = jax.eval_shape(lambda p: initial_state(p, config, optimizer), parameters())
    return run.lower(state, put_batch(batch_with_signal(), way.mesh())).compile(QUICKLY), config, optimizer


def update(kind: str, logit_scale: float = 2.0) -> tuple[TrainState, TrainState, dict[str, jax.Array]]:
    """TrainState before (donated, so gone), state after, metrics."""
    run, config, optimizer = compiled_step(kind)
    state = initial_state(parameters() | {"logit_scale": np.float32(logit_scale)}, config, optimizer)
    # a copy, so that no NumPy view of the parameters keeps a buffer alive
    state = jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=run.input_shardings[0][0])(state)
    after, metrics = run(state, put_batch(batch_with_signal(), setting(kind)[0].mesh()))
    return state, after, metrics


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_state_is_donated(kind: str) -> None:
    before, after, _ = update(kind)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert int(after.step) == 1
    # it lies as it did, ready for the next update
    wanted = compiled_step(kind)[0].input_shardings[0][0]
    assert jax.tree.map(lambda x, lies: x.sharding == lies, after, wanted) == jax.tree.map(lambda _: True, wanted)


@pytest.mark.parametrize(("start", "end"), [(5.0, MAX_LOGIT_SCALE), (-0.5, 0.0)])
def test_logit_scale_is_clamped(start: float, end: float) -> None:
    _, after, _ = update("whole", start)
    assert float(after.params["logit_scale"]) == np.float32(end)


def test_metrics_are_those_of_the_state_that_went_in() -> None:
    _, after, metrics = update("whole", float(parameters()["logit_scale"]))
    loss, gradients = result(Way())
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in gradients.values()))
    scale = np.exp(parameters()["logit_scale"])
    expected = {"loss": loss, "grad_norm": norm, "logit_scale": scale, "learning_rate": RATE, "signal": 2}
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(float(metrics[name]) - value) <= 1e-5 * value, name
    # Adam's first update has the size of the rate and the sign of the gradient; the temperature is not decayed besides
    moved = float(after.params["logit_scale"]) - parameters()["logit_scale"]
    assert abs(moved + RATE * np.sign(gradients["logit_scale"])) <= 1e-3 * RATE


def test_what_is_frozen_stays_as_it_is() -> None:
    _, after, _ = update("split")
    before, new = flatten_dict(parameters() | {"logit_scale": np.float32(2.0)}, sep="/"), flatten_dict(after.params, sep="/")
    moved = {path for path in new if not np.array_equal(before[path], new[path])}
    assert moved == set(compiled_step("split")[2].trained(0))
    assert {path.split("/")[0] for path in moved} == {"text_head", "image", "logit_scale"}

    def numbers(*patterns: str) -> int:
        return sum(leaf.size for path, leaf in before.items() if path.startswith(patterns))

    # two moments and a count for each set: what both stages train, what the first does, what the second does
    sets = {
        "stages 0": numbers("image/blocks/attention", "logit_scale"),
        "stages 0,1": numbers("text_head"),
        "stages 1": numbers("text/blocks"),
    }
    assert {name: sum(x.size for x in jax.tree.leaves(opt)) for name, opt in after.opt.items()} == {
        name: 2 * size + 1 for name, size in sets.items()
    }
    assert not any(np.any(x) for x in jax.tree.leaves(after.opt["stages 1"])), "it begins with the second stage"
    # the average has what is trained at all, and follows what moved
    assert sum(x.size for x in after.ema.values()) == sum(sets.values())
    for path, average in after.ema.items():
        expected = EMA * before[path] + (1 - EMA) * np.asarray(new[path]) if path in moved else before[path]
        assert np.abs(average - expected).max() <= 1e-7 * np.abs(expected).max(), path


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    check_stage(Stage(64, steps=1, microbatch=16), devices=8)
    with pytest.raises(UserError, match=r"batch_size = 64: expected a multiple of 6 devices x 1 microbatches"):
        check_stage(Stage(64, steps=1), devices=6)
    with pytest.raises(UserError, match=r"8 devices x 16 microbatches = 128"):
        check_stage(Stage(64, steps=1, microbatch=4), devices=8)
