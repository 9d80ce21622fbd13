"""Embeddings, made once: kept on disk by what they depend on, the model, its preprocessing and the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedclip_jax.data.images import ImageSource
from biomedclip_jax.data.labelled import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation.candidates import Candidate
from biomedclip_jax.files import write_file
from biomedclip_jax.progress import progress_bar

_FORMAT = "1"  # raise it when the same model would embed the same image otherwise


@dataclass(frozen=True)
class ImageEmbeddings:
    """rows: unit length, float32 [m, E], of the images that could be read. kept: int64 [m], their positions among all."""

    rows: np.ndarray
    kept: np.ndarray
    errors: dict[int, str]  # position -> why it could not be read


class Embeddings:
    """The embeddings of models, from the folder `cache` where they are known; None keeps nothing."""

    def __init__(self, cache: Path | None, batch_size: int = 32):
        self._cache = cache
        self._batch_size = batch_size

    def images(self, candidate: Candidate, images: Sequence[ImageSource], data_fingerprint: str) -> ImageEmbeddings:
        """Of `images`, which `data_fingerprint` stands for. What cannot be read is in `errors`; UserError if nothing can."""
        path = self._path("image", candidate, data_fingerprint)
        if path is not None and path.is_file():
            with np.load(path) as stored:
                errors = dict(zip(stored["bad"].tolist(), stored["reasons"].tolist(), strict=True))
                return ImageEmbeddings(stored["rows"], stored["kept"], errors)
        found: dict[int, UserError] = {}
        with progress_bar(len(images), f"image ({candidate.name})") as bar:
            rows = candidate.clip.encode_images(images, self._batch_size, bar.update, found.__setitem__)
        if len(found) == len(images):
            raise UserError(f"none of the {len(images)} images can be read; the first: {next(iter(found.values()), '')}")
        kept = np.array([i for i in range(len(images)) if i not in found], np.int64)
        errors = {position: str(error) for position, error in found.items()}
        if path is not None:
            bad, reasons = np.array(list(errors), np.int64), np.array(list(errors.values()), np.str_)
            write_file(path, lambda partial: _save(partial, rows=rows, kept=kept, bad=bad, reasons=reasons))
        return ImageEmbeddings(rows, kept, errors)

    def texts(self, candidate: Candidate, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, E], unit length."""
        path = self._path("text", candidate, fingerprint(texts))
        if path is not None and path.is_file():
            with np.load(path) as stored:
                return stored["rows"]
        with progress_bar(len(texts), f"text ({candidate.name})", show=len(texts) > 1_000) as bar:
            rows = candidate.clip.encode_texts(texts, progress=bar.update)
        if path is not None:
            write_file(path, lambda partial: _save(partial, rows=rows))
        return rows

    def _path(self, kind: str, candidate: Candidate, data: str) -> Path | None:
        if self._cache is None:
            return None
        return self._cache / f"{kind}-{fingerprint([_FORMAT, kind, candidate.fingerprint, data])}.npz"


def _save(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:  # given a name, numpy would append ".npz" to it
        np.savez(file, **arrays)  # type: ignore[arg-type]
