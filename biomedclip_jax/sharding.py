"""The mesh, and how state and batch are sharded over it. No other file names an axis.

Two axes: `data` and `fsdp`. The batch is split over both. Parameters and optimizer state are whole copies along
`data`; along `fsdp` each large matrix is split, and put together where it is used (`gather_leaves`). fsdp = 1 is
plain data parallelism. `shard_axes` knows only path and shape, so a checkpoint restores onto any mesh.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, Shaped

from biomedclip_jax.errors import UserError

DATA, FSDP = "data", "fsdp"
AXES = (DATA, FSDP)
BATCH = P(AXES)  # rows of a batch: split over every device

_STACKED = "blocks"  # parameters below this key carry the depth as first axis, which is never split
_SMALLEST = 1_024  # numbers of a matrix (of one block) from which on splitting it is worth a collective

Tree = Any


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """All devices (of all hosts): neighbours along `fsdp`, groups of them along `data`. UserError if fsdp does not fit."""
    devices = devices or jax.devices()
    if len(devices) % fsdp:
        raise UserError(f"ShardingConfig.fsdp = {fsdp}: expected a divisor of the number of devices, {len(devices)}")
    # a torus of TPUs may have to be split across an axis for this shape, which jax.make_mesh does on some kinds only
    grid = create_device_mesh((len(devices) // fsdp, fsdp), list(devices), allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that is whole on every device."""
    return NamedSharding(mesh, P())


def rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch, whose first axis is split over all devices."""
    return NamedSharding(mesh, BATCH)


def rows_on_host(mesh: Mesh) -> NamedSharding:
    """As `rows`, of a matrix [B, n] that waits in each device's part of the host's memory."""
    return NamedSharding(mesh, P(AXES, None), memory_kind="pinned_host")


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, on_host: tuple[str, ...] = ()) -> dict[str, jax.Array]:
    """Global arrays, split over all devices, from this host's rows of a batch. on_host: those that wait in its memory."""
    shardings = {name: rows_on_host(mesh) if name in on_host else rows(mesh) for name in batch}
    return {name: jax.make_array_from_process_local_data(shardings[name], array) for name, array in batch.items()}


# --- parameters -----------------------------------------------------------------------------------------------------


def shard_axes(params: Tree, mesh: Mesh) -> Tree:
    """The axis along which each parameter is split over `fsdp`; -1: a whole copy everywhere.

    Matrices and embedding tables are split along their largest axis that divides evenly; biases, norms, single vectors and
    small matrices are not. `params`: nested dict of arrays or of `jax.ShapeDtypeStruct`.
    """
    parts = mesh.shape[FSDP]

    def axis(path: tuple[Any, ...], leaf: Any) -> int:
        first = int(_STACKED in jax.tree_util.keystr(path, simple=True, separator="/").split("/"))
        shape = leaf.shape[first:]
        if parts == 1 or len(shape) < 2 or np.prod(shape) < _SMALLEST:
            return -1
        fitting = [n for n in shape if n % parts == 0]
        return first + shape.index(max(fitting)) if fitting else -1

    return jax.tree_util.tree_map_with_path(axis, params)


def shard_specs(params: Tree, axes: Tree) -> Tree:
    """PartitionSpecs of parameters that are split along `axes`."""
    return jax.tree.map(lambda _, axis: P(*[None] * axis, FSDP) if axis >= 0 else P(), params, axes)


def state_shardings(state: Tree, mesh: Mesh) -> Tree:
    """NamedSharding of each leaf of a training state: what has a parameter's path and shape is sharded as the parameter is.

    The moments of the optimizer and the moving average repeat the structure of the parameters, so the rule of `shard_axes`
    gives the same answer for them; counters are scalars and are replicated.
    """
    specs = shard_specs(state, shard_axes(state, mesh))
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))


def placed(shapes: Tree, mesh: Mesh) -> Tree:
    """Shapes and dtypes of a state or of parameters, with the sharding of each leaf."""
    shardings = state_shardings(shapes, mesh)
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings)


# --- inside `jax.shard_map` over the mesh -----------------------------------------------------------------------------


def first_row(here: int) -> Int[Array, ""]:
    """The first of this device's rows of the batch, where each device holds `here` rows."""
    return lax.axis_index(AXES) * here


def device_count() -> int:
    """The number of devices of the mesh, inside `jax.shard_map`."""
    return lax.axis_size(AXES)


def all_rows(x: Shaped[Array, "n ..."]) -> Shaped[Array, "B ..."]:
    """The rows of all devices, on every device. Its transpose sums and scatters the gradient back."""
    return lax.all_gather(x, AXES, tiled=True)


def as_varying(params: Tree, axes: Tree) -> Tree:
    """Parameters as values of each device's own, so that differentiating them brings in no collective."""
    return jax.tree.map(lambda x, axis: lax.pcast(x, AXES if axis < 0 else DATA, to="varying"), params, axes)


def gather_leaves(params: Tree, axes: Tree, first: int = 0, dtype: Any = jnp.float32) -> Tree:
    """Split parameters -> whole ones, in `dtype` or in their own if that is narrower; they travel so, gradients in float32.

    first: leading axes that have been sliced off since `axes` was made.
    """

    def whole(x: Array, axis: int) -> Array:
        narrow = min(x.dtype, jnp.dtype(dtype), key=lambda kind: kind.itemsize)
        return x if axis < 0 else _gather(x, axis - first, narrow)

    return jax.tree.map(whole, params, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: Array, axis: int, dtype: np.dtype) -> Array:
    return lax.all_gather(x.astype(dtype), FSDP, axis=axis, tiled=True)


def _gather_backward(axis: int, dtype: np.dtype, _: None, gradient: Array) -> tuple[Array]:
    return (lax.psum_scatter(gradient.astype(jnp.float32), FSDP, scatter_dimension=axis, tiled=True),)


_gather.defvjp(lambda x, axis, dtype: (_gather(x, axis, dtype), None), _gather_backward)


def sum_over_devices(loss: Float[Array, ""], gradients: Tree, axes: Tree) -> tuple[Float[Array, ""], Tree]:
    """The loss and gradient of the whole batch from each device's share, in one reduction a kind of leaf.

    The transpose of `gather_leaves` has summed the gradient of a split parameter over `fsdp` already.
    """
    leaves, tree = jax.tree.flatten(gradients)
    split = [axis >= 0 for axis in jax.tree.leaves(axes)]
    loss, *whole = lax.psum([loss, *(x for x, s in zip(leaves, split, strict=True) if not s)], AXES)
    parts = iter(lax.psum([x for x, s in zip(leaves, split, strict=True) if s], DATA))
    rest = iter(whole)
    return loss, jax.tree.unflatten(tree, [next(parts) if s else next(rest) for s in split])
