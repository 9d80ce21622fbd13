"""What `biomedclip classify` prints (a table to read, CSV or JSON to work with) and what `embed` puts into its file."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from biomedclip_jax.data.embeddings_file import write_embeddings
from biomedclip_jax.data.images.search import find_all_images
from biomedclip_jax.data.unread_texts import say_unread
from biomedclip_jax.errors import UserError
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
    write_embeddings(out, embeddings, [str(path) for i, path in enumerate(paths) if i not in bad])


def embed_texts(load: Callable[[], Pretrained], source: Path, out: Path, batch_size: int) -> None:
    """Embed the lines of a UTF-8 text file. Empty lines are left out and counted on stderr."""
    try:
        lines = source.read_text(encoding="utf-8-sig").split("\n")  # as in grep and wc
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; expected a text file with one sentence a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not readable as UTF-8 text ({error})") from error
    numbered = [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    texts = [line for _, line in numbered]
    if not texts:
        raise UserError(f"{source}: no sentence in it; expected one a line")
    if empty := len(lines) - (lines[-1] == "") - len(texts):
        print(f"{source}: {empty:,} empty {'line' if empty == 1 else 'lines'} left out", file=sys.stderr)
    clip = load()
    with progress_bar(len(texts), "text") as bar:
        embeddings = clip.encode_texts(texts, batch_size, bar.update)
    say_unread(str(source), clip.unread_texts(texts, [name for name, _ in numbered]))
    write_embeddings(out, embeddings, texts)
