"""Where parameters, optimizer state and batch lie on the mesh, and how split weights are put together again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import tiny
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import CLIPConfig, DataConfig, OptimizerConfig, PreprocessConfig, Stage, TrainConfig
from biomedclip_jax.errors import UserError
from biomedclip_jax.models import abstract_model
from biomedclip_jax.sharding import (
    BATCH,
    all_rows,
    as_varying,
    first_row,
    gather_leaves,
    make_mesh,
    put_batch,
    shard_axes,
    shard_specs,
    state_shardings,
    sum_over_devices,
)
from biomedclip_jax.train.state import initial_state, optimizer_for

FULL = abstract_model(CLIPConfig())[1]
SMALL = abstract_model(tiny.MODEL)[1]


def axes_of(shapes: Any, fsdp: int) -> dict[str, int]:
    return flatten_dict(shard_axes(shapes, make_mesh(fsdp=fsdp)), sep="/")


# --- the mesh -------------------------------------------------------------------------------------------------------


def test_neighbours_share_a_copy() -> None:
    mesh = make_mesh(fsdp=2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
    assert mesh.devices.ravel().tolist() == jax.devices()
    assert dict(make_mesh(jax.devices()[:3]).shape) == {"data": 3, "fsdp": 1}


@pytest.mark.parametrize(("devices", "fsdp"), [(8, 3), (8, 16), (6, 4)])
def test_a_copy_that_does_not_fit_the_devices_is_refused(devices: int, fsdp: int) -> None:
    message = rf"^ShardingConfig\.fsdp = {fsdp}: expected a divisor of the number of devices, {devices}$"
    with pytest.raises(UserError, match=message):
        make_mesh(jax.devices()[:devices], fsdp)


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_rows_of_a_batch_lie_on_all_devices_in_order(fsdp: int) -> None:
    mesh = make_mesh(fsdp=fsdp)
    batch = put_batch({"x": np.arange(16), "y": np.arange(32).reshape(16, 2)}, mesh)
    assert [shard.data.tolist() for shard in batch["x"].addressable_shards] == [[2 * d, 2 * d + 1] for d in range(8)]

    def rows(x: Array) -> tuple[Array, Array]:
        return first_row(2)[None], all_rows(x)[None]

    first, everything = jax.jit(jax.shard_map(rows, mesh=mesh, in_specs=BATCH, out_specs=BATCH))(batch["x"])
    assert first.tolist() == list(range(0, 16, 2))
    assert np.array_equal(everything, np.tile(np.arange(16), (8, 1)))


# --- which axis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fsdp", [2, 4, 8])
@pytest.mark.parametrize("shapes", [FULL, SMALL], ids=["full size", "tiny"])
def test_matrices_are_split_along_their_largest_axis_and_never_along_depth(shapes: Any, fsdp: int) -> None:
    leaves, split = flatten_dict(shapes, sep="/"), 0
    for path, axis in axes_of(shapes, fsdp).items():
        first = int("/blocks/" in path)
        shape = leaves[path].shape
        if axis < 0:
            fits = len(shape) - first >= 2 and np.prod(shape[first:]) >= 1024
            assert not fits or all(n % fsdp for n in shape[first:]), path
            continue
        split += leaves[path].size
        assert path.split("/")[-1] in ("kernel", "word", "position", "token_type", "registers"), path
        assert axis >= first and shape[axis] % fsdp == 0
        assert shape[axis] == max(n for n in shape[first:] if n % fsdp == 0)
    assert split > (0.995 if shapes is FULL else 0.9) * sum(leaf.size for leaf in leaves.values())


@pytest.mark.parametrize("fsdp", [2, 4])
def test_known_axes(fsdp: int) -> None:
    axes = axes_of(FULL, fsdp)
    assert axes["image/blocks/attention/qkv/kernel"] == 2 and axes["image/blocks/mlp/fc2/kernel"] == 1
    assert axes["text/word"] == (0 if fsdp == 2 else 1), "30,522 rows: halves, but no quarters"
    assert axes["image/position"] == 1 and axes["logit_scale"] == axes["image/class_token"] == -1
    assert axes["image/blocks/attention/qkv/bias"] == axes["image/blocks/norm1/scale"] == -1


def test_nothing_is_split_on_a_mesh_without_fsdp() -> None:
    assert set(axes_of(FULL, 1).values()) == {-1}


@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_moments_and_average_lie_as_their_parameters(fsdp: int) -> None:
    stages = (Stage(8, steps=1, trainable=("text",)), Stage(8, steps=1))
    config = TrainConfig(
        "test",
        DataConfig("x"),
        stages,
        model=tiny.MODEL,
        preprocess=PreprocessConfig(image_size=16),
        optimizer=OptimizerConfig(ema=0.9, clip_norm=1.0),
    )
    mesh = make_mesh(fsdp=fsdp)
    state = jax.eval_shape(lambda params: initial_state(params, config, optimizer_for(config)), SMALL)
    lying = state_shardings(state, mesh)
    wanted = flatten_dict(shard_specs(SMALL, shard_axes(SMALL, mesh)), sep="/")
    assert {sharding.spec for sharding in jax.tree.leaves(lying)} == ({P()} if fsdp == 1 else {P(), *wanted.values()})
    found: dict[str, int] = dict.fromkeys(wanted, 0)
    for where, sharding in jax.tree_util.tree_leaves_with_path(lying):
        place = jax.tree_util.keystr(where, simple=True, separator="/")
        named = [path for path in wanted if f"/{place}".endswith(f"/{path}")]
        if not named:
            assert place == "step" or place.endswith("/count")
            assert sharding.spec == P()
            continue
        path = max(named, key=len)
        found[path] += 1
        assert sharding.spec == wanted[path], place
    assert set(found.values()) == {4}, "the parameter, two moments and the average of each"


# --- put together ---------------------------------------------------------------------------------------------------

WEIGHTS = {"a": (64, 32), "blocks": {"b": (3, 32, 48), "bias": (3, 48)}, "c": (5,)}


def weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), WEIGHTS, is_leaf=lambda x: isinstance(x, tuple))


def loss(whole: dict[str, Any], x: Array) -> Array:
    """Something that needs each weight, in their dtype; x is this device's row."""
    y = x @ whole["a"].astype(jnp.float32)
    for b, bias in zip(whole["blocks"]["b"], whole["blocks"]["bias"], strict=True):
        y = jnp.tanh(y @ b.astype(jnp.float32) + bias)[..., :32]
    return (y[..., :5] * whole["c"]).sum()


