"""Pictures that differ, and an index of them whose making counts what is embedded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import biomedclip_jax as bc
from biomedclip_jax.search.update import Changes, Wanted, update_index


def write_picture(path: Path, seed: int) -> Path:
    """A picture that differs from those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    return path


def change_pictures(scans: Path) -> None:
    """One picture less, one other, one new, one renamed, and one touched that stays the same, of the fixture `scans`."""
    (scans / "a" / "00.png").unlink()
    write_picture(scans / "a" / "01.png", 101)
    write_picture(scans / "c" / "new.png", 102)
    (scans / "b" / "11.png").rename(scans / "b" / "moved.png")
    os.utime(scans / "b" / "10.png")


class Indexing:
    """Makes indices with one model, and counts the images that it is given."""

    def __init__(self, model: Path, clip: bc.Pretrained, monkeypatch: pytest.MonkeyPatch):
        self._model, self._clip = model, clip
        self.embedded = 0
        encode = bc.Pretrained.encode_images

        def counted(own: bc.Pretrained, images: Sequence[Any], *rest: Any, **more: Any) -> np.ndarray:
            self.embedded += len(images)
            return encode(own, images, *rest, **more)

        monkeypatch.setattr(bc.Pretrained, "encode_images", counted)

    def __call__(self, out: Path | str, *sources: object, **options: Any) -> Changes:
        """Index some sources."""
        wanted = Wanted(str(self._model), tuple(map(str, sources)), batch_size=4, **options)
        return update_index(out, wanted, lambda: self._clip)
