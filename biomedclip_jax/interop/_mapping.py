"""Parameters under foreign names: a table of entries, read in both directions, with every key accounted for.

An `Entry` says which foreign tensors make one of our arrays. Only transposes, joins and reshapes are used, so a round
trip is bit-equal.
"""

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.errors import UserError
from biomedclip_jax.interop._state_dict import say

_MOST = math.log(100)  # of CLIP's logit_scale

Form = Literal["same", "linear", "patch", "conv", "point", "channels", "batch1", "batch2"]


@dataclass(frozen=True)
class Entry:
    """`path` in our parameter tree <- foreign `names`, a row of names a block (one row in all where nothing is stacked).

    Names in one row are joined along the output axis (separate query, key and value become one kernel), of which each
    takes the same share, or that many as `shares` says (1, 2: queries, then keys and values together). Forms:
    "same"; "linear" (PyTorch [out, in] -> [in, out]); "patch" (convolution [D, 3, P, P] -> [P·P·3, D]);
    "conv" (PyTorch [out, in, h, w] -> [h, w, in, out]); "point" (a 1x1 convolution [out, in, 1, 1] -> [in, out]);
    "channels" ([1, D, 1, 1] -> [D]); "batch1", "batch2" (leading axes of length 1).
    """

    path: str
    names: tuple[tuple[str, ...], ...]
    form: Form = "same"
    shares: tuple[int, ...] = ()

    def parts(self, row: np.ndarray) -> list[np.ndarray]:
        """A view of what each name of a row has of our array."""
        shares = np.array(self.shares or (1,) * len(self.names[0]))
        return np.split(row, np.cumsum(row.shape[-1] * shares // shares.sum())[:-1], axis=-1) if len(shares) > 1 else [row]


@dataclass
class Report:
    """What a conversion did with each foreign key."""

    used: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # name -> why


def one(path: str, name: str, form: Form = "same") -> Entry:
    """An entry for an array that is not stacked."""
    return Entry(path, ((name,),), form)


def stacked(path: str, depth: int, *patterns: str, form: Form = "same") -> Entry:
    """An entry for a stacked array; `{}` in a pattern is the number of the block."""
    return Entry(path, tuple(tuple(p.format(i) for p in patterns) for i in range(depth)), form)


def norm(path: str, name: str, depth: int = 1) -> list[Entry]:
    """The two entries of a LayerNorm."""
    return [stacked(f"{path}/scale", depth, f"{name}.weight"), stacked(f"{path}/bias", depth, f"{name}.bias")]


def dense(path: str, name: str | tuple[str, ...], depth: int = 1, *, bias: bool = True) -> list[Entry]:
    """The entries of a dense layer; several names (query, key, value) are joined into one layer."""
    names = (name,) if isinstance(name, str) else name
    kernel = stacked(f"{path}/kernel", depth, *(f"{n}.weight" for n in names), form="linear")
    return [kernel, stacked(f"{path}/bias", depth, *(f"{n}.bias" for n in names))] if bias else [kernel]


def _ours(tensor: np.ndarray, form: Form) -> np.ndarray:
    if form == "linear":
        return tensor.T
    if form == "patch":
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    if form == "conv":
        return tensor.transpose(2, 3, 1, 0)
    if form == "point":
        return tensor.reshape(len(tensor), -1).T
    if form == "channels":
        return tensor.reshape(-1)
    if form in ("batch1", "batch2"):
        return tensor.reshape(tensor.shape[int(form[-1]) :])
    return tensor


def _theirs(array: np.ndarray, form: Form) -> np.ndarray:
    if form == "linear":
        return array.T
    if form == "patch":
        side = round((array.shape[0] / 3) ** 0.5)
        return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    if form == "conv":
        return array.transpose(3, 2, 0, 1)
    if form == "point":
        return array.T[..., None, None]
    if form == "channels":
        return array[None, :, None, None]
    if form in ("batch1", "batch2"):
        return array.reshape((1,) * int(form[-1]) + array.shape)
    return array


def _rows(array: np.ndarray, entry: Entry) -> list[tuple[np.ndarray, tuple[str, ...]]]:
    """A view of the array for each row of names."""
    rows = array if "/blocks/" in entry.path else array[None]
    return [(rows[i, ...], names) for i, names in enumerate(entry.names)]


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def held(tensors: Mapping[str, np.ndarray]) -> str:
    """What a file holds, for an error message: how many tensors, and the names of some."""
    return f"the file holds {len(tensors)}: {_some(tensors)}" if tensors else "the file holds none"


def to_params(
    tensors: Mapping[str, np.ndarray],
    entries: Iterable[Entry],
    shapes: Mapping[str, Any],
    ignore: Mapping[str, str],
    source: object,
) -> tuple[dict[str, Any], Report]:
    """Foreign tensors -> our parameters, `jax.Array`s in a nested dict of the structure of `shapes`.

    `shapes` has their dtypes (float32, or bfloat16 to round what is read) and perhaps shardings: each array is put on
    its devices before the next one is read, so that never more than one of them is in the host's memory as a whole.

    `ignore` maps name patterns (fnmatch) to the reason why such keys carry nothing. Any other key must be used, every
    entry must be found, every shape must fit and every number must be finite; else UserError names the keys.
    """
    entries = list(entries)
    report = Report(used=[name for entry in entries for row in entry.names for name in row])
    missing = set(report.used) - tensors.keys()
    unknown = []
    for name in tensors.keys() - set(report.used):
        reason = next((why for pattern, why in ignore.items() if fnmatch.fnmatchcase(name, pattern)), None)
        if reason is None:
            unknown.append(name)
        else:
            report.ignored[name] = reason
    if missing:
        there = f"{len(unknown)} in the file are not known: {_some(unknown)}" if unknown else held(tensors)
        raise UserError(f"{source}: {len(missing)} tensors are missing: {_some(missing)}; the config asks for them; {there}")
    if unknown:
        raise UserError(f"{source}: {len(unknown)} unknown tensors: {_some(unknown)}; the config does not ask for them")
    wanted = flatten_dict(shapes, sep="/")
    leaves = {entry.path: _gather(tensors, entry, wanted[entry.path], source) for entry in entries}
    assert leaves.keys() == wanted.keys(), f"entries and model disagree: {leaves.keys() ^ wanted.keys()}"
    if "logit_scale" in leaves:
        leaves["logit_scale"] = _logarithm(leaves["logit_scale"], source, limited="logit_bias" not in leaves)
    return unflatten_dict(leaves, sep="/"), report


def _gather(tensors: Mapping[str, np.ndarray], entry: Entry, wanted: Any, source: object) -> jax.Array:
    """wanted: with the array's shape and dtype, and perhaps a sharding."""
    array = np.empty(wanted.shape, wanted.dtype)
    for row, names in _rows(array, entry):
        for part, name in zip(entry.parts(row), names, strict=True):
            tensor = tensors[name]
            if tensor.dtype.kind in "iubc":
                raise UserError(f"{source}: {name} is of {tensor.dtype}; expected fractions: the file may be quantised")
            value = _ours(tensor, entry.form) if tensor.size != 1 else tensor.reshape(part.shape)
            value = np.asarray(value, np.float32)
            if value.shape != part.shape:
                expected = _theirs(np.empty(part.shape, bool), entry.form).shape
                raise UserError(f"{source}: {name} has shape {tensor.shape}, expected {expected} by the config")
            part[...] = value
            # a sum is finite if all its terms are (and is much cheaper to test); on overflow look closely
            if not np.isfinite(value.sum()) and not np.isfinite(value).all():
                raise UserError(f"{source}: {name} holds NaN or infinite numbers; the file is damaged or training diverged")
    if wanted.sharding is None:
        return jax.numpy.asarray(array)
    return jax.make_array_from_callback(array.shape, wanted.sharding, array.__getitem__)


def _logarithm(logit_scale: jax.Array, source: object, *, limited: bool) -> jax.Array:
    """The logarithm of the temperature, which a model keeps: a file may hold the scale itself.

    CLIP's is at most ln 100 = 4.6052. Models without that limit (SigLIP: `limited` False) go a little beyond, so up to 6, a
    scale of 403, is taken for a logarithm; from there to 1,000 for the scale itself, as e to the power of 6 or more is no
    temperature.
    """
    value = float(logit_scale)
    if value <= _MOST + 0.01:  # rounded in half precision
        return logit_scale
    if value < 6:
        if limited:
            scale = f"the scale is {math.exp(value):.4g}, above CLIP's 100"
            say(f"{source}: logit_scale = {value:.4g}, read as a logarithm: {scale}")
        return logit_scale
    if value > 1000:
        raise UserError(f"{source}: logit_scale = {value:.6g}; expected the logarithm of a scale, at most ln 100 = 4.6052")
    say(f"{source}: logit_scale = {value:.4g} is taken for the scale itself; its logarithm is {math.log(value):.4f}")
    return jax.numpy.log(logit_scale)


def from_params(params: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Our parameters -> foreign tensors, float32. Every leaf must have an entry."""
    leaves = flatten_dict(params, sep="/")
    tensors: dict[str, np.ndarray] = {}
    for entry in entries:
        array = np.asarray(leaves.pop(entry.path), np.float32)
        for row, names in _rows(array, entry):
            parts = zip(names, entry.parts(row), strict=True)
            tensors.update({name: _theirs(part, entry.form) for name, part in parts})
    assert not leaves, f"parameters without a foreign name: {_some(leaves)}"
    return tensors
