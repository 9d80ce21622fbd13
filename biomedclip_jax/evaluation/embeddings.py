"""Embeddings, made once: kept on disk under a hash of what they depend on, the model, its preprocessing and the data.

They are read memory-mapped: 725,739 pairs of 512 numbers are 1.5 GB a side, for each model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.load import ImageSource, LazyImage, load_image
from biomedclip_jax.data.images.preprocess import cut_off
from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.data.unread_texts import say_unread
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.files import write_folder, write_text
from biomedclip_jax.models import unit_length
from biomedclip_jax.support.terminal import progress_bar

_FORMAT = "4"  # raise it when the same model would embed the same image otherwise
_ROWS, _FEATURES, _ERRORS, _VALUE, _UNREAD = "rows.npy", "features.npy", "errors.json", "value.json", "unread.json"
_AT_ONCE = 65_536
_SAID, _MUCH = 0.005, 0.2  # shares of an image that are cut off: of the average, and of one


@dataclass(frozen=True)
class ImageEmbeddings:
    """Embeddings of the m images that could be read.

    rows: unit length, float32 [m, E]. features: the same before they are made unit length, which probes learn from.
    kept: int64 [m], the positions of these images among all. errors: position -> why an image could not be read.
    cut_off: what the model does not see of the images, in words; "" where it sees all, or nobody looked.
    """

    rows: np.ndarray
    features: np.ndarray
    kept: np.ndarray
    errors: dict[int, str]
    cut_off: str = ""


class _Looked(LazyImage):
    """An image of which is noted what share preprocessing cuts off; None: it was not read."""

    def __init__(self, source: ImageSource, config: PreprocessConfig):
        self._source, self._config = source, config
        self.cut_off: float | None = None

    def load(self) -> Image.Image:
        """Read and decode the image. UserError, which names it, if that fails."""
        image = load_image(self._source)
        self.cut_off = cut_off(image.size, self._config)
        return image


def cut_off_in_words(shares: Sequence[float], mode: str) -> str:
    """What to say of images of which these shares are cut off; "" for less than half a percent on average."""
    if not shares or (average := sum(shares) / len(shares)) < _SAID:
        return ""
    much = sum(share > _MUCH for share in shares)
    many = f", more than a fifth of {much:,} of {len(shares):,}" if much else ""
    return f"resize_mode {mode} cuts off {average:.0%} of the average image{many}"


class Embeddings:
    """Makes the embeddings of models, or reads them from the folder `cache`, where it keeps them; None keeps nothing."""

    def __init__(self, cache: Path | None, batch_size: int = 32):
        self._cache = cache
        self._batch_size = batch_size

    def images(self, candidate: Candidate, images: Sequence[ImageSource], data_fingerprint: str) -> ImageEmbeddings:
        """Embeddings of images, which are kept under `data_fingerprint`. UserError if none of them can be read."""
        folder = self._folder("image", candidate, data_fingerprint)
        if folder is not None and folder.is_dir():
            return _read_images(folder, len(images))
        found: dict[int, UserError] = {}
        config = candidate.clip.processor.config
        looked = [_Looked(image, config) for image in images]
        with progress_bar(len(images), f"image ({candidate.name})") as bar:
            features = candidate.clip.encode_images(looked, self._batch_size, bar.update, found.__setitem__, normalize=False)
        cut = cut_off_in_words([each.cut_off for each in looked if each.cut_off is not None], config.resize_mode)
        if len(found) == len(images):
            raise UserError(f"none of the {len(images)} images can be read; the first: {next(iter(found.values()), '')}")
        errors = {position: str(error) for position, error in found.items()}
        if folder is None:
            return ImageEmbeddings(_unit(features), features, _all_but(errors, len(images)), errors, cut)

        def write(partial: Path) -> None:
            np.save(partial / _FEATURES, features)
            rows = np.lib.format.open_memmap(partial / _ROWS, "w+", np.float32, features.shape)
            _unit(features, rows)
            rows.flush()
            write_text(partial / _ERRORS, json.dumps({"images": len(images), "errors": errors, "cut_off": cut}))

        write_folder(folder, write, replace=True)
        return _read_images(folder, len(images))

    def texts(self, candidate: Candidate, texts: Sequence[str], source: str) -> np.ndarray:
        """Embeddings of texts, float32 [n, E], unit length. Says on stderr which are cut or mostly unknown to the model.

        source: what the texts are, for this line.
        """
        said = f"{source} ({candidate.name})"
        folder = self._folder("texts", candidate, fingerprint(texts)) if texts else None
        if folder is not None and folder.is_dir():
            say_unread(said, json.loads((folder / _UNREAD).read_text(encoding="utf-8")))
            return np.load(folder / _ROWS, mmap_mode="r")
        with progress_bar(len(texts), f"text ({candidate.name})", show=len(texts) > 1_000) as bar:
            rows = candidate.clip.encode_texts(texts, progress=bar.update)
        unread = candidate.clip.unread_texts(texts)
        say_unread(said, unread)
        if folder is None:
            return rows

        def write(partial: Path) -> None:
            np.save(partial / _ROWS, rows)
            write_text(partial / _UNREAD, json.dumps(unread))

        write_folder(folder, write, replace=True)
        return np.load(folder / _ROWS, mmap_mode="r")

    def logit_scale(self, candidate: Candidate) -> float:
        """What the model multiplies cosines with; kept, too, or it would have to be loaded for this one number."""
        folder = self._folder("logit_scale", candidate, "")
        if folder is not None and folder.is_dir():
            return json.loads((folder / _VALUE).read_text())
        value = candidate.clip.logit_scale
        if folder is not None:
            write_folder(folder, lambda partial: write_text(partial / _VALUE, json.dumps(value)), replace=True)
        return value

    def _folder(self, kind: str, candidate: Candidate, data: str) -> Path | None:
        if self._cache is None:
            return None
        return self._cache / f"{kind}-{fingerprint([_FORMAT, kind, candidate.fingerprint, data])}"


class PartOfImages(Embeddings):
    """Embeddings of some images of data whose images are embedded as a whole: nothing is made twice."""

    def __init__(self, whole: Embeddings, images: Sequence[ImageSource], data_fingerprint: str, positions: np.ndarray):
        """images, data_fingerprint: of the whole. positions: int [m], rising, of the part."""
        super().__init__(whole._cache, whole._batch_size)
        self._whole, self._images, self._data, self._positions = whole, images, data_fingerprint, positions

    def images(self, candidate: Candidate, images: Sequence[ImageSource], data_fingerprint: str) -> ImageEmbeddings:
        """Embeddings of the part, which is what the arguments must be."""
        whole = self._whole.images(candidate, self._images, self._data)
        own = np.isin(whole.kept, self._positions)
        kept = np.searchsorted(self._positions, whole.kept[own])
        errors = {number: whole.errors[i] for number, i in enumerate(self._positions.tolist()) if i in whole.errors}
        return ImageEmbeddings(whole.rows[own], whole.features[own], kept, errors)


def _read_images(folder: Path, count: int) -> ImageEmbeddings:
    kept = json.loads((folder / _ERRORS).read_text())
    if kept["images"] != count:
        raise UserError(f"{folder}: embeddings of {kept['images']} images, expected {count}; delete this folder")
    errors = {int(position): reason for position, reason in kept["errors"].items()}
    rows, features = (np.load(folder / name, mmap_mode="r") for name in (_ROWS, _FEATURES))
    return ImageEmbeddings(rows, features, _all_but(errors, count), errors, kept.get("cut_off", ""))


def _all_but(errors: dict[int, str], count: int) -> np.ndarray:
    return np.setdiff1d(np.arange(count, dtype=np.int64), np.array(list(errors), np.int64), assume_unique=True)


def _unit(features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Each row of unit length, into `rows` where it is given; a part at a time, for there may be gigabytes."""
    rows = np.empty(features.shape, np.float32) if rows is None else rows
    for start in range(0, len(features), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        rows[part] = np.asarray(unit_length(jnp.asarray(features[part])))
    return rows
