"""What changes when the images or captions of some pairs do: embeddings are kept under it."""

import os
from collections.abc import Iterator

from biomedclip_jax.data.labelled.types import file_fingerprint, fingerprint
from biomedclip_jax.data.pairs import Mixture, Pairs, Subset
from biomedclip_jax.data.tables import TablePairs
from biomedclip_jax.data.tfds_read import BuildPairs
from biomedclip_jax.data.webdataset import TarPairs
from biomedclip_jax.errors import UserError


def pairs_fingerprint(pairs: Pairs) -> str:
    """A hash of the captions, and of the images by name, size and time of last change of the files that they are in.

    The captions are read once, the images not at all.
    """
    return fingerprint([*_images(pairs), fingerprint(_captions(pairs))])


def _captions(pairs: Pairs) -> Iterator[str]:
    for index in range(len(pairs)):
        try:
            captions = pairs.texts(index).captions
        except UserError as error:
            captions = (str(error),)
        yield str(len(captions))
        yield from captions


def _images(pairs: Pairs) -> Iterator[str]:
    yield f"{type(pairs).__name__} {len(pairs)}"
    match pairs:
        case Subset():
            yield from _images(pairs.pairs)
            yield fingerprint(map(str, pairs.positions))
        case Mixture():
            for source in pairs.sources:
                yield from _images(source)
        case TablePairs():
            yield fingerprint(_state(pairs.name(index)) for index in range(len(pairs)))
        case TarPairs():
            yield from pairs.versions
        case BuildPairs():
            yield file_fingerprint(pairs.files)
            yield pairs.name(0)  # with the split, which may be a part of those files
        case _:
            raise TypeError(f"{type(pairs).__name__}: nobody has said here what its images depend on")


def _state(path: str) -> str:
    try:
        state = os.stat(path)
    except OSError:
        return f"{path} is not there"
    return f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"
