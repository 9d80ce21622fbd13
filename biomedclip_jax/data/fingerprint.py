"""Hashes that change when data do: embeddings that were computed once are kept under them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from biomedclip_jax.errors import UserError

if TYPE_CHECKING:
    from biomedclip_jax.data.pairs import Pairs


def fingerprint(parts: Iterable[str]) -> str:
    """A hash (32 hexadecimal digits) of some strings in their order; ["ab", "c"] and ["a", "bc"] differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


def file_fingerprint(paths: Iterable[Path]) -> str:
    """A hash of files by path, size and time of last change: reading terabytes of images to hash them would take
    hours.

    OSError for a file that is missing.
    """
    return fingerprint(_state_of(path, path.stat()) for path in paths)


def file_state(path: str) -> str:
    """Path, size and time of last change of a file in one string, which also says so if the file is missing."""
    try:
        return _state_of(path, os.stat(path))
    except OSError:
        return f"{path} is not there"


def _state_of(path: str | Path, state: os.stat_result) -> str:
    return f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"


def pairs_fingerprint(pairs: "Pairs") -> str:
    """A hash of the captions of some pairs, and of what their images depend on (`Pairs.image_versions`).

    The captions are read once, the images not at all.
    """
    return fingerprint([*pairs.image_versions(), fingerprint(_captions(pairs))])


def _captions(pairs: "Pairs") -> Iterator[str]:
    for index in range(len(pairs)):
        try:
            captions = pairs.texts(index).captions
        except UserError as error:
            captions = (str(error),)
        yield str(len(captions))
        yield from captions
