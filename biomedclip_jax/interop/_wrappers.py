"""Names of tensors behind wrappers: DataParallel's "module.", torch.compile's "_orig_mod.", a trainer's "model."

A model's own names have no beginning in common, so one that all of them have is a wrapper's, whatever it is called.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from biomedclip_jax.interop._state_dict import is_average, say
from biomedclip_jax.interop.tensor_files import TensorFile, read_weights

_COUNT = "n_averaged"  # of torch's AveragedModel, beside "module."


class _Behind(TensorFile):
    """Those tensors of a file whose names begin with a prefix, without it."""

    def __init__(self, file: TensorFile, prefix: str, names: Collection[str]):
        self._file, self._prefix = file, prefix
        self._names = dict.fromkeys(name.removeprefix(prefix) for name in names)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file[self._prefix + name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        return self._file.shape(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_unwrapped(path: Path, usual: tuple[str, ...] = ()) -> TensorFile:
    """A weight file of a model or tower, its names without the beginning that all of them have, which is said.

    usual: beginnings that such a model has of its own, of which nothing is said. An average of the weights beside them
    ("ema.", "model_ema.") is passed over, and that is said, too.
    """
    file = read_weights(path)
    names = [name for name in file if name != _COUNT]
    averages = [name for name in names if is_average(name.partition(".")[0]) and "." in name]
    if averages and len(averages) < len(names):
        names = [name for name in names if name not in set(averages)]
        beginning = averages[0].partition(".")[0]
        say(f"{path}: the average of weights under {beginning!r} is passed over; the weights themselves are read")
    prefix = _common(names)
    if prefix and prefix not in usual:
        say(f"{path}: the names of its {len(names)} tensors begin with {prefix!r}, which is taken away")
    return _Behind(file, prefix, names) if prefix or len(names) < len(file) else file


def _common(names: Collection[str]) -> str:
    """The longest beginning, up to a dot, that all names have: "" for fewer than two."""
    if len(names) < 2:
        return ""
    first, last = min(names).split("."), max(names).split(".")
    length = 0
    while length < min(len(first), len(last)) - 1 and first[length] == last[length]:
        length += 1
    return "".join(f"{part}." for part in first[:length])
