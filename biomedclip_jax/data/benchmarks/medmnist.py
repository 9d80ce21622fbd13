"""MedMNIST v2, the twelve 2-D sets: `<name>.npz` (28 pixels) or `<name>_{64,128,224}.npz`.

Each holds {train,val,test}_images, uint8 [n, S, S] or [n, S, S, 3], and {train,val,test}_labels, integers [n, 1], or
[n, 14] of 0 and 1 for ChestMNIST. The arrays are compressed, so a split's images are read into memory whole, when the
first is asked for.
"""

import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import file_fingerprint, fingerprint
from biomedclip_jax.errors import UserError, first_line

KEYS = {"train": "train", "validation": "val", "test": "test"}


def read_medmnist(name: str, where: Path, split: str, classes: Sequence[str], flag: str, size: int = 28) -> Labelled:
    """A split of the set `flag`. Of ChestMNIST, whose images have any number of findings, those with exactly one.

    How many that are is in `caveats`.
    UserError for a file that is missing, damaged, or holds other arrays.
    """
    check_split(name, split, tuple(KEYS))
    path, images, labels = arrays_of(where, split, flag, size)
    caveats: list[str] = []
    if labels.shape[1] > 1:
        kept = np.flatnonzero((labels != 0).sum(axis=1) == 1)
        caveats.append(f"the {len(kept):,} of {len(labels):,} images with exactly one finding")
        labels = labels[kept].argmax(axis=1)[:, None]
    else:
        kept = np.arange(len(labels))
    if len(kept) == 0 or labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{path}: labels from {labels.min(initial=0)} to {labels.max(initial=0)}, expected 0 to {len(classes) - 1}"
        )
    return Labelled(
        name=name,
        classes=tuple(classes),
        images=[NpzImage(images, int(index)) for index in kept],
        names=[f"{path}, {split} image {index}" for index in kept],
        labels=labels[:, 0].astype(np.int64),
        fingerprint=fingerprint([file_fingerprint([path]), split]),
        caveats=tuple(caveats),
    )


def arrays_of(where: Path, split: str, flag: str, size: int) -> tuple[Path, "NpzArray", np.ndarray]:
    """The file of a set and, of a split, its images and its labels. UserError for a file that is missing or another."""
    path = existing(where, f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz")
    images, labels = NpzArray(path, f"{KEYS[split]}_images"), NpzArray(path, f"{KEYS[split]}_labels").values
    if len(images.shape) not in (3, 4) or images.shape[3:] not in ((), (3,)) or images.shape[1] != size:
        raise UserError(
            f"{path}: {images.key} is of shape {list(images.shape)}, expected [n, {size}, {size}] or [n, {size}, {size}, 3]"
        )
    if labels.ndim != 2 or len(labels) != images.shape[0] or labels.dtype.kind not in "ui":
        raise UserError(
            f"{path}: {KEYS[split]}_labels is {labels.dtype} {list(labels.shape)}, expected integers [{images.shape[0]}, 1]"
        )
    return path, images, labels


class NpzArray:
    """An array in an .npz, read when it is needed; `shape` is known before. Another process reads it itself."""

    def __init__(self, path: Path, key: str):
        """UserError if the file is no .npz or has no such array."""
        self.path, self.key = path, key
        self._lock = threading.Lock()
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, _, self.dtype = header(file)
        except KeyError:
            raise UserError(f"{path}: no array {key!r} in it; download it again") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not readable as .npz ({first_line(error)}); download it again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_read", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @cached_property
    def _read(self) -> np.ndarray:
        try:
            with np.load(self.path) as file:
                return file[self.key]
        except Exception as error:  # a cut file: zlib.error, EOFError, BadZipFile, ValueError ...
            raise UserError(f"{self.path}: {self.key} is damaged ({first_line(error)}); download it again") from error

    @property
    def values(self) -> np.ndarray:
        """The whole array, read at the first call. UserError for a damaged file."""
        with self._lock:  # or each thread would read it
            return self._read


@dataclass(frozen=True)
class NpzImage(LazyImage):
    """Row `index` of an array of images, decoded when it is asked for."""

    array: NpzArray
    index: int

    def load(self) -> Image.Image:
        """The picture in mode "L" or "RGB", by its array. UserError for a damaged file."""
        return Image.fromarray(self.array.values[self.index])
