"""A model under evaluation: its name in the tables, a hash of its weights, and the model itself once it is needed."""

import hashlib
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from biomedclip_jax.data.labelled import fingerprint
from biomedclip_jax.interop.hub import local_folder
from biomedclip_jax.pretrained import Pretrained, from_pretrained


class Candidate:
    """`clip` is loaded on first use: an evaluation whose embeddings are all known never loads it."""

    def __init__(self, source: str, name: str | None = None):
        """source: what `from_pretrained` takes. name: what tables call it; by default the last part of the source."""
        self.source = source
        self.name = name or Path(source.removeprefix("hf-hub:")).name or source
        self._folder = local_folder(source)

    @cached_property
    def clip(self) -> Pretrained:
        """The model."""
        return from_pretrained(self._folder)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything in the model's files, or of the parameters of a run that has no model folder yet."""
        folder = self._folder
        if (folder / "model").is_dir():
            folder = folder / "model"
        elif (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
            leaves = jax.tree.leaves_with_path(self.clip.params)
            return fingerprint(f"{jax.tree_util.keystr(path)} {_digest_of(np.asarray(leaf))}" for path, leaf in leaves)
        files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
        return fingerprint(f"{path.relative_to(folder.parent)} {_digest_of_file(path)}" for path in files)


def _digest_of(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
