"""A short name for the numbers in parameters, by which one set of weights is told from another."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_SEEDS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)


def fingerprint(leaves: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of {path: array}: of the paths, the shapes and every bit of the float32 numbers.

    The same however the arrays are split over devices, and made without bringing them together. It finds other
    weights, not an attacker.
    """
    paths = sorted(leaves)
    sums = [np.asarray(x) for x in jax.jit(lambda arrays: [_sums(x) for x in arrays])([leaves[path] for path in paths])]
    digest = hashlib.sha256()
    for path, found in zip(paths, sums, strict=True):
        digest.update(f"{path} {leaves[path].shape} ".encode() + found.tobytes())
    return digest.hexdigest()[:32]


def _sums(x: Array) -> Array:
    """uint32 [4]: sums of mixtures of each number's bits with its position. Whole numbers: the order does not matter."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    position = jnp.uint32(0)
    for axis, size in enumerate(x.shape):
        position = position * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    found = []
    for seed in _SEEDS:
        mixed = (bits ^ (position * jnp.uint32(seed))) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(seed)
        found.append(jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32))
    return jnp.stack(found)
