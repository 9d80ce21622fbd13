"""A model under evaluation: its name in the tables, a hash of its weights, and the model itself once it is needed."""

import hashlib
from functools import cached_property
from pathlib import Path

import jax

from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.interop.detect import UNFINISHED_RUN, check_adapter, detect
from biomedclip_jax.interop.model_files import local_folder
from biomedclip_jax.pretrained import Pretrained, from_pretrained

_SMALL = 10_000_000  # bytes: tokenizers have less, weights more


class Candidate:
    """`clip` is loaded on first use: an evaluation whose embeddings are all known never loads it."""

    def __init__(self, source: str, name: str | None = None, adapter: str | None = None):
        """source, adapter: what `from_pretrained` takes; not read yet, but a UserError if either does not exist.

        name: what tables call the model; by default the last part of the source, and of the adapter's folder or of the run
        whose `adapter/` it is.
        """
        self.source, self.adapter = source, adapter or ""
        self.name = name or _name(source, adapter)
        self._folder, self._adapter = local_folder(source), None if adapter is None else local_folder(adapter)
        if not self._folder.exists():
            raise UserError(
                f"{source}: no such model; expected a model folder, a file of weights, a run folder or hf-hub:org/name"
            )
        if self._adapter is not None:
            check_adapter(self._adapter)

    @cached_property
    def clip(self) -> Pretrained:
        """The model itself, loaded when it is first asked for."""
        # emulated CPU devices have no more cores together than one has
        return from_pretrained(self._folder, adapter=self._adapter, every_device=jax.default_backend() != "cpu")

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything in the model's files and its adapter's, or of the parameters of a run without a model folder."""
        found = detect(self._folder)
        if found.kind == UNFINISHED_RUN:
            return self.clip.fingerprint
        of_model = _digest_of_model(found.path)
        return of_model if self._adapter is None else fingerprint([of_model, _digest_of_model(self._adapter)])


def _name(source: str, adapter: str | None) -> str:
    name = Path(source.removeprefix("hf-hub:")).name or source
    if adapter is None:
        return name
    folder = Path(adapter).resolve()
    return f"{name}+{folder.parent.name if folder.name == 'adapter' else folder.name}"


def _digest_of_model(folder: Path) -> str:
    if folder.is_file():  # and what belongs to it: its tokenizer, the text tower of PMC-CLIP's three files
        beside = sorted(path for path in folder.parent.iterdir() if path.is_file() and path != folder)
        files = [folder, *(path for path in beside if path.stat().st_size < _SMALL or path.name.startswith("text_"))]
        folder = folder.parent
    else:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint(f"{path.relative_to(folder)} {_digest_of_file(path)}" for path in files)


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