def with_gradient(fsdp: int, sliced: bool, dtype: str = "float32") -> tuple[Array, dict[str, Any]]:
    """Loss and gradient over eight rows, one a device. sliced: the blocks are gathered one by one."""
    mesh = make_mesh(fsdp=fsdp)
    axes = shard_axes(weights(), mesh)

    def whole(params: dict[str, Any]) -> dict[str, Any]:
        if not sliced:
            return gather_leaves(params, axes, dtype=dtype)
        rest = gather_leaves({"a": params["a"], "c": params["c"]}, {"a": axes["a"], "c": axes["c"]}, dtype=dtype)
        blocks = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(3)]
        gathered = [gather_leaves(block, axes["blocks"], 1, dtype) for block in blocks]
        return rest | {"blocks": jax.tree.map(lambda *parts: list(parts), *gathered)}

    def on_device(params: dict[str, Any], x: Array) -> tuple[Array, dict[str, Any]]:
        params = as_varying(params, axes)
        return sum_over_devices(*jax.value_and_grad(lambda p: loss(whole(p), x))(params), axes)

    specs = shard_specs(weights(), axes)
    run = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=(specs, BATCH), out_specs=(P(), specs)))
    return run(weights(), rows())


def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_gathered_weights_give_the_loss_and_gradient_of_whole_ones(fsdp: int, sliced: bool) -> None:
    value, gradient = with_gradient(fsdp, sliced)
    expected, wanted = jax.value_and_grad(loss)(weights(), rows())
    assert abs(value - expected) <= 1e-5 * abs(expected)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("fsdp", [2, 8])
def test_weights_travel_in_bfloat16_and_their_gradients_are_summed_in_float32(fsdp: int) -> None:
    mesh = make_mesh(fsdp=fsdp)
    params = {"a": np.full((32, 32), 1 + 2**-9, np.float32), "bias": np.full(32, 1 + 2**-9, np.float32)}
    axes = shard_axes(params, mesh)
    assert axes == {"a": 0, "bias": -1}

    def on_device(params: dict[str, Array], factor: Array) -> tuple[Array, dict[str, Array]]:
        def product(params: dict[str, Array]) -> Array:
            whole = gather_leaves(params, axes, dtype=jnp.bfloat16)
            assert whole["a"].dtype == jnp.bfloat16 and whole["bias"].dtype == jnp.float32
            return (factor * whole["a"].astype(jnp.float32)).sum() + (factor * whole["bias"]).sum()

        return sum_over_devices(*jax.value_and_grad(product)(as_varying(params, axes)), axes)

    specs = shard_specs(params, axes)
    run = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=(specs, BATCH), out_specs=(P(), specs)))
    # each is a bfloat16, but not their sum 263, nor the weight
    value, gradient = run(params, np.array([256] + [1] * 7, np.float32))
    assert float(value) == 263 * (32 * 32 + 32 * (1 + 2**-9))
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.float32 and np.all(leaf == 263)


def test_the_gather_sends_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the bytes: seen in what the collectives are given."""
    sent: list[Any] = []
    gather, scatter = lax.all_gather, lax.psum_scatter

    def note(kind: str, function: Any) -> Any:
        def noted(x: Array, *args: Any, **options: Any) -> Array:
            sent.append((kind, str(x.dtype)))
            return function(x, *args, **options)

        return noted

    monkeypatch.setattr(lax, "all_gather", note("gather", gather))
    monkeypatch.setattr(lax, "psum_scatter", note("scatter", scatter))
    with_gradient(2, False, "bfloat16")
    assert set(sent) == {("gather", "bfloat16"), ("scatter", "float32")}


def test_small_and_odd_matrices_stay_whole() -> None:
    shapes = {"small": (31, 33), "odd": (35, 45), "large": (32, 33), "blocks": {"small": (100, 31, 33)}}
    leaves = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple))
    found = axes_of(leaves, 2)
    # judged by the size of one block, not of the stack
    assert found == {"small": -1, "odd": -1, "large": 0, "blocks/small": -1}
