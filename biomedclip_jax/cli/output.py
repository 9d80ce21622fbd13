"""What `biomedclip classify` prints (a table to read, CSV or JSON to work with) and the .npz that `embed` writes."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from biomedclip_jax.data.images.search import find_all_images
from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.support.terminal import progress_bar


def write_table(out: TextIO, images: Sequence[Path], labels: Sequence[str], probabilities: np.ndarray, format: str) -> None:
    """Write the probabilities [images, labels] of `classify`, the best label first.

    format: "table", "csv" (image, label, probability) or "json" (a list, one object an image).
    """
    ranked = [[(labels[j], float(row[j])) for j in np.argsort(-row, kind="stable")] for row in probabilities]
    if format == "json":
        rows = [{"image": str(path), "probabilities": dict(found)} for path, found in zip(images, ranked, strict=True)]
        json.dump(rows, out, indent=2)
        out.write("\n")
    elif format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["image", "label", "probability"])
        for path, found in zip(images, ranked, strict=True):
            writer.writerows([str(path), label, f"{p:.6f}"] for label, p in found)
    else:
        width = max(map(len, labels))
        for path, found in zip(images, ranked, strict=True):
            out.write(f"{path}\n")
            for label, p in found:
                out.write(f"  {label:{width}s}  {p:7.2%}  {'█' * round(30 * p)}\n")


def _write(out: Path, embeddings: np.ndarray, names: Sequence[str]) -> None:
    def save(partial: Path) -> None:
        with partial.open("wb") as file:  # given a name, numpy would append ".npz" to it
            np.savez(file, embeddings=embeddings, names=np.array(names))

    write_file(out, save)
    print(f"{out}: {len(names)} embeddings of width {embeddings.shape[1]}")


def embed_images(load: Callable[[], Pretrained], sources: Sequence[str], out: Path, batch_size: int) -> None:
    """Embed files and folders. Files that cannot be read are listed on stderr and left out; UserError if none can."""
    paths = find_all_images(list(sources))
    clip = load()
    bad: dict[int, UserError] = {}
    with progress_bar(len(paths), "image") as bar:
        embeddings = clip.encode_images(paths, batch_size, bar.update, bad.__setitem__)
    for error in bad.values():
        print(f"skipped: {error}", file=sys.stderr)
    if len(bad) == len(paths):
        raise UserError(f"none of the {len(paths)} images can be read; nothing is written")
    _write(out, embeddings, [str(path) for i, path in enumerate(paths) if i not in bad])


def embed_texts(load: Callable[[], Pretrained], source: Path, out: Path, batch_size: int) -> None:
    """Embed the lines of a UTF-8 text file; empty lines are left out."""
    try:
        texts = [line for line in source.read_text(encoding="utf-8-sig").split("\n") if line.strip()]  # as in grep and wc
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; expected a text file with one sentence a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not readable as UTF-8 text ({error})") from error
    if not texts:
        raise UserError(f"{source}: no sentence in it; expected one a line")
    clip = load()
    with progress_bar(len(texts), "text") as bar:
        embeddings = clip.encode_texts(texts, batch_size, bar.update)
    _write(out, embeddings, texts)
