"""PatchCamelyon: six HDF5 files, or the data set `patch_camelyon` as TFDS prepares it.

`camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`: key x is uint8 [n, 96, 96, 3], key y is uint8 [n, 1, 1, 1],
1 for a patch with tumour tissue in its centre.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.data._tfds_read import open_build
from biomedclip_jax.data.benchmarks import check_split, existing
from biomedclip_jax.data.images.load import LazyImage
from biomedclip_jax.data.labelled.readers import labelled_classes
from biomedclip_jax.data.labelled.types import Labelled
from biomedclip_jax.data.pairs import file_fingerprint, fingerprint
from biomedclip_jax.errors import UserError, first_line

_FILE_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
# Neighbours share chunks: all those of 1,024 patches stay open, whatever their shape. The number of slots should be
# prime.
_CACHE_BYTES, _CACHE_SLOTS = 2**26, 10_007


def read_pcam(name: str, where: Path, split: str, classes: Sequence[str]) -> Labelled:
    """A split of PatchCamelyon. UserError for files that are missing or of another shape."""
    check_split(name, split, tuple(_FILE_SPLITS))
    if build := _build(where):
        found = labelled_classes(name, open_build(build, split, "image", None, "label"))
        if len(found.classes) != len(classes):
            raise UserError(f"{build}: {len(found.classes)} classes, expected {len(classes)}")
        return replace(found, classes=tuple(classes))
    stem = f"camelyonpatch_level_2_split_{_FILE_SPLITS[split]}"
    x, y = existing(where, f"{stem}_x.h5"), existing(where, f"{stem}_y.h5")
    images, labels = H5Array(x, "x"), H5Array(y, "y")
    count = images.shape[0]
    if len(images.shape) != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise UserError(
            f"{x}: key 'x' is {images.dtype} {list(images.shape)}, expected uint8 [n, 96, 96, 3]; download it again"
        )
    if labels.shape[0] != count or int(np.prod(labels.shape)) != count:
        raise UserError(f"{y}: key 'y' is of shape {list(labels.shape)}, expected [{count}, 1, 1, 1]; download it again")
    values = labels.read(...).reshape(-1).astype(np.int64)
    if count == 0 or not np.isin(values, np.arange(len(classes))).all():
        raise UserError(f"{y}: labels {np.unique(values).tolist()[:5]}, expected 0 and 1; download it again")
    return Labelled(
        name=name,
        classes=tuple(classes),
        images=[H5Image(images, index) for index in range(count)],
        names=[f"{x}, image {index}" for index in range(count)],
        labels=values,
        fingerprint=fingerprint([file_fingerprint([x, y])]),
    )


class H5Array:
    """An array in an HDF5 file, read in parts, also from several threads. Another process opens the file itself."""

    def __init__(self, path: Path, key: str):
        """UserError if the file is no HDF5 or has no such array."""
        self.path, self.key = path, key
        self._lock = threading.Lock()
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        self.dtype: np.dtype = self._array.dtype

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_array", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @cached_property
    def _array(self) -> Any:
        try:
            import h5py
        except ImportError:
            raise UserError(f"{self.path}: reading HDF5 needs h5py: pip install 'biomedclip_jax[evaluate]'") from None
        try:
            file = h5py.File(self.path, "r", rdcc_nbytes=_CACHE_BYTES, rdcc_nslots=_CACHE_SLOTS)
        except OSError as error:
            raise UserError(f"{self.path}: not readable as HDF5 ({first_line(error)}); download it again") from error
        if not isinstance(file.get(self.key), h5py.Dataset):
            raise UserError(f"{self.path}: no array {self.key!r}; there are: {', '.join(map(repr, file)) or 'none'}")
        return file[self.key]

    def read(self, part: Any) -> np.ndarray:
        """The values of `array[part]`. UserError for a damaged file."""
        with self._lock:  # also of the first use, which opens the file
            try:
                return np.asarray(self._array[part])
            except OSError as error:
                raise UserError(f"{self.path}: damaged ({first_line(error)}); download it again") from error


@dataclass(frozen=True)
class H5Image(LazyImage):
    """Row `index` of an array of images, read when it is asked for."""

    array: H5Array
    index: int

    def load(self) -> Image.Image:
        """Read the image, in mode "RGB". UserError for a damaged file."""
        return Image.fromarray(self.array.read(self.index))


def _build(where: Path) -> Path | None:
    """The folder of TFDS's version, in or below `where`; the newest of several."""
    found = sorted(path for pattern in ("", "*/", "patch_camelyon/*/") for path in where.glob(f"{pattern}features.json"))
    return found[-1].parent if found else None
