"""The .npz file that `biomedclip embed` writes: embeddings and their names, which cost their bytes."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biomedclip_jax.data.embeddings_folder import load_folder
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file


def write_embeddings(out: Path, embeddings: np.ndarray, names: Sequence[str]) -> None:
    """Write embeddings float32 [n, E] and their n names, and say so.

    numpy's own arrays of text are as wide as the longest name in each row: one caption of 100 kB among a thousand would
    make a file of 400 MB. So the names are bytes, one after the other, and the positions where they end.
    """
    encoded = [os.fsencode(name) for name in names]  # file names that are not UTF-8 keep their bytes
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def save(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name, numpy would append ".npz" to it
            np.savez(file, embeddings=embeddings, names=np.frombuffer(b"".join(encoded), np.uint8), name_ends=ends)

    write_file(out, save)
    print(f"{out}: {len(names)} embeddings of width {embeddings.shape[1]}")


def load_embeddings(file: str | Path) -> tuple[np.ndarray, list[str]]:
    """The embeddings float32 [n, E] and the n names of a file, or of a folder, that `biomedclip embed` has written.

    Of a folder those of all files that were readable images. UserError for what is no such file or folder, and for a
    folder that is not complete.
    """
    if Path(file).is_dir():
        return load_folder(Path(file))
    try:
        with np.load(file) as arrays:
            embeddings, names = arrays["embeddings"], arrays["names"]
            if names.dtype != np.uint8:  # as versions before 2026-12 wrote them
                return embeddings, names.tolist()
            ends = arrays["name_ends"].tolist()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; expected a .npz that `biomedclip embed` has written") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not a .npz that `biomedclip embed` has written ({error})") from error
    data = names.tobytes()
    return embeddings, [os.fsdecode(data[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
