"""The mesh, and where state and batch lie on it. No other file names an axis."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (of all hosts) along one axis, over which the batch is split; parameters are replicated."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def rows(mesh: Mesh) -> NamedSharding:
    """First axis split over all devices."""
    return NamedSharding(mesh, P(DATA))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows of a batch -> global arrays, split over all devices."""
    return {name: jax.make_array_from_process_local_data(rows(mesh), array) for name, array in batch.items()}
